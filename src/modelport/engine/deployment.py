"""One version of one model, being served: how requests come through its queue to its instances.

An instance is reserved first and the batch is cut last: while all instances are busy the queue
grows, and what has come by the time one is free goes into its batch. What is decided here without
waiting stands in :mod:`~modelport.engine.admission` and :mod:`~modelport.engine.batcher`; how
answers come back, in :mod:`~modelport.engine.answering`.
"""

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from modelport.clock import Clock
from modelport.engine.admission import Admission
from modelport.engine.alarm import Alarm
from modelport.engine.answering import Answering
from modelport.engine.batcher import BatchPolicy, Wait
from modelport.engine.executor import SLOW_NS, Completions, Placement, Ran, failure_of
from modelport.engine.instances import Instance, Instances
from modelport.engine.job import NOBODY, Job
from modelport.engine.options import EngineOptions
from modelport.engine.priority_queue import queue_of
from modelport.engine.queue_policy import QueuePolicies
from modelport.errors import (
    Overloaded,
    QueueTimedOut,
    TimedOut,
    Unavailable,
)
from modelport.messages import Arguments, Request, Response, Sink, Ticket
from modelport.repository.loading import ModelVersion
from modelport.runtimes.base import Batch, RemoteRuntime
from modelport.specs import ModelConfig
from modelport.stats import InstanceStatistics

__all__ = ["Deployment"]


class Deployment(Answering):
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
        super().__init__(version, completions, clock)
        config = version.config
        self.source = version
        self.version = version.version
        self.config: ModelConfig = config
        self.config_json = version.config_json
        self.labels = version.labels
        self.memo: dict[str, Any] = {}
        self._clock = clock
        self._admission = Admission(config)
        self._placement = Placement(options.execution_of(config))
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
        if len(self.instances) == 1:
            self._only = self.statistics.instances[0]
        # Why all instances are down, while they are.
        self._down_text = ""
        self._is_closed = False
        self._wake = Alarm(clock.now_ns, self._dispatch)
        self._expiry = Alarm(clock.now_ns, self._expire)
        self._is_dispatching = False
        policy = BatchPolicy.from_config(config)
        self._needs_key = policy.joins
        policies = QueuePolicies.from_config(config)
        self._policies = policies if policies.tells_apart else None
        self._queue = queue_of(policy, policies, options.max_queue_size, self.statistics)
        self._waiting: Collection[Job] = self._queue.jobs
        self._could_skip_queue = (
            policy.max_delay_ns == 0
            and self._ordered is None
            and not self.is_decoupled
            and self._reshaping is None
        )
        self._may_skip_queue = self._could_skip_queue
        # Whether a queue of one would be cut at once.
        self._is_cut_at_once = policy.max_delay_ns == 0 and config.sequence_batching is None

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
        from modelport.engine.warmup import batch_of, check  # few models have such requests

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
        except BaseException as exc:
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
        if (
            self._is_cut_at_once
            and self._free
            and not (self._waiting or self._is_dispatching or self._placement.is_inline)
        ):
            # Nobody else waits, and an instance does: the queue would make this very batch.
            self._start_alone(job, now_ns)
            return
        if not self._queue.enter(job):
            self.statistics.record_failure(0, "REJECTED")
            raise self._overloaded(job)
        self._hold(job)
        if self._ordered is not None:
            self._ordered.append(job)
        if self._free:
            self._dispatch()
        if job.expires_ns and job.is_queued:
            self._expiry.set(self._queue.earliest_ns)

    def _start_alone(self, job: Job, now_ns: int) -> None:
        job.is_running = True
        job.started_ns = now_ns
        self._hold(job)
        if self._ordered is not None:
            self._ordered.append(job)
        self._instances.execute(Batch((job,), job.rows))

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
        # Models that run on the loop are done before ``execute`` returns, and who hears of it may
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
                self._wake.set(now_ns)
                return
            cut = self._queue.cut(now_ns)
            if isinstance(cut, Wait):
                self._wake.set(cut.until_ns)
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

    def _completed(self, batch: Batch, ran: Ran, instance: InstanceStatistics) -> None:
        """An instance has executed a batch."""
        # The instance first, then the answers: it should not stand idle while we write.
        if self._waiting:
            self._dispatch()
        super()._completed(batch, ran, instance)

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

    def _pass_deadline(self, job: Job) -> None:
        if job.is_closed:
            return
        was_queued = self._queue.leave(job)
        error = TimedOut("the deadline of the request passed")
        self._fail(job, error, "REJECTED" if was_queued else "CANCELED")
        if self._ordered is not None:
            self._flush_ordered()

    def _expire(self) -> None:
        self._expiry.cancel()
        now_ns = self._now_ns()
        for job in self._queue.overdue(now_ns):
            waited_ms = (now_ns - job.queued_ns) / 1e6
            text = f"Request timeout expired; it had waited {waited_ms:.0f} ms in the queue"
            self._fail(job, QueueTimedOut(text))
        if self._ordered is not None:
            self._flush_ordered()
        if self._queue.earliest_ns:
            self._expiry.set(self._queue.earliest_ns)

    # The end.

    def close(self) -> None:
        """Fail what is still in flight, tell the models so, and let the threads go.

        New requests are refused. The runtimes are not unloaded: see ``wait_closed``.
        """
        self._is_closed = True
        self._queue.clear()
        for job in list(self._jobs):
            if not job.is_closed:
                self._fail(job, Unavailable("Server exiting"))
        self._wake.cancel()
        self._expiry.cancel()
        self._instances.close()

    async def wait_closed(self) -> None:
        """Wait, after ``close``, until no thread is in the models any more: they may be unloaded.

        For ever, if a model never returns.
        """
        await self._instances.wait_closed()
