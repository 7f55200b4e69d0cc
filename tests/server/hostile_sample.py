"""Endpoints whose code does what no code should."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from starlette.responses import Response

import modelport as bentoml


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    match scope["path"]:
        case "/app/quits":
            raise KeyboardInterrupt
        case "/app/status":
            await send({"type": "http.response.start", "status": 99, "headers": []})
        case "/app/header":
            headers = [(b"x-a", b"a\r\nb: c")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b"b"})


@bentoml.asgi_app(application, path="/app")
@bentoml.service
class Hostile:
    def __init__(self) -> None:
        self.mood = ""

    def __is_ready__(self) -> bool:
        if self.mood == "quit":
            raise SystemExit
        return True

    async def __is_alive__(self) -> bool:
        if self.mood == "quit":
            raise KeyboardInterrupt
        return True

    @bentoml.api
    def set_mood(self, mood: str) -> None:
        self.mood = mood

    @bentoml.api
    def ok(self) -> str:
        return "fine"

    @bentoml.api
    async def ok_async(self) -> str:
        return "fine"

    @bentoml.api
    async def quits(self) -> str:
        raise KeyboardInterrupt

    @bentoml.api
    async def leaves(self) -> str:
        raise GeneratorExit

    @bentoml.api
    def quits_in_stream(self) -> Iterator[str]:
        yield "a"
        raise KeyboardInterrupt

    @bentoml.api
    async def quits_in_async_stream(self) -> AsyncIterator[str]:
        yield "a"
        raise KeyboardInterrupt

    @bentoml.api(batchable=True, max_latency_ms=200)
    def rows(self, words: list[str]) -> list[str]:
        if "quit" in words:
            raise KeyboardInterrupt
        return words

    @bentoml.api
    def status(self, code: Any, ctx: bentoml.Context) -> str:
        ctx.response.status_code = code
        return "body"

    @bentoml.api
    def status_of_stream(self, code: Any, ctx: bentoml.Context) -> Iterator[str]:
        ctx.response.status_code = code
        yield "body"

    @bentoml.api
    def header(self, name: str, value: str, ctx: bentoml.Context) -> str:
        ctx.response.headers[name] = value
        return "body"

    @bentoml.api
    def header_of_stream(self, name: str, value: str, ctx: bentoml.Context) -> Iterator[str]:
        ctx.response.headers[name] = value
        yield "body"

    @bentoml.api
    def cookie_of_file(self, ctx: bentoml.Context) -> Path:
        ctx.response.cookies.append("a\r\nb")
        file = Path(ctx.temp_dir) / "large"
        file.write_bytes(bytes(1_000_000))
        return file

    @bentoml.api
    def error(self, code: int) -> str:
        raise bentoml.exceptions.BentoMLException("a text", error_code=code)

    @bentoml.api
    def whole(self, code: int) -> Response:
        return Response("body", status_code=code)
