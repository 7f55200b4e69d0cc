"""Two services, an application, and endpoints that show how calls are run."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import modelport as bentoml

EVENTS: list[str] = []


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            EVENTS.append(message["type"])
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    request = await receive()
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    said = f"{scope['method']} {scope['root_path']} {scope['path']} {request['body'].decode()}"
    for word in said.split():
        await send({"type": "http.response.body", "body": f"{word}\n".encode(), "more_body": True})
    await send({"type": "http.response.body"})


@bentoml.service
class Inner:
    @bentoml.api
    async def shout(self, text: str) -> str:
        if text == "fail":
            raise bentoml.exceptions.InvalidArgument("inner text")
        return text.upper()


@bentoml.asgi_app(application, path="/web")
@bentoml.service(path_prefix="/team", traffic={"timeout": 2, "max_concurrency": 4})
class Team:
    inner = bentoml.depends(Inner)

    def __init__(self) -> None:
        self.most = 0
        self.now = 0
        self.lock = threading.Lock()
        self.sizes: list[int] = []

    @bentoml.on_shutdown
    def leave(self) -> None:
        print("Team has left", flush=True)

    @bentoml.api
    def echo(self, text: str) -> str:
        return text

    @bentoml.api
    def through(self, text: str) -> str:
        result: str = self.inner.shout(text)
        return result

    @bentoml.api
    async def through_async(self, text: str) -> str:
        result: str = await self.inner.to_async.shout(text=text)
        return result

    @bentoml.api
    def together(self, seconds: float) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(seconds)
        with self.lock:
            self.now -= 1
        return self.most

    @bentoml.api
    def size(self, file: Path) -> list[Any]:
        return [file.stat().st_size, file.name[-7:], str(file.parent)]


@bentoml.service
class Other:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    @bentoml.api
    def echo(self, text: str) -> str:
        return f"other {text}"

    @bentoml.api(batchable=True, max_batch_size=16)
    def double(self, x: np.ndarray) -> np.ndarray:
        self.sizes.append(len(x))
        time.sleep(0.02)
        return 2 * x

    @bentoml.api
    def batches(self) -> list[int]:
        return self.sizes

    @bentoml.api
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)
        if n > 5:
            raise ValueError("secret")

    def __is_ready__(self) -> bool:
        return True
