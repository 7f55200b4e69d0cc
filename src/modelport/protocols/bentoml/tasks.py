"""Tasks over HTTP: BentoML's five routes, with its exact JSON, and a list.

A task is the request that was submitted, kept until its time comes and then given to the handler
of its endpoint as if it had just come; the answer is kept likewise, and given back as it was.
"""

import asyncio
import dataclasses
import datetime
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from modelport.engine.tasks import TaskEndpoint, Tasks
from modelport.errors import Forbidden, InvalidRequest, ModelportError, NotFound
from modelport.exceptions import BentoMLException
from modelport.protocols.base import (
    Access,
    Body,
    Buffer,
    Exchange,
    Handler,
    Headers,
    Reply,
    Route,
)
from modelport.protocols.bentoml.call import EndpointHandler, FileSender
from modelport.protocols.bentoml.kept import KeptBody, KeptExchange
from modelport.protocols.bentoml.ports import EnginePort, ServedEndpoint
from modelport.protocols.bentoml.replies import JSON_HEADERS, MASKED, encode_error
from modelport.stores.base import Claim, Content, Retry, Task, TaskState
from modelport.wire import bentoml
from modelport.wire import json as wire_json
from modelport.wire.bentoml import BodyKind

__all__ = ["TaskRoutes", "described"]

LONGEST_S = 30 * 86_400.0
"""A task that has run for so long is stopped."""
LONGEST_WAIT_S = 30 * 86_400
"""Seconds after which a task that was not started may expire."""
CANCEL_WAIT_S = 1.0
"""How long the answer to a cancellation waits for the task to have stopped."""
MOST_LISTED = 100
LONGEST_KEY = 256

log = logging.getLogger("modelport.tasks")

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


def _refuse_webhook(url: str) -> None:
    raise Forbidden(
        "this server calls no webhooks; the operator can allow it with --task-webhook-allow HOST"
    )


class TaskRoutes:
    """The routes of tasks; see :class:`modelport.protocols.bentoml.ports.TaskQueue`.

    Args:
        engine: Runs the calls.
        tasks: Keeps them and says when one's time has come.
        concurrency: Tasks of one endpoint that run at a time.
        now_ns: The engine's clock.
        max_upload_bytes: Most bytes of a body with files; ``None`` for the server's limit.
        max_json_bytes: Most bytes of JSON; ``None`` likewise.
        check_webhook: Raises what speaks against a URL that is to be told; ``None`` if none may be.
    """

    def __init__(
        self,
        engine: EnginePort,
        tasks: Tasks,
        *,
        concurrency: int,
        now_ns: Callable[[], int],
        max_upload_bytes: int | None = None,
        max_json_bytes: int | None = None,
        check_webhook: Callable[[str], None] | None = None,
    ) -> None:
        self._engine = engine
        self._tasks = tasks
        self._concurrency = concurrency
        self._now_ns = now_ns
        self._max_upload_bytes = max_upload_bytes
        self._max_json_bytes = max_json_bytes
        self._check_webhook = check_webhook or _refuse_webhook
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
        rows: list[tuple[str, str, Callable[[Exchange], Awaitable[Reply | None]]]] = [
            ("GET", "status", lambda exchange: self._status(name, exchange)),
            ("GET", "get", lambda exchange: self._get(name, exchange)),
            ("GET", "list", lambda exchange: self._list(name, exchange)),
            # BentoML's documentation and its server disagree about these two verbs.
            *((verb, "cancel", self._canceller(name)) for verb in ("PUT", "POST")),
            *((verb, "retry", self._retrier(name)) for verb in ("POST", "PUT")),
        ]
        has_files = bool(endpoint.method.file_fields)
        path = endpoint.route.rstrip("/")
        submit = Route(
            method="POST",
            pattern=f"{path}/submit",
            access=Access.INFERENCE,
            handler=self._submitter(name, is_streamed=has_files),
            errors=encode_error,
            body=Body.STREAM if has_files else Body.WHOLE,
            max_body_bytes=self._max_upload_bytes if has_files else None,
        )
        others = [
            Route(
                method=method,
                pattern=f"{path}/{verb}",
                access=Access.INFERENCE,
                handler=self._answering(answer),
                errors=encode_error,
            )
            for method, verb, answer in rows
        ]
        return [submit, *others]

    def _submitter(self, name: str, *, is_streamed: bool) -> Handler:
        def submit(exchange: Exchange) -> None:
            try:
                headers = _kept_headers(exchange)
                if not is_streamed:
                    wire_json.check_size(len(exchange.body), self._max_json_bytes)
                options = self._options(exchange)
            except ModelportError as exc:
                _refuse(exchange, exc)
                return

            async def accept(exchange: Exchange, body: bytes, file: Path | None) -> Reply:
                task = await self._tasks.submit(
                    name, exchange.principal, Content(headers, body, file=file), **options
                )
                return _object({"task_id": task.id, "status": _STATUS[task.state]})

            def complete(body: bytes, file: Path | None) -> None:
                self._ask(exchange, lambda exchange: accept(exchange, body, file))

            if not is_streamed:
                complete(bytes(exchange.body), None)
                return
            keeper = _BodyKeeper(self._tasks.new_file, complete, lambda exc: _refuse(exchange, exc))
            exchange.on_disconnect = keeper.drop
            exchange.receive(keeper)

        return submit

    def _options(self, exchange: Exchange) -> dict[str, Any]:
        key = exchange.headers.get("idempotency-key", "")
        if len(key) > LONGEST_KEY:
            raise InvalidRequest(f"an Idempotency-Key has at most {LONGEST_KEY} characters")
        webhook = parse_qs(exchange.query).get("webhook", [""])[0]
        if webhook:
            self._check_webhook(webhook)
        return {
            "priority": _number(exchange, "priority", 0, -1000, 1000),
            "expires_s": _number(exchange, "expires_in", 0, 0, LONGEST_WAIT_S),
            "idempotency_key": key,
            "webhook": webhook,
        }

    def _answering(self, answer: Callable[[Exchange], Awaitable[Reply | None]]) -> Handler:
        return lambda exchange: self._ask(exchange, answer)

    def _ask(
        self, exchange: Exchange, answer: Callable[[Exchange], Awaitable[Reply | None]]
    ) -> None:
        async def ask() -> None:
            try:
                reply = await answer(exchange)
            except ModelportError as exc:
                reply = encode_error(exc)
            except Exception:
                log.exception("%s %s failed", exchange.method, exchange.path)
                reply = encode_error(ModelportError(MASKED))
            if reply is not None:
                exchange.respond(reply.status, reply.headers, reply.body)

        asking = asyncio.get_running_loop().create_task(ask())
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    # What owners ask for.

    async def _status(self, name: str, exchange: Exchange) -> Reply:
        return _object(described(await self._find(name, exchange)))

    async def _get(self, name: str, exchange: Exchange) -> Reply | None:
        await self._find(name, exchange)
        task, result = await self._tasks.result(exchange.principal, _task_id(exchange))
        if not task.state.is_over:
            raise InvalidRequest(f"task {task.id} is not completed yet")
        if result is None:
            status = 400 if task.state is TaskState.CANCELED else 500
            text = f"task {task.id} was not completed: {task.reason or task.state}"
            return Reply(status, JSON_HEADERS, [bentoml.encode_error(text, ())])
        if result.file is None:
            return Reply(result.status, result.headers, [result.body])
        try:
            file = result.file.open("rb")
        except FileNotFoundError:
            # It was forgotten just now.
            raise NotFound("task_id not found") from None
        FileSender(exchange, file).begin(result.status, result.headers)
        return None

    async def _list(self, name: str, exchange: Exchange) -> Reply:
        query = parse_qs(exchange.query)
        found = await self._tasks.list(
            exchange.principal,
            endpoint=name,
            states=_states(query.get("status", [])),
            limit=_number(exchange, "limit", MOST_LISTED, 1, 1000),
            before=query.get("before", [None])[0],
        )
        return _object([described(task) for task in found])

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
        body = claim.request.body
        file = claim.request.file
        is_streamed = bool(work.endpoint.method.file_fields)
        if file is not None and not is_streamed:
            body = await asyncio.to_thread(file.read_bytes)
        exchange = KeptExchange(
            work.endpoint.route,
            claim,
            body,
            received_ns=self._now_ns(),
            file=file if is_streamed else None,
            new_file=self._tasks.new_file,
        )
        work(exchange)
        try:
            return await exchange.answer
        except BaseException:
            exchange.leave()
            raise


class _BodyKeeper:
    """Takes the body of a request: in memory at first, in a file when it grows."""

    def __init__(
        self,
        new_file: Callable[[], Path],
        complete: Callable[[bytes, Path | None], None],
        refuse: Callable[[ModelportError], None],
    ) -> None:
        self._keep = KeptBody(new_file)
        self._complete = complete
        self._refuse = refuse

    def data(self, piece: Buffer) -> None:
        """Take a piece.

        Raises:
            Unavailable: There is no room for it.
        """
        self._keep.write(piece)

    def complete(self) -> None:
        """It has come whole."""
        try:
            body, file = self._keep.finish()
        except ModelportError as exc:
            self._refuse(exc)
        else:
            self._complete(body, file)

    def drop(self) -> None:
        """The client has gone before it was whole."""
        self._keep.drop()


def _refuse(exchange: Exchange, error: ModelportError) -> None:
    reply = encode_error(error)
    exchange.respond(reply.status, reply.headers, reply.body)


def _kept_headers(exchange: Exchange) -> Headers:
    headers = exchange.headers
    if bentoml.body_kind(headers.get("content-type", "")) is BodyKind.PICKLE:
        raise BentoMLException(f"{bentoml.PICKLE} is not allowed in main server", error_code=415)
    return tuple((key, value) for key, value in headers.items() if key not in _NOT_KEPT)


def _object(value: Any) -> Reply:
    return Reply(200, JSON_HEADERS, [json.dumps(value).encode()])


def described(task: Task) -> dict[str, Any]:
    """Say of a task what BentoML says, and what we know beyond."""
    said: dict[str, Any] = {
        "task_id": task.id,
        "status": _STATUS[task.state],
        "created_at": _time(task.created_s),
        "executed_at": _time(task.finished_s) if task.finished_s else None,
    }
    # Beyond what BentoML says, and only where there is something to say.
    is_done = task.state is TaskState.COMPLETED
    if not is_done and (task.progress is not None or task.progress_text):
        said["progress"] = task.progress
        said["progress_text"] = task.progress_text
    if task.reason:
        said["reason"] = task.reason
    return said


def _time(seconds: float) -> str:
    """Write a time as BentoML does: UTC, to the second, without saying so."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.replace(tzinfo=None).isoformat(timespec="seconds")


def _states(names: Sequence[str]) -> Sequence[TaskState]:
    """The states that callers know by these names; none for all."""
    states: list[TaskState] = []
    for name in names:
        found = [state for state in TaskState if name in (_STATUS[state], state)]
        if not found:
            offered = ", ".join(dict.fromkeys(_STATUS.values()))
            raise InvalidRequest(f"'status' is one of {offered}, not {name[:40]!r}")
        states += found
    return states


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
