"""Two services, an application, and endpoints that show how calls are run."""

import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI
from pydantic import BaseModel, model_validator
from starlette.responses import FileResponse, StreamingResponse

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

    @bentoml.api
    def count(self, n: int) -> Iterator[str]:
        yield from map(str, range(n))

    @bentoml.api
    async def count_async(self, n: int) -> AsyncIterator[str]:
        for at in range(n):
            yield str(at)


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


class Point(BaseModel):
    x: int
    y: int | None = None

    @model_validator(mode="after")
    def _check(self) -> "Point":
        if self.y is not None and self.y < self.x:
            raise ValueError("y is below x")
        return self


fast = FastAPI()


@fast.get("/free")
def free(service: Annotated[Any, Depends(bentoml.get_current_service)]) -> str:
    return f"{service.greeting} {bentoml.server_context.service_name}"


CORS = {
    "enabled": True,
    "access_control_allow_origins": ["https://app.example"],
    "access_control_allow_origin_regex": r"https://.*\.lab\.example",
    "access_control_allow_methods": ["POST", "OPTIONS"],
    "access_control_allow_headers": ["*"],
    "access_control_allow_credentials": True,
    "access_control_max_age": 77,
    "access_control_expose_headers": ["X-Bentoml-Request-Id"],
}


@bentoml.service(path_prefix="/more", http={"cors": CORS}, metrics={"enabled": False})
@bentoml.asgi_app(fast, path="/fast")
class More:
    inner = bentoml.depends(Inner)
    greeting = "hello"

    def __init__(self) -> None:
        self.later: list[str] = []

    @fast.get("/{who}")
    async def greet(self, who: str, times: int = 1) -> str:
        return f"{self.greeting} {who} " * times

    @bentoml.api
    def items(self) -> list[str]:
        return [*self.inner.count(2), *self.inner.count_async(2)]

    @bentoml.api
    async def items_async(self) -> list[str]:
        inner = self.inner.to_async
        found = [each async for each in inner.count(2)]
        return found + [each async for each in inner.count_async(2)]

    @bentoml.api
    def where(self, ctx: bentoml.Context) -> list[str]:
        url = ctx.request.url
        return [url.path, url.query, ctx.request.query_params.get("a", ""), str(url)[:7]]

    @bentoml.api
    def streamed(self) -> Any:
        return StreamingResponse(iter(["a", "b"]), media_type="text/x-own", status_code=201)

    @bentoml.api
    def sent(self, ctx: bentoml.Context) -> Any:
        path = ctx.directory / "a.txt"
        path.write_text("hello")
        return FileResponse(path, filename="b.txt")

    @bentoml.api
    def leave_work(self, ctx: bentoml.Context) -> str:
        ctx.response.background.add_task(self.later.append, "done")
        return "ok"

    @bentoml.api
    def work_done(self) -> list[str]:
        return self.later

    @bentoml.api(input_spec=Point)
    def spread(self, **params: Any) -> int:
        return int(params["x"])

    @bentoml.api
    def maybe_point(self, point: Point | None = None) -> Point | None:
        return point

    @bentoml.api(batchable=True, max_batch_size=16)
    def halves(self, numbers: list[int]) -> list[Any]:
        time.sleep(0.02)
        odd = bentoml.exceptions.InvalidArgument("it is odd")
        return [odd if each % 2 else each // 2 for each in numbers]
