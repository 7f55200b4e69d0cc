"""One version of one model, being served: its queue, its instances, its requests in flight.

An instance is reserved first and the batch is cut last: while all instances are busy the queue
grows, and what has come by the time one is free goes into its batch. What is decided here without
waiting stands in :mod:`~modelport.engine.admission` and :mod:`~modelport.engine.batcher`.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Literal, cast

from modelport.clock import Clock
from modelport.engine.admission import Admission
from modelport.engine.batcher import BatchPolicy, Wait
from modelport.engine.executor import SLOW_NS, Completions, Placement, Ran, failure_of
from modelport.engine.instances import Instance, Instances
from modelport.engine.job import NOBODY, Job, Times
from modelport.engine.priority_queue import queue_of
from modelport.engine.queue_policy import QueuePolicies
from modelport.engine.reshape import Reshaping
from modelport.engine.warmup import batch_of, check
from modelport.errors import (
    Cancelled,
    Kind,
    LoadFailed,
    ModelFailed,
    ModelportError,
    Overloaded,
    QueueTimedOut,
    TimedOut,
    Unavailable,
)
from modelport.messages import Arguments, Request, Response, Sink, Ticket
from modelport.repository.loading import ModelVersion
from modelport.runtimes.base import Batch, Outcome, RemoteRuntime, as_model_failure
from modelport.specs import Execution, ModelConfig
from modelport.stats import InstanceStatistics, ModelStatistics

__all__ = ["Deployment", "EngineOptions"]

log = logging.getLogger("modelport.engine")


class EngineOptions:
    """What the operator sets for all models.

    Attributes:
        execution: Where models run that do not say it themselves.
        max_queue_size: Requests that may wait for one model that sets no bound of its own.
        cache_bytes: What the response cache may take; 0 for none.
        is_ovms: Whether version 0 is the default one of models whose parameter ``ovms`` does not
            say it; elsewhere there is no version 0.
    """

    __slots__ = ("cache_bytes", "execution", "is_ovms", "max_queue_size")

    def __init__(
        self,
        *,
        execution: Execution = "auto",
        max_queue_size: int = 10_000,
        cache_bytes: int = 0,
        is_ovms: bool = False,
    ) -> None:
        self.execution = execution
        self.is_ovms = is_ovms
        self.max_queue_size = max_queue_size
        self.cache_bytes = cache_bytes


class Deployment:
    """A version that takes requests. Used on the event loop only, but for ``_take``.

    Attributes:
        name: Of the model.
        version: A positive integer.
        config: Complete.
        config_json: The same in Triton's JSON form.
        labels: Class labels by output.
        statistics: Counters, kept up to date here.
        memo: Free for protocols to keep what follows from the configuration alone.
        send_lock: Guards what the producers of streams count.
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
        self.statistics = ModelStatistics(
            load_s=version.load_s, first_response_buckets_ms=config.first_response_buckets_ms
        )
        self.completions = completions
        self.memo: dict[str, Any] = {}
        self.is_decoupled = config.is_decoupled
        self.send_lock = threading.Lock()
        self._clock = clock
        self._now_ns = clock.now_ns
        self._admission = Admission(config)
        self._limit = version.limit
        self._reshaping = Reshaping.of(config)
        self._placement = Placement(_execution(config, options))
        if self.is_decoupled:
            # A stream must be able to wait for its reader.
            self._placement.stay_off_loop()
        if any(getattr(instance, "may_wait", False) for instance in version.instances):
            # As must a model that waits for others.
            self._placement.stay_off_loop()
        self._instances = Instances(
            zip(version.instances, version.instance_names, strict=True),
            placement=self._placement,
            completions=completions,
            clock=clock,
            completed=self._completed,
            freed=self._freed,
            take=self._take,
        )
        self._free = self._instances.free
        self.statistics.instances = [each.statistics for each in self.instances]
        # Whose the responses are that come without an execution.
        self._only = self.statistics.instances[0] if len(self.instances) == 1 else None
        # Why all instances are down, while they are.
        self._down_text = ""
        # All that were admitted and are not over, but for those that are answered at once.
        self._jobs: set[Job] = set()
        self._is_closed = False
        self._drained: list[asyncio.Future[None]] = []
        self._timer: asyncio.Handle | None = None
        self._timer_ns = 0
        self._expiry: asyncio.Handle | None = None
        self._expiry_ns = 0
        self._is_dispatching = False
        policy = BatchPolicy.from_config(config)
        self._needs_key = policy.joins
        policies = QueuePolicies.from_config(config)
        self._policies = policies if policies.tells_apart else None
        self._queue = queue_of(policy, policies, options.max_queue_size, self.statistics)
        self._waiting: Collection[Job] = self._queue.jobs
        # Streams are in order by themselves, and do not wait for one another.
        dynamic = config.dynamic_batching
        is_ordered = dynamic is not None and dynamic.preserve_ordering and not self.is_decoupled
        self._ordered: deque[Job] | None = deque() if is_ordered else None
        self._could_skip_queue = (
            policy.max_delay_ns == 0
            and not is_ordered
            and not self.is_decoupled
            and self._reshaping is None
        )
        self._may_skip_queue = self._could_skip_queue
        self.is_traced = False

    def __repr__(self) -> str:
        return (
            f"<Deployment {self.name} v{self.version} in_flight={self.in_flight} "
            f"{self._queue} {self._instances}>"
        )

    def trace(self, is_traced: bool) -> None:
        """Note the stages of requests that have a trace; none of them takes the shortest way."""
        self.is_traced = is_traced
        self._may_skip_queue = self._could_skip_queue and not is_traced

    @property
    def instances(self) -> Sequence[Instance]:
        """All instances, to be looked at only."""
        return self._instances.all()

    @property
    def in_flight(self) -> int:
        """Requests that were admitted and are not over."""
        return len(self._jobs)

    def is_ready(self) -> bool:
        """Whether all instances can still answer."""
        return self._instances.are_ready()

    def why_not_ready(self) -> str:
        """Say which instance cannot answer; "" if all can."""
        return self._instances.why_not_ready()

    def stay_off_loop(self) -> None:
        """Run on threads from now on, unless the configuration says otherwise."""
        self._placement.stay_off_loop()

    def is_live(self) -> bool:
        """Whether no worker process hangs."""
        return self._instances.are_live()

    def workers(self) -> list[tuple[str, RemoteRuntime]]:
        """The instances that run in worker processes, with their names."""
        return self._instances.remotes()

    async def warm_up(self) -> None:
        """Execute the warm-up requests of the version on every instance; for before all others.

        Raises:
            LoadFailed: If the model fails one.
        """
        for sample in self.source.samples:
            make = partial(batch_of, sample, self._reshaping, self.completions)
            for _ in range(sample.count):
                await self._instances.execute_on_each(make, partial(check, sample))

    # Requests come in.

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Take a request, or raise.

        After this has returned the engine owns the request, and ``sink`` hears of it; it may have
        heard all of it already.

        Raises:
            InvalidRequest: It does not fit the model.
            Overloaded: The queue is full.
            TimedOut: Its deadline had passed before it came.
            Unavailable: The version has been closed.
        """
        payload = request.payload
        is_call = payload.__class__ is Arguments
        rows = payload.rows if is_call else self._admission.rows(request)
        limit = self._limit
        if limit is not None and not limit.has_room():
            self.statistics.record_failure(0, "REJECTED")
            raise Overloaded(limit.text)
        job = Job(self, request, sink, rows, request.received_ns or self._now_ns())
        if (
            self._placement.is_inline
            and self._may_skip_queue
            and not self._waiting
            and self._free
            and (request.deadline_ns is None or is_call)
        ):
            self._run_at_once(self._free.pop(), job)
        else:
            self._enqueue(job)
        return job

    def _run_at_once(self, instance: Instance, job: Job) -> None:
        """Execute one request on the loop: the shortest way through everything below.

        What does not end in one response takes the long way from where it has come to.
        """
        batch = Batch((job,), job.rows)
        started_ns = self._now_ns()
        outcomes: Any = None
        error: Exception | None = None
        try:
            outcomes = instance.runtime.execute(batch)
        except (Exception, SystemExit) as exc:
            error = failure_of(exc)
        ended_ns = self._now_ns()
        if (
            outcomes.__class__ is list
            and len(outcomes) == 1
            and outcomes[0].__class__ is Response
            and not job.is_closed
            and ended_ns - started_ns < SLOW_NS
        ):
            self._free.append(instance)
            self.statistics.record_single(
                job.rows, job.enqueued_ns, started_ns, ended_ns, instance.statistics
            )
            job.is_closed = True
            job.sink.push(outcomes[0], True)
            if self._waiting:
                self._dispatch()
            return
        if not job.is_closed:
            job.is_running = True
            job.started_ns = started_ns
            self._hold(job)
        self._instances.executed(instance, batch, Ran(started_ns, ended_ns, outcomes, error))

    def _enqueue(self, job: Job) -> None:
        request = job.request
        now_ns = self._now_ns()
        if self._is_closed:
            raise Unavailable(
                f"Request for unknown model: '{self.name}' version {self.version} is not at ready "
                "state"
            )
        if request.deadline_ns is not None and now_ns >= request.deadline_ns:
            self.statistics.record_failure(0, "REJECTED")
            raise TimedOut("the deadline of the request had passed when it came")
        if self._down_text:
            self.statistics.record_failure(0, "BACKEND")
            raise Unavailable(self._down_text)
        if self._needs_key:
            payload = request.payload
            is_call = payload.__class__ is Arguments
            job.batch_key = payload.batch_key if is_call else self._admission.batch_key(request)
        job.queued_ns = now_ns
        if self._policies is not None:
            self._apply_policy(self._policies, job)
        if self._reshaping is not None:
            request.payload = self._reshaping.inputs(request.payload)
        if not self._queue.enter(job):
            self.statistics.record_failure(0, "REJECTED")
            raise self._overloaded(job)
        self._hold(job)
        if self._ordered is not None:
            self._ordered.append(job)
        if self._free:
            self._dispatch()
        if job.expires_ns and job.is_queued:
            self._watch_queue()

    def _apply_policy(self, policies: QueuePolicies, job: Job) -> None:
        job.level = policies.level_of(job.request.priority)
        timeout_ns = policies.limits_of(job.level).timeout_for(job.request.timeout_us)
        if timeout_ns:
            job.expires_ns = job.queued_ns + timeout_ns

    def _overloaded(self, job: Job) -> Overloaded:
        which = f" of priority {job.level}" if job.level else ""
        return Overloaded(
            f"Exceeds maximum queue size; {self._queue.most_like(job)} requests{which} wait for "
            f"model '{self.name}' already. Try again later, or raise max_queue_size."
        )

    def _hold(self, job: Job) -> None:
        """Keep a job that is not answered at once, and watch its deadline."""
        self._jobs.add(job)
        if self._limit is not None:
            self._limit.in_use += 1
        deadline_ns = job.request.deadline_ns
        if deadline_ns is not None:
            delay_s = max(0.0, (deadline_ns - self._now_ns()) / 1e9)
            loop = asyncio.get_running_loop()
            job.deadline = loop.call_later(delay_s, self._pass_deadline, job)

    # Requests go to instances.

    def _freed(self) -> None:
        """An instance has come, or gone."""
        self._down_text = self._instances.failure
        if self._down_text:
            for job in list(self._waiting):
                if self._queue.leave(job):
                    self._fail(job, Unavailable(self._down_text))
        self._dispatch()

    def _dispatch(self) -> None:
        # Models that run on the loop are done before ``_start`` returns, and who hears of it may
        # send the next request: all of that is left to the one loop below.
        if self._is_dispatching:
            return
        self._is_dispatching = True
        try:
            self._start_batches()
        finally:
            self._is_dispatching = False

    def _start_batches(self) -> None:
        pause_ns = 0
        while self._waiting and self._free:
            now_ns = self._now_ns()
            if pause_ns == 0:
                pause_ns = now_ns + SLOW_NS
            elif now_ns >= pause_ns:
                # A long queue of a model that runs on the loop: others want their turn.
                self._wake_at(now_ns)
                return
            cut = self._queue.cut(now_ns)
            if isinstance(cut, Wait):
                self._wake_at(cut.until_ns)
                return
            if cut is not None:
                self._instances.execute(cut)
            elif self._queue.is_overdue(now_ns):
                self._expire()

    def _take(self) -> Batch | None:
        """Give a thread that has executed a batch the next one; ``None`` if it is to wait.

        The only thing here that other threads call. Whatever is out of the ordinary is left to the
        loop.
        """
        if self._placement.is_inline or not self._waiting:
            return None
        cut = self._queue.cut(self._now_ns())
        return cut if isinstance(cut, Batch) else None

    # Answers come back.

    def _completed(self, batch: Batch, ran: Ran, instance: InstanceStatistics) -> None:
        """An instance has executed a batch."""
        # The instance first, then the answers: it should not stand idle while we write.
        if self._waiting:
            self._dispatch()
        started_ns, ended_ns = ran.started_ns, ran.ended_ns
        ready_ns = batch.inputs_ready_ns or started_ns
        computed_ns = batch.computed_ns or ended_ns
        times = (ready_ns - started_ns, computed_ns - ready_ns, ended_ns - computed_ns, instance)
        jobs = cast(Sequence[Job], batch.works)
        self.statistics.record_execution(started_ns, batch.rows, *times)
        if self.is_traced:
            for job in jobs:
                if job.request.trace is not None:
                    job.request.trace.executed(started_ns, ready_ns, computed_ns, ended_ns)
        outcomes = ran.outcomes
        failure = self._failure(ran.error, outcomes, len(jobs))
        if failure is not None:
            for job in jobs:
                self._settle(job, failure, started_ns, times)
        elif outcomes is not None:
            self._settle_all(jobs, outcomes, started_ns, times)
        if self._drained:
            self._tell_drained()

    def _settle_all(
        self,
        jobs: Sequence[Job],
        outcomes: Sequence[Outcome],
        started_ns: int,
        times: Times,
    ) -> None:
        try:
            for job, outcome in zip(jobs, outcomes, strict=True):
                if outcome is not None:
                    self._settle(job, outcome, started_ns, times)
        except Exception as exc:
            # Outcomes that are read only now may raise; whoever has none yet waits for one.
            log.exception("an outcome of model '%s' could not be read", self.name)
            for job in jobs:
                if job.is_running:
                    self._settle(job, as_model_failure(exc), started_ns, times)

    def _failure(
        self, error: Exception | None, outcomes: Sequence[Outcome] | None, wanted: int
    ) -> ModelportError | None:
        """Say what failed a whole batch, if anything did."""
        if error is not None:
            return as_model_failure(error)
        if outcomes is None:
            return None
        # Any sequence: a runtime may read its answers only when they are looked at.
        given = cast(object, outcomes)
        if not isinstance(given, Sequence) or isinstance(given, str | bytes):
            return ModelFailed(f"model '{self.name}' answered with a {type(outcomes).__name__}")
        if len(outcomes) != wanted:
            return ModelFailed(
                f"model '{self.name}' was given {wanted} requests and answered {len(outcomes)}"
            )
        return None

    def _settle(
        self,
        job: Job,
        outcome: Response | ModelportError,
        started_ns: int,
        times: Times,
    ) -> None:
        """Take the one outcome of a request; the model is done with it."""
        job.is_running = False
        if job.is_closed:
            self._forget(job)
        elif self._ordered is not None:
            job.outcome = (outcome, started_ns, times)
            self._flush_ordered()
        else:
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
        times: Times,
    ) -> None:
        if not isinstance(outcome, Response):
            self._fail(job, _as_error(outcome))
            return
        if self._reshaping is not None:
            try:
                outcome = self._reshaping.outputs(outcome)
            except ModelportError as exc:
                self._fail(job, exc)
                return
        enqueued_ns = job.enqueued_ns
        self.statistics.record_success(
            job.rows, self._now_ns() - enqueued_ns, started_ns - enqueued_ns, *times
        )
        self._close(job)
        self._push(job, outcome, True)

    def responded(self, job: Job, response: Response | ModelportError | None, final: bool) -> None:
        """A model gave a response through its sender."""
        if final:
            job.is_running = False
        if job.is_closed:
            if final:
                self._forget(job)
            return
        if final and response is not None and not self.is_decoupled:
            # An ordinary model's one answer, only by another way.
            started_ns = job.started_ns or job.enqueued_ns
            times = (0, self._now_ns() - started_ns, 0, self._only)
            if self.is_traced:
                self._note_run(job)
            self._settle(job, response, started_ns, times)
            return
        if isinstance(response, ModelportError):
            self._fail(job, response)
            return
        if response is not None and self._reshaping is not None:
            try:
                response = self._reshaping.outputs(response)
            except ModelportError as exc:
                self._fail(job, exc)
                return
        self._stream(job, response, final)

    def _stream(self, job: Job, response: Response | None, final: bool) -> None:
        now_ns = self._now_ns()
        if response is not None:
            if job.responses == 0:
                self.statistics.first_response_histogram.observe(now_ns - job.enqueued_ns)
            since_ns = job.responded_ns or job.started_ns or job.enqueued_ns
            self.statistics.record_response(job.responses, now_ns - since_ns)
            job.responded_ns = now_ns
            job.responses += 1
        if final:
            started_ns = job.started_ns or job.enqueued_ns
            enqueued_ns = job.enqueued_ns
            infer_ns = now_ns - started_ns
            times = (0, infer_ns, 0, self._only)
            self.statistics.record_success(
                job.rows, now_ns - enqueued_ns, started_ns - enqueued_ns, *times
            )
            if self.is_traced:
                self._note_run(job)
            self._close(job)
        if response is None:
            if final:
                self._record_stream_end(job, "empty_response")
                self._end(job)
        elif not self._push(job, response, final) and not final:
            job.pause()

    def _note_run(self, job: Job) -> None:
        """Note in its trace how a request ran that is over before ``execute`` has returned."""
        trace = job.request.trace
        if trace is not None and job.started_ns:
            now_ns = self._now_ns()
            trace.executed(job.started_ns, job.started_ns, now_ns, now_ns)

    def _push(self, job: Job, response: Response, final: bool) -> bool:
        try:
            keeps_up = job.sink.push(response, final)
        except Exception:
            # A bug in us, and not one that the others in the batch should pay for.
            log.exception("a response of model '%s' could not be handed on", self.name)
            error = ModelportError("internal error; the log of the server tells more")
            if job.is_closed:
                self._tell(job, error)
            else:
                self._fail(job, error)
            return True
        if final:
            job.sink = NOBODY
        return keeps_up

    def _end(self, job: Job) -> None:
        try:
            job.sink.end()
        except Exception:
            log.exception("the end of a stream of model '%s' could not be handed on", self.name)
        job.sink = NOBODY

    def _tell(self, job: Job, error: ModelportError) -> None:
        try:
            job.sink.fail(error)
        except Exception:
            log.exception("an error of model '%s' could not be handed on", self.name)
        job.sink = NOBODY

    def _fail(self, job: Job, error: ModelportError, reason: str = "") -> None:
        """Close a request with an error that its caller hears."""
        self._record_failure(job, reason or _REASONS.get(error.kind, "BACKEND"))
        if self.is_decoupled and job.started_ns:
            self._record_stream_end(job, "fail")
        if self.is_traced:
            self._note_run(job)
        self._close(job)
        self._tell(job, error)

    def _record_failure(self, job: Job, reason: str) -> None:
        self.statistics.record_failure(self._now_ns() - job.enqueued_ns, reason)

    def _record_stream_end(
        self, job: Job, how: Literal["fail", "empty_response", "cancel"]
    ) -> None:
        since_ns = job.responded_ns or job.started_ns or job.enqueued_ns
        self.statistics.record_stream_end(job.responses, how, self._now_ns() - since_ns)

    def _close(self, job: Job) -> None:
        """From here on the caller hears nothing more."""
        job.is_closed = True
        if job.deadline is not None:
            job.deadline.cancel()
        if job.is_running:
            job.stop()
            self._instances.cancel(job)
        else:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            if self._limit is not None:
                self._limit.in_use -= 1
        if self._drained:
            self._tell_drained()

    # Requests go away.

    def cancelled(self, job: Job) -> None:
        """A caller has gone: what it had queued will not run. Its sink hears nothing more."""
        self._queue.leave(job)
        self._record_failure(job, "CANCELED")
        if self.is_decoupled and job.started_ns:
            self._record_stream_end(job, "cancel")
        self._close(job)
        job.is_cancelled = True
        job.sink = NOBODY
        if self._ordered is not None:
            self._flush_ordered()

    def overran(self, job: Job) -> None:
        """A model sends on and on, and its caller does not read."""
        if not job.is_closed:
            self._fail(job, Cancelled("the caller did not read its stream"))

    def _pass_deadline(self, job: Job) -> None:
        if job.is_closed:
            return
        was_queued = self._queue.leave(job)
        error = TimedOut("the deadline of the request passed")
        self._fail(job, error, "REJECTED" if was_queued else "CANCELED")
        if self._ordered is not None:
            self._flush_ordered()

    def _watch_queue(self) -> None:
        earliest_ns = self._queue.earliest_ns
        if self._expiry is not None:
            if self._expiry_ns <= earliest_ns:
                return
            self._expiry.cancel()
        self._expiry_ns = earliest_ns
        delay_s = max(0.0, (earliest_ns - self._now_ns()) / 1e9)
        self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now_ns = self._now_ns()
        for job in self._queue.overdue(now_ns):
            waited_ms = (now_ns - job.queued_ns) / 1e6
            text = f"Request timeout expired; it had waited {waited_ms:.0f} ms in the queue"
            self._fail(job, QueueTimedOut(text))
        if self._ordered is not None:
            self._flush_ordered()
        if self._queue.earliest_ns:
            self._watch_queue()

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
        """Wait until no request is in flight and no instance executes anything.

        New requests are kept away by whoever calls this.
        """
        if self._is_idle():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drained.append(future)
        await future

    def _is_idle(self) -> bool:
        # A caller may have its end before the instance has come to the end of ``execute``.
        return not self._jobs and not self._instances.are_busy()

    def _tell_drained(self) -> None:
        if self._is_idle():
            waiting, self._drained = self._drained, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def close(self) -> None:
        """Fail what is still in flight, tell the models so, and let the threads go.

        New requests are refused. The runtimes are not unloaded: see ``wait_closed``.
        """
        self._is_closed = True
        self._queue.clear()
        for job in list(self._jobs):
            if not job.is_closed:
                self._fail(job, Unavailable("Server exiting"))
        for timer in (self._timer, self._expiry):
            if timer is not None:
                timer.cancel()
        self._instances.close()

    async def wait_closed(self) -> None:
        """Wait, after ``close``, until no thread is in the models any more: they may be unloaded.

        For ever, if a model never returns.
        """
        await self._instances.wait_closed()


def _as_error(outcome: object) -> ModelportError:
    if isinstance(outcome, ModelportError):
        return outcome
    return ModelFailed(f"the model answered with a {type(outcome).__name__}, not with a response")


def _execution(config: ModelConfig, options: EngineOptions) -> Execution:
    named = config.parameter("execution", options.execution)
    if named not in _OFFERED:
        offered = ", ".join(_OFFERED)
        raise LoadFailed(
            f"parameter execution of model '{config.name}' is '{named}'; offered are: {offered}"
        )
    # Instances in processes are started by the repository; what is left for ``process`` as the
    # server's default is all that is not Python.
    return "auto" if named == "process" else cast(Execution, named)


_OFFERED = ("auto", "inline", "thread", "process")

_REASONS = {
    Kind.OVERLOADED: "REJECTED",
    Kind.TIMEOUT: "REJECTED",
    Kind.CANCELLED: "CANCELED",
    Kind.INVALID: "OTHER",
    Kind.UNAVAILABLE: "OTHER",
}
