"""The server's side: a runtime that stands in for one in a worker process.

Bringing a worker up and waiting for its end is one thread's life (:meth:`_Keeper`); everything else
happens on the event loop. A worker that ends by itself is started again: at once the first time,
then after a growing pause, until one has lived for a while.
"""

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from modelport.errors import Cancelled, LoadFailed, ModelFailed, Unavailable, WorkerDied
from modelport.runtimes.base import (
    Batch,
    LoadContext,
    ModelSource,
    Outcome,
    RemoteDone,
    RemoteRuntime,
    Runtime,
    Work,
    gpus_of,
)
from modelport.runtimes.worker.answering import Answering
from modelport.runtimes.worker.arena import check_platform
from modelport.runtimes.worker.frames import Frame, frame, json_frame
from modelport.runtimes.worker.process import WorkerProcess, exit_reason
from modelport.runtimes.worker.records import from_plain, to_plain
from modelport.runtimes.worker.watch import Watch
from modelport.runtimes.worker.work import WINDOW_BYTES, WINDOW_ITEMS
from modelport.specs import ENVIRONMENT, ModelConfig

__all__ = ["WorkerRuntime", "worker_runtime"]

AHEAD_NS = 500_000
"""Work that may lie with a worker beside what it executes: so it never waits for the next batch,
and a batch that waits there and not in the queue is not held up for longer than this."""
MOST_AHEAD = 32
CONCURRENT = 1024
"""Batches under way in a worker whose model awaits."""
SILENCE_S = 5.0
"""How long a worker may take to say whether it is ready, before it is taken for not ready."""
HUNG_S = 60.0
"""How long it may take, beyond the time after which it should have been ended, before the server is
not called live any more."""
STEADY_S = 60.0
"""How long a worker must have lived for its end to be no part of a series."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
UNLOAD_S = 30.0
"""How long a model may take to unload before its process is killed."""


def worker_runtime(runtime: type[Runtime]) -> type["WorkerRuntime"]:
    """Make the class that stands in for a runtime; each of its objects has a process."""
    name = f"Worker{runtime.__name__}"
    members = {
        "__doc__": f"Stands in for a {runtime.__name__} in a worker process.",
        "default_filename": runtime.default_filename,
        "gpus": staticmethod(partial(gpus_of, runtime)),
        "target": f"{runtime.__module__}:{runtime.__qualname__}",
    }
    return type(name, (WorkerRuntime,), members)


class WorkerRuntime(RemoteRuntime):
    """One instance in a process of its own.

    Attributes:
        capacity: Batches that it takes now beside one another.
        failure: Why it has been down for longer than a restart takes; "" if it is not.
        restarts: How often its process had to be started again.
        pid: Of the process; ``None`` while there is none.
    """

    default_filename: ClassVar[str] = ""
    target: ClassVar[str] = ""

    _context: LoadContext
    _keeper: threading.Thread

    def __init__(self) -> None:
        self.capacity = 0
        self.failure = ""
        self.restarts = 0
        self._process: WorkerProcess | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: Callable[[], object] = _nothing
        self._lock = threading.Lock()
        self._unheard: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self._is_closing = threading.Event()
        self._why_ended = ""
        self._next = 0
        self._running: dict[int, tuple[Batch, RemoteDone]] = {}
        self._streams: dict[tuple[int, int], _Stream] = {}
        self._answering: dict[WorkerProcess, Answering] = {}
        self._most = MOST_AHEAD
        self._mean_ns = float(AHEAD_NS)
        self._asked_s = 0.0
        self._said_ready = True
        self._watch: Watch | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid={self.pid} running={len(self._running)}>"

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return None if self._process is None else self._process.pid

    # Bringing it up.

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Have a process that ends again ask the model file."""
        check_platform(source.name)
        process = WorkerProcess(source.name, _interpreter_of(source, config))
        try:
            asked = cls._asked(source, config)
            answer = process.ask(json_frame(Frame.COMPLETE, asked), _ignore)
            completed: ModelConfig = from_plain(ModelConfig, _answered(*answer))
        finally:
            process.kill()
            process.wait()
            process.close()
        return completed

    def load(self, context: LoadContext) -> None:
        """Start a process and have it load the model."""
        check_platform(context.source.name)
        self._context = context
        outcome: list[Exception | None] = []
        is_told = threading.Event()

        def tell(failure: Exception | None) -> None:
            outcome.append(failure)
            is_told.set()

        name = f"worker {context.instance_name}"
        self._keeper = threading.Thread(target=self._keep, args=(tell,), name=name, daemon=True)
        self._keeper.start()
        is_told.wait()
        if outcome[0] is not None:
            raise outcome[0]

    def _keep(self, tell: Callable[[Exception | None], None]) -> None:
        """Start a process, wait for its end, start the next: the life of a thread."""
        try:
            process = self._bring_up()
        except Exception as exc:
            tell(exc)
            return
        self._post(self._up, process)
        tell(None)
        in_a_row = 0
        while True:
            began_s = time.monotonic()
            reason = exit_reason(process.wait())
            in_a_row = 1 if time.monotonic() - began_s > STEADY_S else in_a_row + 1
            if self._why_ended:
                # It did not end by itself, so it is no sign of what the next one will do.
                reason, self._why_ended, in_a_row = self._why_ended, "", 0
            if self._is_closing.is_set():
                self._post(self._down, process, "was ended", 0.0)
                return
            pause_s = _pause_s(in_a_row)
            self._post(self._down, process, reason, pause_s)
            while True:
                if self._is_closing.wait(pause_s):
                    return
                try:
                    process = self._bring_up()
                except Exception as exc:
                    in_a_row += 1
                    pause_s = _pause_s(in_a_row)
                    self._post(self._failed_again, str(exc), pause_s)
                else:
                    break
            self.restarts += 1
            self._post(self._up, process)
            if self._is_closing.is_set():
                process.kill()

    def _bring_up(self) -> WorkerProcess:
        context = self._context
        python = _interpreter_of(context.source, context.config)
        process = WorkerProcess(context.instance_name, python)
        self._answering[process] = Answering(context.host, process)
        try:
            asked = self._asked(context.source, context.config) | {
                "config_json": context.config_json,
                "instance_name": context.instance_name,
                "kind": context.kind,
                "device_id": context.device_id,
            }

            def received(kind: int, body: bytes) -> None:
                self._heard(process, kind, body)

            _answered(*process.ask(json_frame(Frame.LOAD, asked), received))
        except BaseException:
            self._answering.pop(process).close()
            process.kill()
            process.wait()
            process.close()
            raise
        return process

    @classmethod
    def _asked(cls, source: ModelSource, config: ModelConfig) -> dict[str, object]:
        return {
            "target": cls.target,
            "path": [path for path in sys.path if path],
            "source": to_plain(source),
            "config": to_plain(config),
        }

    # From the keeper to the loop.

    def attach(self, changed: Callable[[], object]) -> None:
        """From now on this instance lives on the running loop."""
        loop = asyncio.get_running_loop()
        self._changed = _nothing
        if self._process is not None:
            self._process.attach(loop, self._process.received)
            if self._watch is not None:
                self._watch.start()
        while True:
            with self._lock:
                unheard, self._unheard = self._unheard, []
                if not unheard:
                    self._loop = loop
                    break
            for call, arguments in unheard:
                call(*arguments)
        self._changed = changed

    def _post(self, call: Callable[..., object], *arguments: object) -> None:
        with self._lock:
            if self._loop is None:
                self._unheard.append((call, arguments))
                return
        with contextlib.suppress(RuntimeError):
            # The loop may have been closed: nobody is there to hear.
            self._loop.call_soon_threadsafe(call, *arguments)

    def _up(self, process: WorkerProcess) -> None:
        def received(kind: int, body: bytes) -> None:
            if kind == Frame.DONE:
                self._done(body)
            else:
                self._heard(process, kind, body)

        process.attach(asyncio.get_running_loop(), received)
        self._process = process
        self._said_ready = True
        self._asked_s = 0.0
        self.failure = ""
        if self.restarts:
            self._log("info", f"instance '{self._context.instance_name}' is up again")
        self._most = 2 if self._context.config.dynamic_batching is not None else MOST_AHEAD
        self._watch_over(process)
        if self._is_closing.is_set():
            process.ask_to_end()
        else:
            self._adapt(AHEAD_NS)

    def _watch_over(self, process: WorkerProcess) -> None:
        limit_s = self._context.hang_timeout_s
        if not limit_s:
            return

        def give_up() -> None:
            if not self._is_closing.is_set():  # who unloads it waits for it, and ends it too
                self.end_process(
                    f"was killed because it had not been heard of for {limit_s:g} s, as if it was "
                    "stopped or held Python's lock (--worker-hang-timeout-secs)"
                )

        ask = frame(Frame.ASK_ALIVE)
        self._watch = Watch(limit_s, lambda: process.tell(ask), give_up)
        self._watch.start()

    def _down(self, process: WorkerProcess, reason: str, pause_s: float) -> None:
        """The process has ended: whoever waits for it is told why."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        process.drain()
        process.close()
        self._answering.pop(process).close()
        self._process = None
        self.capacity = 0
        text = self._why_down(reason, pause_s)
        if not self._is_closing.is_set():
            self._log("error", text)
        if pause_s > FIRST_PAUSE_S:
            self.failure = text
        running, self._running = self._running, {}
        streams, self._streams = self._streams, {}
        error = WorkerDied(text)
        for number, stream in streams.items():
            if number[0] not in running and not stream.is_ended:
                _end(stream.work, error)
        for batch, done in running.values():
            now_ns = time.perf_counter_ns()
            done(batch, (now_ns, now_ns, now_ns, now_ns), None, error)
        self._changed()

    def _failed_again(self, text: str, pause_s: float) -> None:
        self.failure = self._why_down(f"could not be started again: {text}", pause_s)
        self._log("error", self.failure)
        self._changed()

    def _why_down(self, reason: str, pause_s: float) -> str:
        context = self._context
        when = f"in {pause_s:g} s" if pause_s else "now"
        return (
            f"the worker process of instance '{context.instance_name}' of model "
            f"'{context.source.name}' {reason}; it is started again {when}"
        )

    # Batches.

    def start(self, batch: Batch, done: RemoteDone) -> None:
        """Send a batch to the process; ``done`` is called on the loop."""
        process = self._process
        assert process is not None
        number = self._next
        self._next = (number + 1) & 0xFFFFFFFF
        self._running[number] = (batch, done)
        try:
            data = process.outgoing.encoder.requests(number, batch.rows, batch.works)
        except Exception as exc:
            # Nothing that a client can send leads here; what it is, is its batch's alone.
            asyncio.get_running_loop().call_soon(self._not_sent, number, exc)
        else:
            process.write(data)

    def _not_sent(self, number: int, error: Exception) -> None:
        running = self._running.pop(number, None)
        if running is not None:
            now_ns = time.perf_counter_ns()
            batch, done = running
            done(batch, (now_ns, now_ns, now_ns, now_ns), None, error)

    async def execute(self, batch: Batch) -> Sequence[Outcome] | None:
        """Answer a batch, on whatever loop this runs."""
        if self._loop is not asyncio.get_running_loop():
            self.attach(_nothing)
        return await super().execute(batch)

    def _done(self, body: bytes) -> None:
        process = self._process
        assert process is not None
        number, times, given, again = process.incoming.decoder.done(body)
        batch, done = self._running.pop(number)
        outcomes: list[Outcome] | None = given
        if len(given) != len(batch.works):
            outcomes = None
        if outcomes is None or None in outcomes:
            self._leave_open(number, batch, outcomes, again)
        self._adapt(times[3] - times[0])
        done(batch, times, outcomes, None)

    def _leave_open(
        self,
        number: int,
        batch: Batch,
        outcomes: Sequence[Outcome] | None,
        again: Sequence[int],
    ) -> None:
        """Remember whom the model will answer, or has answered, by itself, or wants once more."""
        for index, work in enumerate(batch.works):
            if index in again:
                self._streams.pop((number, index), None)
                work.reschedule()
            elif outcomes is not None and outcomes[index] is not None:
                continue
            elif (number, index) not in self._streams:
                self._streams[number, index] = _Stream(work)
            elif self._streams[number, index].is_ended:
                del self._streams[number, index]

    def _adapt(self, duration_ns: int) -> None:
        """Have as much lie with the worker as it does in half a millisecond."""
        self._mean_ns += (duration_ns - self._mean_ns) / 8
        capacity = 1 + int(AHEAD_NS / (self._mean_ns + 1))
        capacity = min(capacity, self._most) if self._most < CONCURRENT else CONCURRENT
        if capacity != self.capacity:
            grows = capacity > self.capacity
            self.capacity = capacity
            if grows:
                self._changed()

    # What else it says.

    def _heard(self, process: WorkerProcess, kind: int, body: bytes) -> None:
        match kind:
            case Frame.SEND:
                self._sent(process, body)
            case Frame.RELEASE:
                process.outgoing.released(body)
            case Frame.LOG:
                level, message, model = json.loads(body)
                self._context.host.log(level, message, model=model)
            case Frame.READY:
                self._said_ready = json.loads(body)
                self._asked_s = 0.0
            case Frame.ALIVE:
                if self._watch is not None:
                    self._watch.answered()
            case Frame.CALL:
                self._answering[process].called(process.incoming.decoder, body)
            case Frame.CONCURRENT:
                self._most = CONCURRENT
                self._adapt(0)

    def _sent(self, process: WorkerProcess, body: bytes) -> None:
        number, index, final, outcome = process.incoming.decoder.sent(body)
        stream = self._streams.get((number, index))
        if stream is None:
            running = self._running.get(number)
            if running is None:
                return
            stream = self._streams[number, index] = _Stream(running[0].works[index])
        if final:
            stream.is_ended = True
            if number not in self._running:
                del self._streams[number, index]
        try:
            stream.work.send(outcome, final=final)
        except Cancelled:
            if not final:
                process.tell(json_frame(Frame.CANCEL, [number, index]))
        except ModelFailed:
            return
        if not final:
            stream.count(outcome)
            if stream.owes_credit and self._loop is not None:
                task = self._loop.create_task(self._credit(process, number, index, stream))
                stream.task = task

    async def _credit(
        self, process: WorkerProcess, number: int, index: int, stream: "_Stream"
    ) -> None:
        """Tell the worker that the reader has taken some, once it has."""
        items, size = stream.take()
        await stream.work.drained()
        if process is self._process:
            process.tell(json_frame(Frame.CREDIT, [number, index, items, size]))

    def cancel(self, work: Work) -> None:
        """Tell the model that nobody waits for a request any more."""
        process = self._process
        if process is None:
            return
        for number, (batch, _) in self._running.items():
            for index, each in enumerate(batch.works):
                if each is work:
                    process.tell(json_frame(Frame.CANCEL, [number, index]))
                    return
        for (number, index), stream in self._streams.items():
            if stream.work is work:
                process.tell(json_frame(Frame.CANCEL, [number, index]))
                return

    # Health.

    def is_ready(self) -> bool:
        """Whether the process is up, and what it said of itself last; silence of 5 s is a no."""
        process = self._process
        if process is None:
            return bool(self._unheard) and not self._is_closing.is_set()
        if not self._asked_s:
            self._asked_s = time.monotonic()
            process.tell(json_frame(Frame.ASK_READY, None))
            return self._said_ready
        return self._said_ready and self._silent_s() < SILENCE_S

    def is_live(self) -> bool:
        """Whether the process answers, is being started, or will be ended for not answering."""
        self.is_ready()
        return self._silent_s() < self._context.hang_timeout_s + HUNG_S

    def _silent_s(self) -> float:
        return time.monotonic() - self._asked_s if self._asked_s else 0.0

    def end_process(self, why: str) -> None:
        """End the process at once, with all that it is at; another one is started.

        Args:
            why: For a sentence whose subject is the process.
        """
        if self._process is not None:
            self._why_ended = why
            self._process.kill()

    def resident_bytes(self) -> int:
        """Memory of the process that is in RAM; 0 while there is none."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):
            return 0

    # The end.

    def unload(self) -> None:
        """Have the model unloaded and its process end; kill it if that takes too long."""
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        loop = self._loop
        if loop is not None and not loop.is_closed():
            process = self._process
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._ask_to_end)
        else:
            process = self._unattached()
            if process is not None:
                process.ask_to_end()
        self._keeper.join(UNLOAD_S)
        if self._keeper.is_alive() and process is not None:
            process.kill()
            self._keeper.join()
        if process is not None and (loop is None or loop.is_closed()):
            self._process = None
            process.close()

    def _ask_to_end(self) -> None:
        if self._process is not None:
            self._process.ask_to_end()

    def _unattached(self) -> WorkerProcess | None:
        """The process that no loop has heard of, or whose loop is closed."""
        for call, arguments in self._unheard:
            if call == self._up and isinstance(arguments[0], WorkerProcess):
                return arguments[0]
        return self._process

    def _log(self, level: str, text: str) -> None:
        self._context.host.log(level, text, model=self._context.source.name)


class _Stream:
    """A request that the model answers by itself, and what its reader has not been credited for."""

    __slots__ = ("bytes", "is_ended", "items", "task", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.is_ended = False
        self.items = 0
        self.bytes = 0
        self.task: asyncio.Task[None] | None = None

    def count(self, outcome: Outcome) -> None:
        """Count what has come."""
        self.items += 1
        if outcome is not None and not isinstance(outcome, Exception):
            self.bytes += sum(output.array.nbytes for output in outcome.outputs)

    @property
    def owes_credit(self) -> bool:
        """Whether half of the window is used up."""
        return self.items >= WINDOW_ITEMS // 2 or self.bytes >= WINDOW_BYTES // 2

    def take(self) -> tuple[int, int]:
        """Give what has come since the last time."""
        taken = self.items, self.bytes
        self.items = self.bytes = 0
        return taken


def _interpreter_of(source: ModelSource, config: ModelConfig) -> str:
    if not config.parameter(ENVIRONMENT):
        return sys.executable
    from modelport.runtimes.worker.environment import interpreter_of  # few models bring one

    return interpreter_of(source, config)


def _answered(kind: int, body: bytes) -> object:
    answer = json.loads(body)
    if kind == Frame.FAILED:
        raise LoadFailed(answer)
    return answer


def _end(work: Work, error: Unavailable) -> None:
    with contextlib.suppress(ModelFailed, Cancelled):
        work.send(error, final=True)


def _pause_s(in_a_row: int) -> float:
    """How long to wait before the next start, after so many ends in a row."""
    if in_a_row < 2:
        return 0.0
    return min(FIRST_PAUSE_S * 2.0 ** (in_a_row - 2), LONGEST_PAUSE_S)


def _ignore(_kind: int, _body: bytes) -> None:
    return


def _nothing() -> None:
    return
