"""A service in two worker processes."""

import asyncio
import ctypes
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, StreamingResponse

import modelport as bentoml
from modelport.services.context import get_current_service, server_context
from modelport.validators import DType, Shape


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    said = f"{get_current_service().pid} {server_context.worker_index}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": said.encode()})


@bentoml.service
class Inner:
    @bentoml.api
    def pid(self) -> int:
        return os.getpid()


@bentoml.asgi_app(application, path="/web")
@bentoml.service(
    workers=2,
    traffic={"timeout": 20, "external_queue": True, "concurrency": 4},
    envs=[{"name": "SAMPLE", "value": "set"}],
    resources={"cpu": "2", "memory": "1Gi"},
    labels={"team": "many", "cost-centre": "7"},
    logging={"access": {"skip_paths": ["/readyz"]}},
)
class Many:
    inner = bentoml.depends(Inner)

    @bentoml.on_deployment
    @staticmethod
    def deploy() -> None:
        print(f"deployed {os.getpid()}\n", end="", flush=True)

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.sizes: list[int] = []
        self.notes: list[str] = []
        self.is_fine = True

    @bentoml.on_startup
    async def begin(self) -> None:
        self.lock = asyncio.Lock()
        print(f"began {server_context.worker_index}\n", end="", flush=True)

    @bentoml.on_shutdown
    def finish(self) -> None:
        print(f"ended {server_context.worker_index}\n", end="", flush=True)

    def __is_ready__(self) -> bool:
        return self.is_fine

    @bentoml.api
    def who(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "index": server_context.worker_index,
            "inner": self.inner.pid(),
            "env": os.environ["SAMPLE"],
        }

    @bentoml.api
    def burn(self, seconds: float) -> int:
        """Keep a processor and its interpreter busy."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return os.getpid()

    @bentoml.api
    def hold(self, seconds: float) -> int:
        """Keep the interpreter lock, and let no other thread of the process run."""
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        return os.getpid()

    @bentoml.api
    async def hello(self, name: str = "you") -> str:
        async with self.lock:
            return f"hello {name}"

    @bentoml.api
    def gone(self) -> str:
        raise bentoml.exceptions.NotFound("it is gone")

    @bentoml.api
    def fail(self) -> str:
        raise RuntimeError("a secret")

    @bentoml.api
    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @bentoml.api
    def set_ready(self, is_ready: bool) -> None:
        self.is_fine = is_ready

    @bentoml.api
    def count(self, n: int, pause: float = 0.0) -> Iterator[str]:
        for at in range(n):
            yield f"{at},"
            time.sleep(pause)

    @bentoml.api
    async def forever(self) -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1000
                await asyncio.sleep(0.001)
        finally:
            print("forever was left\n", end="", flush=True)

    @bentoml.api
    def breaks(self, n: int) -> Iterator[dict[str, int]]:
        for at in range(n):
            yield {"at": at}
        raise ValueError("in the middle")

    @bentoml.api
    def measure(self, file: Path, others: list[Path], note: str = "") -> dict[str, Any]:
        sizes = [each.stat().st_size for each in (file, *others)]
        return {"sizes": sizes, "suffix": file.suffix, "note": note, "path": str(file)}

    @bentoml.api
    def shrink(self, image: Image.Image) -> Image.Image:
        return image.resize((2, 2))

    @bentoml.api
    def write(self, size: int, context: bentoml.Context) -> Path:
        path = Path(context.temp_dir) / "written.bin"
        path.write_bytes(b"w" * size)
        context.response.status_code = 201
        context.response.headers["x-query"] = context.request.query_params.get("q", "")
        context.response.set_cookie("a", "b")
        return path

    @bentoml.api
    def both(self, context: bentoml.Context) -> dict[str, Path | int]:
        path = context.directory / "both.txt"
        path.write_text("text")
        return {"file": path, "n": 1}

    @bentoml.api
    def starlette(self) -> Any:
        task = BackgroundTask(self.notes.append, "later")
        return JSONResponse({"a": 1}, status_code=202, background=task)

    @bentoml.api
    def streaming(self) -> Any:
        return StreamingResponse(iter(["a"]))

    @bentoml.api(batchable=True, max_batch_size=16)
    def double(self, x: Annotated[np.ndarray, DType("float32"), Shape((-1, 2))]) -> np.ndarray:
        self.sizes.append(len(x))
        time.sleep(0.02)
        if (x < 0).any():
            raise bentoml.exceptions.InvalidArgument("no negative numbers")
        return x * 2

    @bentoml.api
    def sizes_seen(self) -> list[int]:
        return self.sizes

    @bentoml.task
    def steps(self, n: int) -> str:
        for at in range(n):
            bentoml.report_progress(at / n, f"step {at}")
            time.sleep(0.05)
        return f"{n} steps"

    @bentoml.task
    def stubborn(self, seconds: float) -> str:
        print("stubborn began\n", end="", flush=True)
        threading.Event().wait(seconds)
        return "done"

    @bentoml.task(retry="on_interrupt")
    def again(self, mark: str) -> str:
        """Kill the process the first time."""
        if not os.path.exists(mark):
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "at last"

    @bentoml.task
    def once(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"
