"""The server's end of a service with workers: its processes, and its endpoints spread over them.

A worker holds the object of its service and answers for all of its endpoints; so it is one process
that several deployments use. Each of these has one instance here, a :class:`PooledEndpoint`, which
gives every call to the worker that has the least to do.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from modelport.errors import ModelFailed, ModelportError, Unavailable
from modelport.messages import Arguments, Request, Response, Tensors
from modelport.runtimes.base import (
    Batch,
    Host,
    LoadContext,
    ModelSource,
    Outcome,
    RemoteDone,
    RemoteRuntime,
    Work,
)
from modelport.runtimes.service import MASKED
from modelport.runtimes.service_calls import (
    ENDPOINT,
    pack_call,
    progress_of,
    unpack_answer,
)
from modelport.runtimes.service_worker import SAID, SETUP, ServiceWorker
from modelport.runtimes.worker import WorkerRuntime, worker_runtime
from modelport.services.loop import Threads
from modelport.specs import ModelConfig, Parameter

__all__ = ["PooledEndpoint", "ServiceSetup", "ServiceWorkers"]

CHECK_S = 5.0
"""How long a worker may take to say whether its service is ready before that is a no."""

log = logging.getLogger("modelport.services")


class ServiceSetup:
    """What a worker needs to know.

    Args:
        name: Of the service.
        target: That holds it, as given to the server.
        at: Its position among the services of the target.
        threads: Synchronous calls that may run at once in one worker; ``None`` for no such bound.
        streams: Generators of one endpoint that may make items at a time.
        environment: Of its own, beside the server's.
        hang_timeout_s: How long a worker may not be heard of before it is killed and started again,
            in seconds; 0 for ever.
    """

    def __init__(
        self,
        name: str,
        target: str,
        at: int,
        *,
        threads: int | None,
        streams: int,
        environment: Mapping[str, str] | None = None,
        hang_timeout_s: float = 0.0,
    ) -> None:
        self.name = name
        self._hang_timeout_s = hang_timeout_s
        self._said = {
            "target": target,
            "at": at,
            "threads": threads,
            "streams": streams,
            "environment": dict(environment or {}),
        }

    def context(self, worker: int, host: Host) -> LoadContext:
        """Give what a worker is brought up with."""
        said = json.dumps({**self._said, "worker": worker})
        config = ModelConfig(name=self.name, parameters={SETUP: Parameter(string_value=said)})
        here = Path.cwd()
        return LoadContext(
            source=ModelSource(name=self.name, directory=here, version_directory=here, version=1),
            config=config,
            config_json="{}",
            instance_name=f"{self.name}_{worker}",
            host=host,
            hang_timeout_s=self._hang_timeout_s,
        )


class _Member:
    """One worker, and how many calls it has under way."""

    def __init__(self, name: str, worker: WorkerRuntime) -> None:
        self.name = name
        self.worker = worker
        self.running = 0

    @property
    def is_up(self) -> bool:
        return self.worker.capacity > 0


class ServiceWorkers:
    """The worker processes of one service. Used on the event loop, but for what blocks.

    Args:
        setup: What they are to bring up.
        count: How many.
        grace_s: How long the work of a task may go on when it was cancelled, before its process is
            ended; 0 lets it go on for ever.
    """

    def __init__(self, setup: ServiceSetup, count: int, *, grace_s: float) -> None:
        make = worker_runtime(ServiceWorker)
        self._setup = setup
        self._grace_s = grace_s
        self._members = [_Member(f"{setup.name}_{at + 1}", make()) for at in range(count)]
        self._endpoints: list[PooledEndpoint] = []
        self._threads = Threads("modelport-workers")
        self._is_open = False

    def __repr__(self) -> str:
        loads = " ".join(str(each.running) for each in self._members)
        return f"<ServiceWorkers {self._setup.name} running={loads}>"

    @property
    def members(self) -> list[tuple[str, RemoteRuntime]]:
        """Every worker with its name."""
        return [(each.name, each.worker) for each in self._members]

    def endpoint(self, name: str, each: int) -> "PooledEndpoint":
        """Give what answers for one endpoint.

        Args:
            name: Of the method.
            each: Batches of it that one worker takes at a time.
        """
        found = PooledEndpoint(self, name, each)
        self._endpoints.append(found)
        return found

    async def open(self, host: Host) -> None:
        """Start all, beside one another.

        Raises:
            LoadFailed: One did not come up; the others are down again then.
        """
        loads = [
            self._threads.run(partial(each.worker.load, self._setup.context(at, host)))
            for at, each in enumerate(self._members, 1)
        ]
        results = await asyncio.gather(*loads, return_exceptions=True)
        failures = [each for each in results if isinstance(each, BaseException)]
        if failures:
            up = [
                each.worker.unload
                for each, result in zip(self._members, results, strict=True)
                if not isinstance(result, BaseException)
            ]
            await asyncio.gather(*map(self._threads.run, up))
            raise failures[0]
        self._is_open = True
        for each in self._members:
            each.worker.attach(self._changed)
        self._changed()

    async def close(self) -> None:
        """Have the hooks of the end run in all, and end them; nothing if they did not come up."""
        if self._is_open:
            self._is_open = False
            downs = [self._threads.run(each.worker.unload) for each in self._members]
            await asyncio.gather(*downs)

    async def says(self, check: str) -> bool:
        """Ask every worker's object ``__is_ready__`` or ``__is_alive__``; all have to say yes."""
        answers = await asyncio.gather(*(self._one_says(each, check) for each in self._members))
        return all(answers)

    async def _one_says(self, member: _Member, check: str) -> bool:
        if not member.is_up:
            # It is being started again, which is no reason to start the server again.
            return check == "__is_alive__"
        asked = _Question(Request(Tensors(()), parameters={ENDPOINT: check}))
        try:
            async with asyncio.timeout(CHECK_S):
                outcomes = await member.worker.execute(Batch([asked], 1))
        except (ModelportError, TimeoutError) as exc:
            if isinstance(exc, TimeoutError):
                log.warning("worker %s has not answered %s in %g s", member.name, check, CHECK_S)
            return check == "__is_alive__" and member.worker.is_live()
        answer = outcomes[0] if outcomes else None
        return isinstance(answer, Response) and bool(answer.parameters[SAID])

    def _changed(self) -> None:
        for endpoint in self._endpoints:
            endpoint.adapt()

    # For the endpoints.

    def up(self) -> list[_Member]:
        """Those whose process runs."""
        return [each for each in self._members if each.is_up]

    @property
    def failure(self) -> str:
        """Why none of them will answer for some time; "" if one does."""
        texts = [each.worker.failure for each in self._members]
        return texts[-1] if all(texts) else ""

    def are_live(self) -> bool:
        """Whether none hangs."""
        return all(each.worker.is_live() for each in self._members)

    def are_ready(self) -> bool:
        """Whether all can answer."""
        return all(each.worker.is_ready() for each in self._members)

    def end_unless_over(self, call: "_Call") -> None:
        """Give a task that was cancelled its grace, and then end the process that it runs in."""
        if self._grace_s:
            asyncio.get_running_loop().call_later(self._grace_s, self._end, call)

    def _end(self, call: "_Call") -> None:
        if not call.is_over:
            call.member.worker.end_process(
                f"was ended, because a task in it did not stop within {self._grace_s:g} s after it "
                "was cancelled"
            )


class PooledEndpoint(RemoteRuntime):
    """One endpoint, answered by whichever worker has the least to do.

    Args:
        workers: Which.
        name: Of the method.
        each: Batches of it that one worker takes at a time.

    Attributes:
        capacity: Of those that are up together.
        failure: Why none is, and will not be for some time.
        restarts: Always 0: processes are counted with their service.
    """

    default_filename: ClassVar[str] = ""
    is_shared: ClassVar[bool] = True

    def __init__(self, workers: ServiceWorkers, name: str, each: int) -> None:
        self.capacity = 0
        self.failure = ""
        self.restarts = 0
        self._workers = workers
        self._name = name
        self._each = each
        self._batches: Counter[_Member] = Counter()
        self._calls: dict[Work, _Call] = {}
        self._changed: Callable[[], object] = _nothing

    def __repr__(self) -> str:
        return f"<PooledEndpoint {self._name} calls={len(self._calls)}>"

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Leave it as it is."""
        return config

    def load(self, context: LoadContext) -> None:
        """Do nothing: the workers belong to the service."""

    def unload(self) -> None:
        """Do nothing: the workers belong to the service."""

    def attach(self, changed: Callable[[], object]) -> None:
        """From now on this lives on the running loop."""
        self.adapt()
        self._changed = changed

    def adapt(self) -> None:
        """See which workers are up."""
        self.capacity = self._each * len(self._workers.up())
        self.failure = self._workers.failure
        self._changed()

    # Calls.

    def start(self, batch: Batch, done: RemoteDone) -> None:
        """Give a batch to a worker."""
        free = [each for each in self._workers.up() if self._batches[each] < self._each]
        try:
            if not free:
                raise Unavailable(f"no worker of '{self._name}' is free; try again")
            requests = [pack_call(work.request, self._name) for work in batch.works]
        except Exception as exc:
            if not isinstance(exc, ModelportError):
                log.exception("a call of '%s' could not be sent to a worker", self._name)
            now_ns = time.perf_counter_ns()
            loop = asyncio.get_running_loop()
            loop.call_soon(done, batch, (now_ns, now_ns, now_ns, now_ns), None, exc)
            return
        member = min(free, key=lambda each: each.running)
        self._batches[member] += 1
        calls = [
            _Call(self, member, work, request)
            for work, request in zip(batch.works, requests, strict=True)
        ]
        ended = partial(self._done, batch, member, calls, done)
        member.worker.start(Batch(calls, batch.rows), ended)

    def _done(
        self,
        batch: Batch,
        member: _Member,
        calls: "Sequence[_Call]",
        done: RemoteDone,
        _sent: Batch,
        times: tuple[int, int, int, int],
        outcomes: Sequence[Outcome] | None,
        error: Exception | None,
    ) -> None:
        self._batches[member] -= 1
        if error is not None:
            for call in calls:
                call.end()
        elif outcomes is not None:
            outcomes = [
                None if outcome is None else call.last(outcome)
                for call, outcome in zip(calls, outcomes, strict=True)
            ]
        done(batch, times, outcomes, error)

    def cancel(self, work: Work) -> None:
        """Tell the worker that has it; a task that goes on all the same costs it its process."""
        call = self._calls.get(work)
        if call is None:
            return
        call.member.worker.cancel(call)
        if call.is_task:
            self._workers.end_unless_over(call)

    def begun(self, call: "_Call") -> None:
        """A call is its worker's now."""
        self._calls[call.work] = call
        call.member.running += 1

    def ended(self, call: "_Call") -> None:
        """A call is over."""
        del self._calls[call.work]
        call.member.running -= 1

    # Health.

    def is_ready(self) -> bool:
        """Whether all workers can answer."""
        return self._workers.are_ready()

    def is_live(self) -> bool:
        """Whether none hangs."""
        return self._workers.are_live()

    def resident_bytes(self) -> int:
        """Nothing of its own."""
        return 0


class _Call:
    """One request while a worker has it: the work there, and a work's stand-in here.

    Attributes:
        request: As it goes to the worker.
    """

    def __init__(
        self, endpoint: PooledEndpoint, member: _Member, work: Work, request: Request
    ) -> None:
        self.member = member
        self.work = work
        self.request = request
        self.rows = work.rows
        self.is_over = False
        self._endpoint = endpoint
        payload = work.request.payload
        self._arguments: Arguments | None = payload if payload.__class__ is Arguments else None
        self._context: Any = self._arguments.context if self._arguments is not None else None
        scope = self._arguments.scope if self._arguments is not None else None
        if scope is not None:
            scope.claim()
        self._scope = scope
        endpoint.begun(self)

    @property
    def is_task(self) -> bool:
        """Whether it is the work of a task."""
        return self._context is not None and self._context.task is not None

    @property
    def is_cancelled(self) -> bool:
        """See :class:`modelport.runtimes.base.Work`."""
        return self.work.is_cancelled

    def send(self, response: Response | ModelportError | None, *, final: bool) -> None:
        """Take one of many responses, or the last one, or a report of a task."""
        if final:
            self.work.send(None if response is None else self.last(response), final=True)
            self.end()
            return
        if isinstance(response, Response):
            progress = progress_of(response)
            if progress is None:
                self.work.send(self._read(response), final=False)
            elif self.is_task:
                self._context.task(*progress)

    async def drained(self) -> None:
        """See :class:`modelport.runtimes.base.Work`."""
        await self.work.drained()

    def reschedule(self) -> None:
        """See :class:`modelport.runtimes.base.Work`."""
        self.work.reschedule()

    def last(self, outcome: Response | ModelportError) -> Response | ModelportError:
        """Take the last outcome."""
        try:
            return self._read(outcome) if isinstance(outcome, Response) else outcome
        finally:
            self.end()

    def _read(self, response: Response) -> Response | ModelportError:
        arguments = self._arguments
        if arguments is None:
            return response
        try:
            answer = unpack_answer(response, self._context)
        except OSError as exc:
            log.error("the file that '%s' answered with cannot be read: %s", self._endpoint, exc)
            return ModelFailed(MASKED)
        encode = arguments.encode
        return Response((), value=answer if encode is None else encode(answer))

    def end(self) -> None:
        """It is over: what was kept for it may go."""
        if self.is_over:
            return
        self.is_over = True
        self._endpoint.ended(self)
        if self._scope is not None:
            # Deleting files blocks. At the very end nobody runs it any more, nor needs it to.
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().run_in_executor(None, self._scope.close)


class _Question:
    """A request of our own."""

    rows = 1
    is_cancelled = False

    def __init__(self, request: Request) -> None:
        self.request = request

    def send(self, response: Response | ModelportError | None, *, final: bool) -> None:
        """Not used: checks answer with their outcome."""

    async def drained(self) -> None:
        """Not used."""

    def reschedule(self) -> None:
        """Not used."""


def _nothing() -> None:
    return
