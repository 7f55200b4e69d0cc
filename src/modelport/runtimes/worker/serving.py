"""The worker's side: one instance of one model, in a process of its own.

The main thread reads batches and executes them, one after another; the answers to small ones go
out together. The first batch that turns out to be awaitable makes it an event loop, on which
batches run beside one another from then on. Another thread reads what cannot wait for the end of a
batch.
"""

import asyncio
import gc
import importlib
import inspect
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from modelport.errors import LoadFailed, ModelFailed, ModelportError
from modelport.runtimes.base import (
    Batch,
    LoadContext,
    ModelSource,
    Outcome,
    Runtime,
    Work,
    as_model_failure,
)
from modelport.runtimes.worker.arena import ARENA_BYTES, Memory
from modelport.runtimes.worker.calling import WorkerHost
from modelport.runtimes.worker.frames import Encoder, Frame, FrameReader, frame, json_frame
from modelport.runtimes.worker.link import Incoming, Outgoing, receive, send_all
from modelport.runtimes.worker.records import from_plain, to_plain
from modelport.runtimes.worker.work import WorkerWork, Works
from modelport.specs import ModelConfig

__all__ = ["Worker"]

_HOLD_NS = 200_000
"""How long an answer may wait for others to go along with it."""


class Worker:
    """What a server talks to.

    Args:
        work: Descriptor of the socket for batches.
        control: Descriptor of the socket for what cannot wait.
        requests: Of the memory that the server writes.
        responses: Of the memory that is written here.
    """

    def __init__(self, work: int, control: int, requests: int, responses: int) -> None:
        self._work = socket.socket(fileno=work)
        self._control = socket.socket(fileno=control)
        memory = Memory(requests, ARENA_BYTES)
        self._incoming = Incoming(memory)
        self._urgent = Incoming(memory)
        self._outgoing = Outgoing(Memory(responses, ARENA_BYTES))
        self._frames = FrameReader()
        # Guards what is written: the encoder, its descriptors, the socket.
        self._lock = threading.Lock()
        self._unwritten: list[bytes] = []
        self._held_since_ns = 0
        self._works = Works(self._send)
        self._host = WorkerHost(self._post, self._call)
        self._runtime: Runtime | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_ending = False

    def run(self) -> None:
        """Serve until the server says that it is over, or has gone."""
        threading.Thread(target=self._listen, name="control", daemon=True).start()
        while not self._is_ending:
            self._receive()
            if self._loop is not None:
                self._run_loop(self._loop)
        sys.stdout.flush()
        sys.stderr.flush()
        # Threads of the model that do not end must not keep the process.
        os._exit(0)

    def _receive(self) -> None:
        """Do what the server says, and answer."""
        data = receive(self._work, self._incoming.fds)
        if not data:
            # The server has gone, and with it everybody who would hear the model's last words.
            os._exit(1)
        for kind, body in self._frames.feed(data):
            self._handle(kind, body)
        self._flush()

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        def readable() -> None:
            self._receive()
            if self._is_ending:
                loop.stop()

        loop.add_reader(self._work.fileno(), readable)
        while not self._is_ending:
            try:
                loop.run_forever()
            except SystemExit:
                # A task of the model's own; it does not decide when this process ends.
                continue

    def _handle(self, kind: int, body: bytes) -> None:
        if kind == Frame.EXECUTE:
            self._execute(body)
        elif kind == Frame.RELEASE:
            self._outgoing.released(body)
        elif kind == Frame.LOAD:
            self._answer_load(self._load, body)
        elif kind == Frame.COMPLETE:
            self._answer_load(self._complete, body)
        elif kind == Frame.UNLOAD:
            self._is_ending = True
            if self._runtime is not None:
                self._runtime.unload()

    # Loading.

    def _answer_load(self, load: Any, body: bytes) -> None:
        try:
            answer = json_frame(Frame.LOADED, load(json.loads(body)))
        except ModelportError as exc:
            answer = json_frame(Frame.FAILED, exc.text)
        except (Exception, SystemExit) as exc:
            text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
            answer = json_frame(Frame.FAILED, text)
        self._post(answer)

    def _complete(self, asked: dict[str, Any]) -> Any:
        runtime = self._runtime_class(asked)
        source = from_plain(ModelSource, asked["source"])
        return to_plain(runtime.complete(source, from_plain(ModelConfig, asked["config"])))

    def _load(self, asked: dict[str, Any]) -> Any:
        source = from_plain(ModelSource, asked["source"])
        context = LoadContext(
            source=source,
            config=from_plain(ModelConfig, asked["config"]),
            config_json=asked["config_json"],
            instance_name=asked["instance_name"],
            host=self._host,
            kind=asked["kind"],
            device_id=asked["device_id"],
        )
        _forward_logs(self._host, source.name)
        runtime = self._runtime_class(asked)()
        runtime.load(context)
        self._runtime = runtime
        # What was made until now stays: the collector need not look at it again.
        gc.freeze()
        return None

    def _runtime_class(self, asked: dict[str, Any]) -> type[Runtime]:
        for path in asked["path"]:
            if path not in sys.path:
                sys.path.append(path)
        module_name, _, class_name = asked["target"].partition(":")
        try:
            found: Any = importlib.import_module(module_name)
            for part in class_name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as exc:
            raise LoadFailed(
                f"the runtime '{asked['target']}' cannot be imported in a worker process: {exc}"
            ) from exc
        return cast(type[Runtime], found)

    # Batches.

    def _execute(self, body: bytes) -> None:
        number, rows, requests = self._incoming.decoder.requests(body)
        works = self._works.begin(number, requests)
        batch = Batch(works, rows)
        started_ns = time.perf_counter_ns()
        outcomes: Any
        try:
            outcomes = cast(Runtime, self._runtime).execute(batch)
        except (Exception, SystemExit) as exc:
            outcomes = _all_failed(works, exc)
        if outcomes.__class__ is not list and inspect.isawaitable(outcomes):
            self._await(number, batch, started_ns, outcomes)
        else:
            self._done(number, batch, started_ns, outcomes)

    def _await(
        self,
        number: int,
        batch: Batch,
        started_ns: int,
        running: Awaitable[Sequence[Outcome] | None],
    ) -> None:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
            self._post(json_frame(Frame.CONCURRENT, None))

        async def finish() -> None:
            outcomes: Sequence[Outcome] | None
            try:
                outcomes = await running
            except (Exception, SystemExit, asyncio.CancelledError) as exc:
                outcomes = _all_failed(batch.works, exc)
            if not self._unwritten:
                cast(asyncio.AbstractEventLoop, self._loop).call_soon(self._flush)
            self._done(number, batch, started_ns, outcomes)

        task = self._loop.create_task(finish())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _done(
        self, number: int, batch: Batch, started_ns: int, outcomes: Sequence[Outcome] | None
    ) -> None:
        ended_ns = time.perf_counter_ns()
        times = (
            started_ns,
            batch.inputs_ready_ns or started_ns,
            batch.computed_ns or ended_ns,
            ended_ns,
        )
        works = cast(Sequence[WorkerWork], batch.works)
        given = _checked(outcomes, works)
        if given is None and any(work.comes_again for work in works):
            given = [None] * len(works)
        self._works.end(number, given)
        with self._lock:
            encoder = self._outgoing.encoder
            parts: list[bytes] = []
            for work, outcome in zip(works, given or (), strict=False):
                if work.comes_again:
                    encoder.again(parts)
                    continue
                mark = len(parts)
                try:
                    encoder.outcome(parts, outcome)
                except Exception as exc:
                    del parts[mark:]
                    encoder.outcome(parts, as_model_failure(exc))
            self._unwritten.append(encoder.done(number, times, len(given or ()), parts))
            if len(self._unwritten) == 1:
                self._held_since_ns = ended_ns
            elif ended_ns - self._held_since_ns > _HOLD_NS:
                self._flush_locked()
        if ended_ns - started_ns > _HOLD_NS:
            self._flush()

    # Writing, from any thread.

    def _post(self, data: bytes) -> None:
        with self._lock:
            self._unwritten.append(data)
            self._flush_locked()

    def _send(self, batch: int, index: int, outcome: Outcome, final: bool) -> None:
        with self._lock:
            encoder = self._outgoing.encoder
            self._unwritten.append(encoder.sent(batch, index, outcome, final=final))
            self._flush_locked()

    def _call(self, head: list[Any], encode: Callable[[Encoder, list[bytes]], None]) -> None:
        """Send a call of the model; ``encode`` adds a request to its parts."""
        with self._lock:
            encoder = self._outgoing.encoder
            parts = [b"", encoder.head(head)]
            encode(encoder, parts)
            self._unwritten.append(encoder.closed(Frame.CALL, parts))
            self._flush_locked()

    def _flush(self) -> None:
        with self._lock:
            self._flush_locked()

    def _flush_locked(self) -> None:
        release = self._incoming.release_frame() + self._urgent.release_frame()
        if not self._unwritten and not release:
            return
        data = b"".join([*self._unwritten, release])
        self._unwritten.clear()
        try:
            send_all(self._work, data, self._outgoing.take_fds())
        except OSError:
            os._exit(1)

    # What cannot wait.

    def _listen(self) -> None:
        reader = FrameReader()
        while data := receive(self._control, self._urgent.fds):
            for kind, body in reader.feed(data):
                match kind:
                    case Frame.CANCEL:
                        self._works.cancel(*json.loads(body))
                    case Frame.CREDIT:
                        self._works.credit(*json.loads(body))
                    case Frame.RELEASE:
                        self._outgoing.released(body)
                    case Frame.ASK_ALIVE:
                        self._post(frame(Frame.ALIVE))
                    case Frame.ASK_READY:
                        # A model may take its time to say so.
                        threading.Thread(target=self._say_ready, daemon=True).start()
                    case Frame.REPLY:
                        self._host.reply(self._urgent.decoder, body)
        os._exit(1)

    def _say_ready(self) -> None:
        runtime = self._runtime
        try:
            is_ready = runtime is not None and bool(runtime.is_ready())
        except Exception:
            is_ready = False
        self._post(json_frame(Frame.READY, is_ready))


def _all_failed(works: Sequence[Work], exc: BaseException) -> list[Outcome]:
    if isinstance(exc, Exception):
        failure = as_model_failure(exc)
    elif isinstance(exc, asyncio.CancelledError):
        failure = ModelFailed("the model's task was cancelled")
    else:
        name = type(exc).__name__
        failure = ModelFailed(f"the model's code raised {name}, which would end a process")
    return [failure] * len(works)


def _checked(outcomes: object, works: Sequence[Work]) -> list[Outcome] | None:
    """Read outcomes, and hold them against the requests that they are for."""
    if outcomes is None:
        return None
    if not isinstance(outcomes, Sequence) or isinstance(outcomes, str | bytes):
        failure = ModelFailed(f"the model answered with a {type(outcomes).__name__}")
        return [failure] * len(works)
    if len(outcomes) != len(works):
        failure = ModelFailed(
            f"the model was given {len(works)} requests and answered {len(outcomes)}"
        )
        return [failure] * len(works)
    try:
        return list(outcomes)
    except Exception as exc:
        return [as_model_failure(exc)] * len(works)


class _Forwarding(logging.Handler):
    """Sends what the model's libraries log to the server's log."""

    def __init__(self, host: WorkerHost, model: str) -> None:
        super().__init__(logging.INFO)
        self._host = host
        self._model = model

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        if record.levelno < logging.WARNING:
            level = "info" if record.levelno >= logging.INFO else "verbose"
        self._host.log(level, self.format(record), model=self._model)


def _forward_logs(host: WorkerHost, model: str) -> None:
    root = logging.getLogger()
    root.handlers = [_Forwarding(host, model)]
    root.setLevel(logging.INFO)
