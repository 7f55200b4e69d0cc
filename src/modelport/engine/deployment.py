"""One version of one model, being served: its queue, its instances, its requests in flight.

An instance is reserved first and the batch is cut last: while all instances are busy the queue
grows, and what has come by the time one is free goes into its batch. What is decided here without
waiting stands in :mod:`~modelport.engine.admission` and :mod:`~modelport.engine.batcher`.
"""

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, cast

from modelport.clock import Clock
from modelport.engine.admission import Admission
from modelport.engine.batcher import BatchPolicy, Wait, decide
from modelport.engine.executor import (
    SLOW_NS,
    Completions,
    InstanceThread,
    Placement,
    Ran,
    start_on_loop,
)
from modelport.engine.job import Job
from modelport.errors import (
    Cancelled,
    Kind,
    ModelFailed,
    ModelportError,
    Overloaded,
    TimedOut,
    Unavailable,
)
from modelport.messages import Request, Response, Sink, Ticket
from modelport.repository.repository import ModelVersion
from modelport.runtimes.base import Batch, Outcome, Runtime, as_model_failure
from modelport.specs import Execution, ModelConfig
from modelport.stats import ModelStatistics

__all__ = ["Deployment", "EngineOptions"]

MAX_CONCURRENT_AWAITABLES = 1024
"""Batches that one asynchronous instance may have under way."""


class EngineOptions:
    """What the operator sets for all models.

    Attributes:
        execution: Where models run that do not say it themselves.
        max_queue_size: Requests that may wait for one model that sets no bound of its own.
    """

    __slots__ = ("execution", "max_queue_size")

    def __init__(self, *, execution: Execution = "auto", max_queue_size: int = 10_000) -> None:
        self.execution = execution
        self.max_queue_size = max_queue_size


class _Instance:
    """A loaded runtime and the thread that it runs on, made when it is first needed."""

    __slots__ = ("deployment", "is_async", "name", "running", "runtime", "thread")

    def __init__(self, deployment: "Deployment", runtime: Runtime, name: str) -> None:
        self.deployment = deployment
        self.runtime = runtime
        self.name = name
        self.thread: InstanceThread | None = None
        self.is_async = False
        self.running = 0

    def done(self, batch: Batch, ran: Ran) -> None:
        self.deployment.completed(
            self, batch, ran.started_ns, ran.ended_ns, ran.outcomes, ran.error, ran.is_kept
        )

    def became_async(self) -> None:
        self.deployment.instance_became_async(self)


class Deployment:
    """A version that takes requests. Used on the event loop only.

    Attributes:
        name: Of the model.
        version: A positive integer.
        config: Complete.
        config_json: The same in Triton's JSON form.
        labels: Class labels by output.
        statistics: Counters, kept up to date here.
        in_flight: Requests that were admitted and are not over.
        memo: Free for protocols to keep what follows from the configuration alone.
    """

    def __init__(
        self,
        version: ModelVersion,
        *,
        options: EngineOptions,
        completions: Completions,
        clock: Clock,
    ) -> None:
        config = version.config
        self.source = version
        self.name = version.name
        self.version = version.version
        self.config: ModelConfig = config
        self.config_json = version.config_json
        self.labels = version.labels
        self.statistics = ModelStatistics(load_s=version.load_s)
        self.completions = completions
        self.in_flight = 0
        self.memo: dict[str, Any] = {}
        self.is_closing = False
        self._clock = clock
        self._now_ns = clock.now_ns
        self._admission = Admission(config)
        self._policy = BatchPolicy.from_config(config)
        self._placement = Placement(_execution(config, options))
        self._instances = [
            _Instance(self, runtime, name)
            for runtime, name in zip(version.instances, version.instance_names, strict=True)
        ]
        self._free = list(self._instances)
        self._queue: deque[Job] = deque()
        self._queue_lock = threading.Lock()
        self._cancelled_in_queue = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._drained: list[asyncio.Future[None]] = []
        queue = config.dynamic_batching and config.dynamic_batching.default_queue_policy
        self._max_queue = (queue.max_queue_size if queue else 0) or options.max_queue_size
        self._timeout_ns = queue.default_timeout_microseconds * 1000 if queue else 0
        self._allows_timeout = bool(queue and queue.allow_timeout_override)
        dynamic = config.dynamic_batching
        self._ordered: deque[Job] | None = (
            deque() if dynamic is not None and dynamic.preserve_ordering else None
        )
        self._may_skip_queue = self._policy.max_delay_ns == 0 and self._ordered is None
        self._needs_key = self._policy.joins

    def __repr__(self) -> str:
        return (
            f"<Deployment {self.name} v{self.version} in_flight={self.in_flight} "
            f"queued={len(self._queue)} free={len(self._free)}/{len(self._instances)}>"
        )

    @property
    def is_decoupled(self) -> bool:
        """Whether a request may have no response, or many."""
        return self.config.is_decoupled

    def is_ready(self) -> bool:
        """Whether all instances can still answer."""
        return all(instance.runtime.is_ready() for instance in self._instances)

    # Requests come in.

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Take a request, or raise.

        After this has returned the engine owns the request, and ``sink`` hears of it; it may have
        heard all of it already.

        Raises:
            InvalidRequest: It does not fit the model.
            Overloaded: The queue is full.
        """
        rows = self._admission.rows(request)
        job = Job(self, request, sink, rows, request.received_ns or self._now_ns())
        if (
            self._placement.is_inline
            and self._may_skip_queue
            and not self._queue
            and self._free
            and request.deadline_ns is None
        ):
            self.in_flight += 1
            self._run_at_once(self._free.pop(), job)
        else:
            self._enqueue(job)
        return job

    def _run_at_once(self, instance: _Instance, job: Job) -> None:
        """Execute one request on the loop: the shortest way through everything below.

        What does not end in one response takes the long way from where it has come to.
        """
        batch = Batch((job,), job.rows)
        started_ns = self._now_ns()
        outcomes: Any = None
        error: Exception | None = None
        try:
            outcomes = instance.runtime.execute(batch)
        except Exception as exc:
            error = exc
        ended_ns = self._now_ns()
        if (
            outcomes.__class__ is list
            and len(outcomes) == 1
            and outcomes[0].__class__ is Response
            and not job.is_closed
            and not job.is_cancelled
            and ended_ns - started_ns < SLOW_NS
        ):
            self._free.append(instance)
            self.statistics.record_single(job.rows, job.enqueued_ns, started_ns, ended_ns)
            job.is_closed = True
            self.in_flight -= 1
            job.sink.push(outcomes[0], True)
            if self._queue:
                self._dispatch()
            if self._drained:
                self._tell_drained()
        elif inspect.isawaitable(outcomes):
            self._run_on_loop(instance, batch, outcomes, started_ns)
        else:
            self.completed(instance, batch, started_ns, ended_ns, outcomes, error)

    def _enqueue(self, job: Job) -> None:
        if len(self._queue) - self._cancelled_in_queue >= self._max_queue:
            self.statistics.record_failure(0, "REJECTED")
            raise Overloaded(
                f"Exceeds maximum queue size; {self._max_queue} requests wait for model "
                f"'{self.name}' already. Try again later, or raise max_queue_size."
            )
        request = job.request
        now_ns = self._now_ns()
        job.queued_ns = now_ns
        if self._needs_key:
            job.batch_key = self._admission.batch_key(request)
        timeout_ns = self._timeout_ns
        if request.timeout_us and self._allows_timeout:
            asked_ns = request.timeout_us * 1000
            timeout_ns = min(timeout_ns, asked_ns) if timeout_ns else asked_ns
        if timeout_ns:
            job.expires_ns = now_ns + timeout_ns
        if request.deadline_ns is not None:
            self._watch_deadline(job, request.deadline_ns)
        job.is_queued = True
        self.in_flight += 1
        with self._queue_lock:
            self.statistics.pending += 1
            self._queue.append(job)
        if self._ordered is not None:
            self._ordered.append(job)
        if self._free:
            self._dispatch()
        if job.expires_ns and not job.is_closed:
            self._watch_queue(job.expires_ns)

    # Requests go to instances.

    def _dispatch(self) -> None:
        while self._queue and self._free:
            if self._cancelled_in_queue:
                self._sweep_cancelled()
                continue
            head = self._queue[0]
            if head.expires_ns and self._now_ns() >= head.expires_ns:
                self._expire()
                continue
            cut = self._cut()
            if isinstance(cut, Wait):
                self._wake_at(cut.until_ns)
                return
            if cut is None:
                return
            self._start(self._free.pop(), *cut)

    def _cut(self) -> tuple[list[Job], int] | Wait | None:
        """Take the next batch off the queue, if it is time for it."""
        with self._queue_lock:
            queue = self._queue
            if not queue:
                return None
            decision = decide(queue, self._policy, self._now_ns())
            if isinstance(decision, Wait):
                return decision
            jobs = [queue.popleft() for _ in range(decision.count)]
            for job in jobs:
                job.is_queued = False
            self.statistics.pending -= len(jobs)
        return jobs, decision.rows

    def _take(self) -> Batch | None:
        """Give a thread that has executed a batch the next one; ``None`` if it is to wait.

        The only thing here that other threads call: they may touch the queue, under its lock.
        Whatever is out of the ordinary is left to the loop.
        """
        if self._cancelled_in_queue or self._placement.is_inline or self.is_closing:
            return None
        queue = self._queue
        try:
            if queue[0].expires_ns:
                return None
        except IndexError:
            return None
        cut = self._cut()
        return Batch(*cut) if isinstance(cut, tuple) else None

    def _start(self, instance: _Instance, jobs: list[Job], rows: int) -> None:
        batch = Batch(jobs, rows)
        if self._placement.is_inline:
            self._run_inline(instance, batch)
            return
        thread = instance.thread
        if thread is None:
            thread = instance.thread = InstanceThread(
                instance.runtime,
                instance.name,
                self.completions,
                self._clock,
                instance.became_async,
                self._take,
            )
        if instance.is_async:
            instance.running += 1
            if instance.running < MAX_CONCURRENT_AWAITABLES:
                self._free.append(instance)
        thread.execute(batch, instance.done)

    def _run_inline(self, instance: _Instance, batch: Batch) -> None:
        started_ns = self._now_ns()
        outcomes: Any = None
        error: Exception | None = None
        try:
            outcomes = instance.runtime.execute(batch)
        except Exception as exc:
            error = exc
        if outcomes.__class__ is not list and inspect.isawaitable(outcomes):
            self._run_on_loop(instance, batch, outcomes, started_ns)
            return
        self.completed(instance, batch, started_ns, self._now_ns(), outcomes, error)

    def _run_on_loop(
        self,
        instance: _Instance,
        batch: Batch,
        running: Awaitable[Sequence[Outcome] | None],
        started_ns: int,
    ) -> None:
        if not instance.is_async:
            instance.is_async = True
            self._free.append(instance)
        instance.running += 1
        task = start_on_loop(running)

        def finish(task: "asyncio.Task[Sequence[Outcome] | None]") -> None:
            error = task.exception()
            outcomes = None if error is not None else task.result()
            ended_ns = self._now_ns()
            failure = error if isinstance(error, Exception) else None
            self.completed(instance, batch, started_ns, ended_ns, outcomes, failure)

        task.add_done_callback(finish)

    def instance_became_async(self, instance: _Instance) -> None:
        """An instance gave its first awaitable: others may run beside it."""
        self._placement.stay_off_loop()
        instance.is_async = True
        instance.running = 1
        self._free.append(instance)
        self._dispatch()

    # Answers come back.

    def completed(
        self,
        instance: _Instance,
        batch: Batch,
        started_ns: int,
        ended_ns: int,
        outcomes: Sequence[Outcome] | None,
        error: Exception | None,
        is_kept: bool = False,
    ) -> None:
        """An instance has executed a batch; ``is_kept`` if it has gone on with another one."""
        if is_kept:
            self._placement.ran(ended_ns - started_ns)
        elif instance.is_async:
            instance.running -= 1
            if instance.running == MAX_CONCURRENT_AWAITABLES - 1:
                self._free.append(instance)
        else:
            self._free.append(instance)
            self._placement.ran(ended_ns - started_ns)
        # The instance first, then the answers: it should not stand idle while we write.
        if self._queue:
            self._dispatch()
        ready_ns = batch.inputs_ready_ns or started_ns
        computed_ns = batch.computed_ns or ended_ns
        times = (ready_ns - started_ns, computed_ns - ready_ns, ended_ns - computed_ns)
        jobs = cast(Sequence[Job], batch.works)
        self.statistics.record_execution(started_ns, batch.rows, *times)
        if error is not None:
            failure = as_model_failure(error)
            for job in jobs:
                self._settle(job, failure, started_ns, times)
            return
        if outcomes is None:
            return
        if len(outcomes) != len(jobs):
            failure = ModelFailed(
                f"model '{self.name}' was given {len(jobs)} requests and answered {len(outcomes)}"
            )
            for job in jobs:
                self._settle(job, failure, started_ns, times)
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome is not None:
                self._settle(job, outcome, started_ns, times)

    def _settle(
        self,
        job: Job,
        outcome: Response | ModelportError,
        started_ns: int,
        times: tuple[int, int, int],
    ) -> None:
        if job.is_closed:
            return
        if self._ordered is not None:
            job.outcome = (outcome, started_ns, times)
            self._flush_ordered()
            return
        self._answer(job, outcome, started_ns, times)

    def _flush_ordered(self) -> None:
        ordered = cast("deque[Job]", self._ordered)
        while ordered and (ordered[0].is_closed or ordered[0].outcome is not None):
            job = ordered.popleft()
            if not job.is_closed and job.outcome is not None:
                self._answer(job, *job.outcome)

    def _answer(
        self,
        job: Job,
        outcome: Response | ModelportError,
        started_ns: int,
        times: tuple[int, int, int],
    ) -> None:
        enqueued_ns = job.enqueued_ns
        if job.is_cancelled:
            self._fail(job, Cancelled("cancelled by the caller"))
        elif outcome.__class__ is Response:
            self.statistics.record_success(
                job.rows, self._now_ns() - enqueued_ns, started_ns - enqueued_ns, *times
            )
            self._close(job)
            job.sink.push(outcome, True)
        else:
            self._fail(job, cast(ModelportError, outcome))

    def responded(self, job: Job, response: Response | ModelportError | None, final: bool) -> None:
        """A model gave a response through its sender."""
        if isinstance(response, ModelportError):
            self._fail(job, response)
            return
        if final:
            total_ns = self._now_ns() - job.enqueued_ns
            self.statistics.record_success(job.rows, total_ns, 0, 0, total_ns, 0)
            self._close(job)
        if job.is_cancelled:
            return
        if response is None:
            if final:
                job.sink.end()
            return
        if job.responses == 0:
            first_ns = self._now_ns() - job.enqueued_ns
            self.statistics.first_response_histogram.observe(first_ns)
        job.responses += 1
        if not job.sink.push(response, final) and not final:
            job.pause()

    def _fail(self, job: Job, error: ModelportError) -> None:
        if job.is_closed:
            return
        self.statistics.record_failure(
            self._now_ns() - job.enqueued_ns,
            "CANCELED" if job.is_cancelled else _REASONS.get(error.kind, "BACKEND"),
        )
        self._close(job)
        if not job.is_cancelled:
            job.sink.fail(error)

    def _close(self, job: Job) -> None:
        job.is_closed = True
        self.in_flight -= 1
        if self._drained:
            self._tell_drained()

    def _tell_drained(self) -> None:
        if self.in_flight == 0:
            waiting, self._drained = self._drained, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    # Requests go away.

    def cancelled(self, job: Job) -> None:
        """A caller has gone: what it had queued will not run."""
        with self._queue_lock:
            is_queued = job.is_queued
            if is_queued:
                self._cancelled_in_queue += 1
        if is_queued:
            # Nothing is said to the sink: who would listen?
            self._fail(job, Cancelled("cancelled by the caller"))
            if self._ordered is not None:
                self._flush_ordered()

    def _sweep_cancelled(self) -> None:
        with self._queue_lock:
            before = len(self._queue)
            self._queue = deque(job for job in self._queue if not job.is_closed)
            self.statistics.pending -= before - len(self._queue)
            self._cancelled_in_queue = 0

    def _watch_queue(self, expires_ns: int) -> None:
        if self._expiry is None:
            delay_s = max(0.0, (expires_ns - self._now_ns()) / 1e9)
            self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire)
            # Requests with other timeouts are looked at when this one is due.

    def _expire(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now_ns = self._now_ns()
        kept: deque[Job] = deque()
        expired = []
        with self._queue_lock:
            for job in self._queue:
                if job.expires_ns and now_ns >= job.expires_ns and not job.is_closed:
                    expired.append(job)
                else:
                    kept.append(job)
            self._queue = kept
            self.statistics.pending -= len(expired)
        for job in expired:
            waited_ms = (now_ns - job.queued_ns) / 1e6
            text = f"Request timeout expired; it had waited {waited_ms:.0f} ms in the queue"
            self._fail(job, TimedOut(text))
        next_ns = min((job.expires_ns for job in kept if job.expires_ns), default=0)
        if self._ordered is not None:
            self._flush_ordered()
        if next_ns:
            self._watch_queue(next_ns)

    def _watch_deadline(self, job: Job, deadline_ns: int) -> None:
        def pass_deadline() -> None:
            if not job.is_closed:
                job.sink.fail(TimedOut("the deadline of the request passed"))
                job.cancel()

        delay_s = max(0.0, (deadline_ns - self._now_ns()) / 1e9)
        asyncio.get_running_loop().call_later(delay_s, pass_deadline)

    def _wake_at(self, until_ns: int) -> None:
        if self._timer is not None:
            if self._timer_ns <= until_ns:
                return
            self._timer.cancel()
        delay_s = max(0.0, (until_ns - self._now_ns()) / 1e9)
        self._timer_ns = until_ns
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer = None
        self._dispatch()

    # The end.

    async def drain(self) -> None:
        """Wait until no request is in flight. New ones are kept away by whoever calls this."""
        self.is_closing = True
        if self.in_flight == 0:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drained.append(future)
        await future

    def close(self) -> None:
        """Fail what is still in flight, and let the threads go; the runtimes are not unloaded."""
        with self._queue_lock:
            left, self._queue = self._queue, deque()
            self.statistics.pending -= len(left)
        for job in left:
            self._fail(job, Unavailable("Server exiting"))
        for timer in (self._timer, self._expiry):
            if timer is not None:
                timer.cancel()
        for instance in self._instances:
            if instance.thread is not None:
                instance.thread.close()


def _execution(config: ModelConfig, options: EngineOptions) -> Execution:
    named = config.parameter("execution", options.execution)
    return cast(Execution, named)


_REASONS = {
    Kind.OVERLOADED: "REJECTED",
    Kind.TIMEOUT: "REJECTED",
    Kind.CANCELLED: "CANCELED",
    Kind.INVALID: "OTHER",
    Kind.UNAVAILABLE: "OTHER",
}
