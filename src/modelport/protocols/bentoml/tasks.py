"""Tasks over HTTP: BentoML's five routes, with its exact JSON, and a list.

A task is the request that was submitted, kept until its time comes and then given to the handler
of its endpoint as if it had just come; the answer is kept likewise, and given back as it was.
"""

import asyncio
import dataclasses
import datetime
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from modelport.engine.tasks import TaskEndpoint, Tasks
from modelport.errors import InvalidRequest, ModelportError, NotFound
from modelport.exceptions import BentoMLException
from modelport.progress import current_report
from modelport.protocols.base import (
    Access,
    BodyReceiver,
    Buffer,
    Exchange,
    Handler,
    Headers,
    Reply,
    Route,
)
from modelport.protocols.bentoml.call import EndpointHandler
from modelport.protocols.bentoml.ports import EnginePort, ServedEndpoint
from modelport.protocols.bentoml.replies import JSON_HEADERS, encode_error
from modelport.stores.base import Claim, Content, Retry, Task, TaskState
from modelport.wire import bentoml
from modelport.wire.bentoml import BodyKind

__all__ = ["TaskRoutes"]

LONGEST_S = 30 * 86_400.0
"""A task that has run for so long is stopped."""
CANCEL_WAIT_S = 1.0
"""How long the answer to a cancellation waits for the task to have stopped."""
MOST_LISTED = 100
LONGEST_KEY = 256

_NOT_KEPT = frozenset(
    {
        # What says who asks is not written to disk.
        "authorization",
        "cookie",
        "proxy-authorization",
        "connection",
        "content-length",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "transfer-encoding",
        "upgrade",
    }
)
_STATUS = {
    TaskState.QUEUED: "in_progress",
    TaskState.RUNNING: "in_progress",
    TaskState.COMPLETED: "completed",
    TaskState.FAILED: "failed",
    TaskState.CANCELED: "canceled",
}


class TaskRoutes:
    """The routes of tasks; see :class:`modelport.protocols.bentoml.ports.TaskQueue`.

    Args:
        engine: Runs the calls.
        tasks: Keeps them and says when one's time has come.
        concurrency: Tasks of one endpoint that run at a time.
        now_ns: The engine's clock.
    """

    def __init__(
        self, engine: EnginePort, tasks: Tasks, *, concurrency: int, now_ns: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._tasks = tasks
        self._concurrency = concurrency
        self._now_ns = now_ns
        self._asking: set[asyncio.Task[None]] = set()

    def routes(self, endpoint: ServedEndpoint, handler: Handler) -> Sequence[Route]:
        """Offer one endpoint as a task, and give its routes."""
        # Who submits does not wait, so the timeout of a call is none of a task's.
        patient = dataclasses.replace(endpoint, timeout_s=LONGEST_S)
        work = EndpointHandler(self._engine, patient)
        retry = endpoint.retry or (Retry.ON_INTERRUPT if endpoint.is_idempotent else Retry.NEVER)
        # Servers of other services may keep theirs in the same place.
        name = f"{endpoint.service}.{endpoint.name}"
        self._tasks.register(
            TaskEndpoint(
                name=name,
                run=lambda claim: self._run(work, claim),
                concurrency=self._concurrency,
                retry=Retry(retry),
            )
        )
        rows: list[tuple[str, str, Callable[[Exchange], Awaitable[Reply]]]] = [
            ("POST", "submit", lambda exchange: self._submit(name, exchange)),
            ("GET", "status", lambda exchange: self._status(name, exchange)),
            ("GET", "get", lambda exchange: self._get(name, exchange)),
            ("GET", "list", lambda exchange: self._list(name, exchange)),
            # BentoML's documentation and its server disagree about these two verbs.
            *((verb, "cancel", self._canceller(name)) for verb in ("PUT", "POST")),
            *((verb, "retry", self._retrier(name)) for verb in ("POST", "PUT")),
        ]
        return [
            Route(
                method=method,
                pattern=f"{endpoint.route.rstrip('/')}/{verb}",
                access=Access.INFERENCE,
                handler=self._answering(answer),
                errors=encode_error,
            )
            for method, verb, answer in rows
        ]

    def _answering(self, answer: Callable[[Exchange], Awaitable[Reply]]) -> Handler:
        async def ask(exchange: Exchange) -> None:
            try:
                reply = await answer(exchange)
            except ModelportError as exc:
                reply = encode_error(exc)
            exchange.respond(reply.status, reply.headers, reply.body)

        def handle(exchange: Exchange) -> None:
            asking = asyncio.get_running_loop().create_task(ask(exchange))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)

        return handle

    # What owners ask for.

    async def _submit(self, name: str, exchange: Exchange) -> Reply:
        headers = exchange.headers
        if bentoml.body_kind(headers.get("content-type", "")) is BodyKind.PICKLE:
            raise BentoMLException(
                f"{bentoml.PICKLE} is not allowed in main server", error_code=415
            )
        key = headers.get("idempotency-key", "")
        if len(key) > LONGEST_KEY:
            raise InvalidRequest(f"an Idempotency-Key has at most {LONGEST_KEY} characters")
        kept = tuple((key, value) for key, value in headers.items() if key not in _NOT_KEPT)
        task = await self._tasks.submit(
            name,
            exchange.principal,
            Content(kept, bytes(exchange.body)),
            priority=_number(exchange, "priority", 0, -1000, 1000),
            idempotency_key=key,
        )
        return _object({"task_id": task.id, "status": _STATUS[task.state]})

    async def _status(self, name: str, exchange: Exchange) -> Reply:
        return _object(_described(await self._find(name, exchange)))

    async def _get(self, name: str, exchange: Exchange) -> Reply:
        await self._find(name, exchange)
        task, result = await self._tasks.result(exchange.principal, _task_id(exchange))
        if not task.state.is_over:
            raise InvalidRequest(f"task {task.id} is not completed yet")
        if result is None:
            status = 400 if task.state is TaskState.CANCELED else 500
            text = f"task {task.id} was not completed: {task.reason or task.state}"
            return Reply(status, JSON_HEADERS, [bentoml.encode_error(text, ())])
        return Reply(result.status, result.headers, [result.body])

    async def _list(self, name: str, exchange: Exchange) -> Reply:
        query = parse_qs(exchange.query)
        found = await self._tasks.list(
            exchange.principal,
            endpoint=name,
            limit=_number(exchange, "limit", MOST_LISTED, 1, 1000),
            before=query.get("before", [None])[0],
        )
        return _object([_described(task) for task in found])

    def _canceller(self, name: str) -> Callable[[Exchange], Awaitable[Reply]]:
        async def cancel(exchange: Exchange) -> Reply:
            task = await self._find(name, exchange)
            task = await self._tasks.cancel(exchange.principal, task.id)
            loop = asyncio.get_running_loop()
            until_s = loop.time() + CANCEL_WAIT_S
            while not task.state.is_over and loop.time() < until_s:
                await asyncio.sleep(0.02)
                task = await self._tasks.get(exchange.principal, task.id)
            return _object({"task_id": task.id, "status": _STATUS[task.state]})

        return cancel

    def _retrier(self, name: str) -> Callable[[Exchange], Awaitable[Reply]]:
        async def retry(exchange: Exchange) -> Reply:
            task = await self._find(name, exchange)
            again = await self._tasks.retry(exchange.principal, task.id)
            return _object({"task_id": again.id, "status": _STATUS[again.state]})

        return retry

    async def _find(self, name: str, exchange: Exchange) -> Task:
        task = await self._tasks.get(exchange.principal, _task_id(exchange))
        if task.endpoint != name:
            raise NotFound("task_id not found")
        return task

    # The work.

    async def _run(self, work: EndpointHandler, claim: Claim) -> Content:
        exchange = _KeptExchange(work.endpoint.route, claim, self._now_ns())
        work(exchange)
        try:
            return await exchange.answer
        except asyncio.CancelledError:
            exchange.leave()
            raise


class _KeptExchange:
    """A request that was kept, and the answer that is to be kept; an ``Exchange``."""

    on_disconnect: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None
    memo: Any = None
    method = "POST"
    query = ""

    def __init__(self, path: str, claim: Claim, received_ns: int) -> None:
        self.path = path
        self.body: Buffer = claim.request.body
        self.received_ns = received_ns
        self.headers: Mapping[str, str] = dict(claim.request.headers)
        self.params: Mapping[str, str] = {}
        self.principal = claim.task.owner
        self.report = current_report()
        self.answer: asyncio.Future[Content] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._headers: Headers = ()
        self._parts: list[bytes] = []

    def receive(self, receiver: BodyReceiver) -> None:
        """Give the body, which is whole."""
        if self.body:
            receiver.data(self.body)
        receiver.complete()

    def respond(
        self, status: int, headers: Headers, body: Sequence[Buffer], *, close: bool = False
    ) -> None:
        """Keep a whole answer."""
        self._keep(Content(tuple(headers), b"".join(map(bytes, body)), status))

    def start(self, status: int, headers: Headers) -> None:
        """Begin to keep an answer."""
        self._status, self._headers = status, headers

    def write(self, data: Buffer) -> bool:
        """Keep a piece of it."""
        self._parts.append(bytes(data))
        return True

    def finish(self) -> None:
        """Keep what was written."""
        self._keep(Content(tuple(self._headers), b"".join(self._parts), self._status))

    def abort(self) -> None:
        """The answer is not whole, so there is none."""
        if not self.answer.done():
            self.answer.set_exception(ModelportError("the result broke off in the middle"))

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        if self.on_disconnect is not None:
            self.on_disconnect()

    def _keep(self, content: Content) -> None:
        if not self.answer.done():
            self.answer.set_result(content)


def _object(value: Any) -> Reply:
    return Reply(200, JSON_HEADERS, [json.dumps(value).encode()])


def _described(task: Task) -> dict[str, Any]:
    described: dict[str, Any] = {
        "task_id": task.id,
        "status": _STATUS[task.state],
        "created_at": _time(task.created_s),
        "executed_at": _time(task.finished_s) if task.finished_s else None,
    }
    # Beyond what BentoML says, and only where there is something to say.
    if task.progress is not None or task.progress_text:
        described["progress"] = task.progress
        described["progress_text"] = task.progress_text
    if task.reason:
        described["reason"] = task.reason
    return described


def _time(seconds: float) -> str:
    """Write a time as BentoML does: UTC, to the second, without saying so."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.replace(tzinfo=None).isoformat(timespec="seconds")


def _task_id(exchange: Exchange) -> str:
    task_id = parse_qs(exchange.query).get("task_id", [""])[0]
    if not task_id:
        raise InvalidRequest("task_id is required")
    return task_id


def _number(exchange: Exchange, name: str, default: int, least: int, most: int) -> int:
    text = parse_qs(exchange.query).get(name, [""])[0]
    if not text:
        return default
    try:
        number = int(text)
    except ValueError:
        number = most + 1
    if not least <= number <= most:
        raise InvalidRequest(
            f"'{name}' is a whole number from {least} to {most}, not {text[:40]!r}"
        )
    return number
