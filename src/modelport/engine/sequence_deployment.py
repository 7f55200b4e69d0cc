"""One version of a model that remembers: its requests belong to sequences.

A :class:`~modelport.engine.deployment.Deployment` whose queue is a
:class:`~modelport.engine.sequencer.Sequencer`. Everything happens on the event loop; threads do not
take batches by themselves, because what may run next is known only when a step is over.
"""

import asyncio
from collections.abc import Callable, Hashable
from collections.abc import Sequence as Sequence_
from itertools import count
from typing import Any, cast

from modelport.clock import Clock
from modelport.engine.batcher import BatchPolicy, Wait
from modelport.engine.deployment import Deployment
from modelport.engine.executor import SLOW_NS, Completions, Ran
from modelport.engine.instances import Instance
from modelport.engine.job import Job, Times
from modelport.engine.options import EngineOptions
from modelport.engine.queue import JobQueue
from modelport.engine.sequence_tensors import Controls, Memory, States, blank
from modelport.engine.sequencer import Sequence, SequencePolicy, Sequencer
from modelport.errors import (
    Cancelled,
    InvalidRequest,
    ModelFailed,
    ModelportError,
    Unavailable,
)
from modelport.messages import Request, Response, Sink, Tensors, Ticket
from modelport.repository.loading import ModelVersion
from modelport.runtimes.base import Batch
from modelport.stats import InstanceStatistics, ModelStatistics
from modelport.tensors import Tensor

__all__ = ["SequenceDeployment"]


class _SequenceJob(Job):
    """A request that is a step of a sequence.

    Attributes:
        key: What its sequence is known by.
        starts: Whether it begins its sequence; not any more once its model has seen it.
        ends: Whether its sequence is over after it.
        sequence: Set when it is queued.
        given: Its inputs as its caller sent them.
        wants_again: Whether its model wants to see it once more.
    """

    key: Hashable = None
    starts = False
    ends = False
    sequence: Sequence[Any] | None = None
    given: Sequence_[Tensor] = ()
    wants_again = False
    _key: Hashable = None

    @property
    def batch_key(self) -> Hashable:
        """What steps must have in common to share a batch: shapes, those of states included."""
        sequence = self.sequence
        if sequence is None or not cast(SequenceDeployment, self.deployment).states_vary:
            return self._key
        memory = cast(SequenceDeployment, self.deployment).memory_of(self)
        return self._key, tuple(array.shape for array in memory.values())

    @batch_key.setter
    def batch_key(self, key: Hashable) -> None:
        self._key = key

    def reschedule(self) -> None:
        """Have the model see the request again. See :class:`modelport.runtimes.base.Work`."""
        if not cast(SequenceDeployment, self.deployment).is_iterative:
            super().reschedule()
        self.wants_again = True


class SequenceDeployment(Deployment):
    """A version whose configuration has ``sequence_batching``.

    Attributes:
        is_iterative: Whether its model may ask to see a request again.
        states_vary: Whether states of different sequences may be of different shapes.
    """

    def __init__(
        self,
        version: ModelVersion,
        *,
        options: EngineOptions,
        completions: Completions,
        clock: Clock,
    ) -> None:
        super().__init__(version, options=options, completions=completions, clock=clock)
        config = version.config
        assert config.sequence_batching is not None
        self.is_iterative = config.sequence_batching.iterative_sequence
        policy = SequencePolicy.from_config(config)
        self._idle_s = policy.idle_ns / 1e9
        self._controls = Controls(config)
        self._states = States(config, version.initial_states)
        self.states_vary = self._states.vary
        instances = self._instances.all()
        self._instance_numbers = {instance: n for n, instance in enumerate(instances)}
        self._restarts = [0] * len(instances)
        self._sequencer: Sequencer[_SequenceJob] = Sequencer(policy, len(self._instance_numbers))
        self._steps = _StepQueue(
            self._sequencer, options.max_queue_size, self.statistics, self._now_ns, self._fail
        )
        self._queue = self._steps
        self._waiting = self._steps.waiting
        self._needs_key = config.max_batch_size > 0
        self._own_ids = count(1)
        self._idle_timer: asyncio.Handle | None = None

    # Steps come in.

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Take a step of a sequence, or raise.

        Raises:
            InvalidRequest: As for other models, and: it names no sequence, or one that has not been
                started, or has more than one row.
            Overloaded: The queue is full.
            TimedOut: Its deadline had passed before it came.
            Unavailable: The version has been closed.
        """
        rows = self._admission.rows(request)
        job = _SequenceJob(self, request, sink, rows, request.received_ns or self._now_ns())
        self._admit(job)
        self._enqueue(job)
        return job

    def _admit(self, job: _SequenceJob) -> None:
        request = job.request
        if job.rows != 1:
            raise InvalidRequest(
                f"inference request to model '{self.name}' must specify batch-size 1 due to "
                f"requirements of sequence batcher; got {job.rows} rows"
            )
        sequence_id = request.sequence_id
        if not sequence_id:
            if not self.is_iterative:
                raise InvalidRequest(
                    f"inference request to model '{self.name}' must specify a non-zero or "
                    "non-empty correlation ID; set the parameter sequence_id"
                )
            # Such a request is a sequence of its own, and is over with its last response.
            request.sequence_id = next(self._own_ids)
            request.sequence_start = job.starts = job.ends = True
            job.key = job
            return
        self._controls.check(sequence_id)
        job.key = sequence_id
        job.starts, job.ends = request.sequence_start, request.sequence_end
        sequence = self._sequencer.find(sequence_id, self._now_ns())
        if sequence is not None and sequence.owner != request.principal and job.starts:
            raise InvalidRequest(
                f"sequence id {_shown(sequence_id)} of model '{self.name}' is in use by another "
                "caller; choose another one"
            )
        is_open = sequence is not None and sequence.is_open and sequence.owner == request.principal
        if not (is_open or job.starts):
            raise InvalidRequest(
                f"inference request for sequence {_shown(sequence_id)} to model '{self.name}' must "
                "specify the START flag on the first request of the sequence; it has not been "
                f"started, has ended, or was idle for more than {self._idle_s:g} s"
            )

    # Steps go to instances.

    def _start_batches(self) -> None:
        pause_ns = self._now_ns() + SLOW_NS
        while self._waiting and self._free:
            now_ns = self._now_ns()
            if now_ns >= pause_ns:
                self._wake.set(now_ns)
                return
            due_ns = 0
            has_started = False
            for instance in tuple(self._free):
                cut = self._sequencer.cut(self._instance_numbers[instance], now_ns)
                if isinstance(cut, Wait):
                    due_ns = min(due_ns, cut.until_ns) if due_ns else cut.until_ns
                elif cut is not None:
                    self._execute(instance, cut, now_ns)
                    has_started = True
            if not has_started:
                if due_ns:
                    self._wake.set(due_ns)
                return

    def _execute(self, instance: Instance, steps: "list[_SequenceJob | None]", now_ns: int) -> None:
        jobs = [step for step in steps if step is not None]
        for job in jobs:
            self._steps.executes(job)
            job.is_running = True
            job.started_ns = job.started_ns or now_ns
            self._prepare(job)
        works = [self._stand_in(jobs[0]) if step is None else step for step in steps]
        # ``execute`` takes the last one.
        self._free.remove(instance)
        self._free.append(instance)
        self._instances.execute(Batch(works, len(works)))

    def _prepare(self, job: _SequenceJob) -> None:
        """Add what the sequence adds to the inputs of a step."""
        request = job.request
        sequence = cast("Sequence[_SequenceJob]", job.sequence)
        if not job.given:
            job.given = request.payload.tensors
        sequence.memory = self.memory_of(job)
        tensors: list[Tensor] = [*job.given]
        tensors += self._controls.tensors(
            request.sequence_id, starts=request.sequence_start, ends=request.sequence_end
        )
        if self._states:
            tensors += self._states.tensors(sequence.memory)
        request.payload = Tensors(tensors)

    def memory_of(self, job: _SequenceJob) -> Memory:
        """What a step is given of what its sequence remembers."""
        if job.starts:
            return self._states.begin()
        return cast(Memory, cast("Sequence[_SequenceJob]", job.sequence).memory)

    def _stand_in(self, other: _SequenceJob) -> _SequenceJob:
        """Make what fills an empty place of a batch: nobody hears what the model says of it."""
        tensors = blank(other.given)
        tensors += self._controls.tensors(0, starts=False, ends=False, is_ready=False)
        if self._states:
            tensors += blank(self._states.tensors(cast(Any, other.sequence).memory))
        request = Request(Tensors(tensors), outputs=other.request.outputs)
        job = _SequenceJob(self, request, other.sink, 1, other.enqueued_ns)
        job.is_running = job.is_closed = True
        return job

    def _freed(self) -> None:
        for instance, number in self._instance_numbers.items():
            remote = instance.remote
            if remote is not None and remote.restarts != self._restarts[number]:
                self._restarts[number] = remote.restarts
                # What goes from step to step as states is remembered here, and not lost with it.
                if not self._states:
                    self._steps.lose(number)
        super()._freed()

    def _take(self) -> Batch | None:
        return None

    # Steps are over.

    def _completed(self, batch: Batch, ran: Ran, instance: InstanceStatistics) -> None:
        super()._completed(batch, ran, instance)
        if self.is_iterative:
            for job in cast("list[_SequenceJob]", batch.works):
                if job.wants_again:
                    self._queue_again(job)
        self._dispatch()

    def _queue_again(self, job: _SequenceJob) -> None:
        job.wants_again = False
        if job.is_closed or not job.is_running:
            # Its caller has gone, or was answered for the last time: nothing is left to do.
            job.is_running = False
            self._forget(job)
            return
        job.is_running = job.starts = job.request.sequence_start = False
        self._steps.enter_again(job)

    def _settle(
        self,
        job: Job,
        outcome: Response | ModelportError,
        started_ns: int,
        times: Times,
    ) -> None:
        super()._settle(job, self._remembered(job, outcome), started_ns, times)

    def responded(self, job: Job, response: Response | ModelportError | None, final: bool) -> None:
        """A model gave a response through its sender."""
        if self.is_decoupled and response is not None:
            response = self._remembered(job, response)
        super().responded(job, response, final)
        if final:
            self._dispatch()

    def _remembered(
        self, job: Job, outcome: Response | ModelportError
    ) -> Response | ModelportError:
        """Keep the states of a response for the next step; give what its caller is to see."""
        sequence = cast(_SequenceJob, job).sequence
        if not self._states or sequence is None or not isinstance(outcome, Response):
            return outcome
        missing = self._states.missing(outcome)
        if missing is not None and not self.is_decoupled:
            return ModelFailed(f"model '{self.name}' did not give its state '{missing}'")
        try:
            sequence.memory = self._states.remember(cast(Memory, sequence.memory), outcome)
        except ModelFailed as exc:
            return exc
        return self._states.without(outcome, job.request.outputs)

    def _forget(self, job: Job) -> None:
        step = cast(_SequenceJob, job)
        if step.sequence is not None and step.sequence.running is step:
            self._sequencer.done(step, self._now_ns())
            self._watch_idle()
        super()._forget(job)

    # Steps go away.

    def cancelled(self, job: Job) -> None:
        """A caller has gone; what follows for its sequence stands with the sequencer."""
        super().cancelled(job)
        self._dispatch()

    def _pass_deadline(self, job: Job) -> None:
        super()._pass_deadline(job)
        self._dispatch()

    def _watch_idle(self) -> None:
        if self._idle_timer is None and len(self._sequencer) and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._idle_s, self._forget_idle)

    def _forget_idle(self) -> None:
        self._idle_timer = None
        now_ns = self._now_ns()
        again_ns = self._sequencer.expire(now_ns)
        if again_ns:
            loop = asyncio.get_running_loop()
            delay_s = (again_ns - now_ns) / 1e9
            self._idle_timer = loop.call_later(delay_s, self._forget_idle)
        self._dispatch()

    def close(self) -> None:
        """Fail what is still in flight, and forget all sequences."""
        super().close()
        if self._idle_timer is not None:
            self._idle_timer.cancel()


class _StepQueue(JobQueue):
    """Counts the steps that wait; which of them is next is the sequencer's to say.

    Attributes:
        waiting: To be looked at only.
    """

    def __init__(
        self,
        sequencer: Sequencer[_SequenceJob],
        most: int,
        statistics: ModelStatistics,
        now_ns: Callable[[], int],
        fall: Callable[[Job, ModelportError], None],
    ) -> None:
        super().__init__(BatchPolicy(max_rows=1), most, statistics)
        self.waiting: dict[Job, None] = {}
        self._sequencer = sequencer
        self._now_ns = now_ns
        self._fall = fall

    def __repr__(self) -> str:
        return f"<StepQueue waiting={len(self.waiting)} of {self._most} {self._sequencer}>"

    def enter(self, job: Job) -> bool:
        """Put a step at the end of its sequence. Returns whether there was room."""
        step = cast(_SequenceJob, job)
        if len(self.waiting) >= self._most:
            return False
        self._waits(step)
        self._sequencer.enter(step, step.key, step.request.principal)
        return True

    def enter_again(self, step: _SequenceJob) -> None:
        """Put a step that was executed before the others of its sequence."""
        self._waits(step)
        self._sequencer.again(step)

    def executes(self, step: _SequenceJob) -> None:
        """A step is executed now."""
        self._leaves(step)

    def leave(self, job: Job) -> bool:
        """Take a step out, and fail those that cannot be without it. Returns whether it waited."""
        if not job.is_queued:
            return False
        step = cast(_SequenceJob, job)
        self._leaves(step)
        shown = _shown(step.request.sequence_id)
        for fallen in self._sequencer.leave(step, self._now_ns()):
            self._leaves(fallen)
            text = f"the first request of sequence {shown} was cancelled, and this one with it"
            self._fall(fallen, Cancelled(f"{text}; start the sequence again"))
        return True

    def lose(self, instance: int) -> None:
        """End the sequences of an instance that has forgotten what it knew."""
        for fallen in self._sequencer.lose(instance, self._now_ns()):
            self._leaves(fallen)
            shown = _shown(fallen.request.sequence_id)
            text = f"what the model knew of sequence {shown} was lost with its process"
            self._fall(fallen, Unavailable(f"{text}; start the sequence again"))

    def clear(self) -> None:
        """Take everybody out."""
        for job in tuple(self.waiting):
            self._leaves(cast(_SequenceJob, job))

    def _waits(self, step: _SequenceJob) -> None:
        step.is_queued = True
        self.waiting[step] = None
        self._statistics.pending += 1

    def _leaves(self, step: _SequenceJob) -> None:
        step.is_queued = False
        del self.waiting[step]
        self._statistics.pending -= 1


def _shown(sequence_id: int | str) -> str:
    return f"'{sequence_id[:80]}'" if isinstance(sequence_id, str) else str(sequence_id)
