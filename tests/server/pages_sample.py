"""Pages mounted on a service: FastAPI with WebSockets, and an application in the way of Gradio."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import modelport as bentoml


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"kept": "since the start"}


chat = FastAPI(lifespan=lifespan)
SEEN: dict[str, Any] = {"sent": 0, "codes": []}


@chat.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    offered = socket.scope["subprotocols"]
    await socket.accept("chat.v2" if "chat.v2" in offered else None, headers=[(b"x-mine", b"1")])
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                SEEN["codes"].append(message["code"])
                return
            if message.get("text") == "leave":
                await socket.close(4001, "as you wish")
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"].upper())
            else:
                await socket.send_bytes(message["bytes"][::-1])
    except WebSocketDisconnect as exc:
        SEEN["codes"].append(exc.code)


@chat.websocket("/closed")
async def closed(socket: WebSocket) -> None:
    await socket.close()


@chat.websocket("/denied")
async def denied(socket: WebSocket) -> None:
    await socket.send_denial_response(JSONResponse({"why": "not you"}, status_code=402))


@chat.websocket("/broken")
async def broken(socket: WebSocket) -> None:
    await socket.accept()
    raise RuntimeError("a secret")


@chat.websocket("/flood")
async def flood(socket: WebSocket) -> None:
    await socket.accept()
    SEEN["sent"] = 0
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.send_bytes(b"x" * 65536)
            SEEN["sent"] += 1
    SEEN["codes"].append("flood")


@chat.websocket("/deaf")
async def deaf(socket: WebSocket) -> None:
    await socket.accept()
    await asyncio.sleep(600)


@chat.websocket("/standing")
async def standing(socket: WebSocket) -> None:
    await socket.accept()
    time.sleep(1.5)  # noqa: ASYNC251 - as careless applications do
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await socket.send_text(str(len(message["bytes"])))


@chat.websocket("/who/{name}")
async def who(socket: WebSocket, name: str, q: str = "") -> None:
    await socket.accept()
    service = bentoml.get_current_service()
    await socket.send_json({"name": name, "q": q, "service": type(service).__name__})
    await socket.close()


@chat.get("/where")
async def where(request: Request) -> dict[str, Any]:
    asker = request.client
    return {
        "scheme": request.url.scheme,
        "client": None if asker is None else asker.host,
        "kept": request.state.kept,
    }


@chat.get("/seen")
async def seen() -> dict[str, Any]:
    return SEEN


@chat.post("/length")
async def length(request: Request) -> dict[str, int]:
    total = pieces = 0
    async for piece in request.stream():
        total += len(piece)
        pieces += 1
    return {"total": total, "pieces": pieces}


GO_ON = asyncio.Event()


@chat.get("/halves")
async def halves() -> StreamingResponse:
    async def both() -> AsyncIterator[str]:
        GO_ON.clear()
        yield "first"
        await GO_ON.wait()
        yield "second"

    return StreamingResponse(both())


@chat.post("/go_on")
async def go_on() -> None:
    GO_ON.set()


# In the way of Gradio: a page, its configuration, a queue that is joined by POST and heard by SSE.

EVENTS: dict[str, asyncio.Queue[str]] = {}


async def index(request: Request) -> HTMLResponse:
    root = request.scope["root_path"]
    page = HTMLResponse(f'<script>window.config = {{"root": "{root}"}}</script>')
    page.set_cookie("session", "abc")
    return page


async def join(request: Request) -> JSONResponse:
    body = await request.json()
    queue = EVENTS.setdefault(body["session_hash"], asyncio.Queue())
    for step in ("estimation", "process_starts", "process_completed", "close_stream"):
        queue.put_nowait(f'{{"msg": "{step}", "data": "{body["data"][0]}"}}')
    return JSONResponse({"event_id": "1"})


async def data(request: Request) -> StreamingResponse:
    queue = EVENTS[request.query_params["session_hash"]]

    async def events() -> AsyncIterator[str]:
        while True:
            event = await queue.get()
            yield f"data: {event}\n\n"
            if "close_stream" in event:
                return

    return StreamingResponse(events(), media_type="text/event-stream")


async def upload(request: Request) -> JSONResponse:
    form = await request.form()
    sizes = [len(await each.read()) for each in form.getlist("files") if hasattr(each, "read")]
    return JSONResponse(sizes)


async def cookie(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.cookies.get("session", "none"))


page = Starlette(
    routes=[
        Route("/", index),
        Route("/cookie", cookie),
        Route("/queue/join", join, methods=["POST"]),
        Route("/queue/data", data),
        Route("/upload", upload, methods=["POST"]),
        Mount("/static", StaticFiles(directory=__file__.rpartition("/")[0])),
    ]
)


@bentoml.asgi_app(page, path="/ui")
@bentoml.asgi_app(chat, path="/chat")
@bentoml.service
class Pages:
    @bentoml.api
    def shout(self, text: str) -> str:
        return text.upper()
