"""The requests that one version has under way, until their callers have all that they are to hear.

A batch comes back from an instance, or a response from a model's sender; what follows is counted,
written into the trace, given its outer shape, put in order where the model wants it, and told to
the sink, and the request is closed. This file does not know how requests come to an instance: that
is :mod:`~modelport.engine.deployment`.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, cast

from modelport.clock import Clock
from modelport.engine.executor import Completions, Ran
from modelport.engine.instances import Instances
from modelport.engine.job import NOBODY, Job, Times
from modelport.engine.reshape import Reshaping
from modelport.errors import (
    INTERNAL_ERROR,
    Cancelled,
    Kind,
    ModelFailed,
    ModelportError,
    WorkerDied,
)
from modelport.messages import Response
from modelport.repository.loading import ModelVersion
from modelport.runtimes.base import Batch, Outcome, as_model_failure
from modelport.stats import InstanceStatistics, ModelStatistics

__all__ = ["Answering"]

log = logging.getLogger("modelport.engine")


class Answering:
    """The part of a deployment that answers; see :class:`~modelport.engine.deployment.Deployment`.

    The parts are one object, one class on top of the other: every request passes between them.
    """

    # Made by the class on top, which says what is to be executed.
    _instances: Instances

    def __init__(self, version: ModelVersion, completions: Completions, clock: Clock) -> None:
        config = version.config
        self.name = version.name
        self.statistics = ModelStatistics(
            load_s=version.load_s, first_response_buckets_ms=config.first_response_buckets_ms
        )
        self.completions = completions
        self.send_lock = threading.Lock()
        self.is_decoupled = config.is_decoupled
        self.is_traced = False
        self._now_ns = clock.now_ns
        self._limit = version.limit
        self._reshaping = Reshaping.of(config)
        # All that were admitted and are not over, but for those that are answered at once.
        self._jobs: set[Job] = set()
        # Whose the responses are that come without an execution, where that is known.
        self._only: InstanceStatistics | None = None
        # Streams are in order by themselves, and do not wait for one another.
        dynamic = config.dynamic_batching
        is_ordered = dynamic is not None and dynamic.preserve_ordering and not self.is_decoupled
        self._ordered: deque[Job] | None = deque() if is_ordered else None
        self._drained: list[asyncio.Future[None]] = []

    @property
    def in_flight(self) -> int:
        """Requests that were admitted and are not over."""
        return len(self._jobs)

    # A batch comes back.

    def _completed(self, batch: Batch, ran: Ran, instance: InstanceStatistics) -> None:
        """An instance has executed a batch."""
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

    # A model responds by itself.

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

    def overran(self, job: Job) -> None:
        """A model sends on and on, and its caller does not read."""
        if not job.is_closed:
            self._fail(job, Cancelled("the caller did not read its stream"))

    # The caller hears of it.

    def _push(self, job: Job, response: Response, final: bool) -> bool:
        try:
            keeps_up = job.sink.push(response, final)
        except Exception:
            # A bug in us, and not one that the others in the batch should pay for.
            log.exception("a response of model '%s' could not be handed on", self.name)
            error = ModelFailed(INTERNAL_ERROR)
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
            self._tell(job, ModelFailed(INTERNAL_ERROR))
        job.sink = NOBODY

    def _tell(self, job: Job, error: ModelportError) -> None:
        try:
            job.sink.fail(error)
        except Exception:
            log.exception("an error of model '%s' could not be handed on", self.name)
        job.sink = NOBODY

    def _fail(self, job: Job, error: ModelportError, reason: str = "") -> None:
        """Close a request with an error that its caller hears."""
        self._record_failure(job, reason or _reason(error))
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

    # Requests are over.

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


def _as_error(outcome: object) -> ModelportError:
    if isinstance(outcome, ModelportError):
        return outcome
    return ModelFailed(f"the model answered with a {type(outcome).__name__}, not with a response")


def _reason(error: ModelportError) -> str:
    """Say by Triton's reasons why a request failed."""
    kind = error.kind
    if isinstance(error, ModelFailed | WorkerDied) and kind is not Kind.CANCELLED:
        # Whatever code the model gave its error: it is the model that failed.
        return "BACKEND"
    return _REASONS.get(kind, "BACKEND")


_REASONS: Final = {
    Kind.OVERLOADED: "REJECTED",
    Kind.TIMEOUT: "REJECTED",
    Kind.CANCELLED: "CANCELED",
    Kind.INVALID: "OTHER",
    Kind.UNAVAILABLE: "OTHER",
}
