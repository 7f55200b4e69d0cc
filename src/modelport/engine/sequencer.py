"""Which sequence sits where, and what each instance executes next: decisions, without the waiting.

A sequence is a row of requests ("steps") to a model that remembers. It gets a seat, which is a slot
of one instance, and keeps it until it ends: so it never moves. Of each sequence one step is
executed at a time, in the order in which they came: so it never interleaves. Sequences that find
no seat wait in the order in which they began.

How a sequence ends and begins again:

- Its END has been executed, or was cancelled before that: the seat is free.
- Nobody has sent a step for the idle time: it is forgotten, and the next step must be a START.
- A START while it goes on begins it anew, in its seat; what came before is executed before.
- A START after its END is another sequence of the same name. It waits until the first is over, and
  then takes its turn among those that wait for a seat.
- Its instance forgets what it knew, because its process had to be started again: the sequence is
  over.
- A START that leaves before it is executed takes with it what stands behind it, up to the next
  START: a sequence that never began has no second step.

Any other step that leaves before it is executed is as if it had never been sent.

Source: Triton, "Sequence Batcher"; ``ModelSequenceBatching`` in ``model_config.proto``.
"""

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from modelport.engine.batcher import BatchPolicy, Wait, decide
from modelport.specs import ModelConfig

__all__ = ["Sequence", "SequencePolicy", "Sequencer", "Step"]


class Step(Protocol):
    """What the decisions need to know of a request."""

    rows: int
    batch_key: Hashable
    enqueued_ns: int
    starts: bool
    ends: bool
    sequence: "Sequence[Any] | None"


S = TypeVar("S", bound=Step)


class Sequence(Generic[S]):
    """One sequence.

    Attributes:
        key: What its steps are known by.
        owner: Who began it.
        instance: Where it sits; ``None`` while it waits for a seat.
        slot: Its place in the batch of that instance.
        waiting: Steps that are not executed yet, in order.
        running: The step that is being executed.
        is_open: Whether a step that is no START may follow.
        idle_since_ns: When it last had nothing to do.
        memory: What goes from one step to the next, for whoever executes them.
    """

    __slots__ = (
        "idle_since_ns",
        "instance",
        "is_open",
        "key",
        "memory",
        "owner",
        "running",
        "slot",
        "waiting",
    )

    def __init__(self, key: Hashable, owner: str) -> None:
        self.key = key
        self.owner = owner
        self.instance: int | None = None
        self.slot = 0
        self.waiting: deque[S] = deque()
        self.running: S | None = None
        self.is_open = False
        self.idle_since_ns = 0
        self.memory: Any = None

    def __repr__(self) -> str:
        seat = "no seat" if self.instance is None else f"seat {self.instance}.{self.slot}"
        return f"<Sequence {self.key!r} {seat} waiting={len(self.waiting)}>"

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it waits or runs."""
        return not self.waiting and self.running is None


class SequencePolicy(Struct, frozen=True):
    """How sequences are seated and batched.

    Attributes:
        seats: Of each instance.
        idle_ns: How long a sequence may have nothing to do before it is forgotten.
        batching: How the steps of different sequences share a batch, where any order will do;
            ``None`` where each has its place in the batch.
        max_delay_ns: With places: how long the first step may wait for the others.
        least_ready: With places: the share of them that is enough to wait no longer.
    """

    seats: int
    idle_ns: int
    batching: BatchPolicy | None = None
    max_delay_ns: int = 0
    least_ready: float = 0.0

    @classmethod
    def from_config(cls, config: ModelConfig) -> "SequencePolicy":
        """Read the policy from a complete configuration that has ``sequence_batching``."""
        given = config.sequence_batching
        assert given is not None
        most = max(1, config.max_batch_size)
        idle_ns = given.max_sequence_idle_microseconds * 1000
        oldest = given.oldest
        if oldest is not None:
            preferred = tuple(sorted(rows for rows in oldest.preferred_batch_size if rows < most))
            return cls(
                seats=oldest.max_candidate_sequences,
                idle_ns=idle_ns,
                batching=BatchPolicy(
                    max_rows=most,
                    preferred_rows=preferred,
                    max_delay_ns=oldest.max_queue_delay_microseconds * 1000,
                    joins=config.max_batch_size > 0,
                ),
            )
        direct = given.direct
        return cls(
            seats=most,
            idle_ns=idle_ns,
            max_delay_ns=0 if direct is None else direct.max_queue_delay_microseconds * 1000,
            least_ready=0.0 if direct is None else direct.minimum_slot_utilization,
        )


class Sequencer(Generic[S]):
    """The sequences of one version of one model, on the seats of its instances.

    Args:
        policy: How they are seated and batched.
        instances: How many there are.
    """

    def __init__(self, policy: SequencePolicy, instances: int) -> None:
        self._policy = policy
        self._sequence_by_key: dict[Hashable, Sequence[S]] = {}
        self._unseated: deque[Sequence[S]] = deque()
        self._seats = [_Seats(policy.seats) for _ in range(instances)]
        # What could be executed now, by instance; a dict for its order and its quick removal.
        self._ready: list[dict[Sequence[S], None]] = [{} for _ in range(instances)]
        self._running = [0] * instances

    def __repr__(self) -> str:
        return f"<Sequencer sequences={len(self._sequence_by_key)} unseated={len(self._unseated)}>"

    def __len__(self) -> int:
        return len(self._sequence_by_key)

    # Steps come and go.

    def find(self, key: Hashable, now_ns: int) -> Sequence[S] | None:
        """Give the sequence that is known by a key, unless it has been idle too long."""
        sequence = self._sequence_by_key.get(key)
        if sequence is not None and self._has_expired(sequence, now_ns):
            self._forget(sequence)
            return None
        return sequence

    def enter(self, step: S, key: Hashable, owner: str = "") -> None:
        """Take a step; without a START only for a sequence that ``find`` gives and is open."""
        sequence = self._sequence_by_key.get(key)
        if sequence is None:
            sequence = self._sequence_by_key[key] = Sequence(key, owner)
            self._unseated.append(sequence)
        assert step.starts or sequence.is_open
        step.sequence = sequence
        sequence.is_open = not step.ends
        sequence.waiting.append(step)
        self._seat()
        self._note_ready(sequence)

    def leave(self, step: S, now_ns: int) -> list[S]:
        """Take out a step that waits.

        Returns:
            Those that leave with it, because their START has.
        """
        sequence = step.sequence
        assert sequence is not None
        waiting = sequence.waiting
        position = waiting.index(step)
        del waiting[position]
        fallen: list[S] = []
        if step.starts:
            while position < len(waiting) and not waiting[position].starts:
                fallen.append(waiting[position])
                del waiting[position]
            if position == len(waiting):
                sequence.is_open = False
        self._settle(sequence, now_ns)
        return fallen

    # Steps are executed.

    def cut(self, instance: int, now_ns: int) -> "list[S | None] | Wait | None":
        """Say what an instance that is free executes next.

        Returns:
            The steps of a batch, with ``None`` for places that stay empty, and ``done`` or
            ``again`` is due for each of them; ``None`` if there are none.
        """
        ready = self._ready[instance]
        if not ready:
            return None
        chosen = (
            self._placed(instance, now_ns)
            if self._policy.batching is None
            else self._oldest(ready, self._policy.batching, now_ns)
        )
        if isinstance(chosen, Wait) or chosen is None:
            return chosen
        for sequence in chosen:
            del ready[sequence]
            sequence.running = sequence.waiting.popleft()
        self._running[instance] += len(chosen)
        if self._policy.batching is not None:
            return [sequence.running for sequence in chosen]
        places: list[S | None] = [None] * (1 + max(sequence.slot for sequence in chosen))
        for sequence in chosen:
            places[sequence.slot] = sequence.running
        return places

    def done(self, step: S, now_ns: int) -> None:
        """A step that was cut has been executed."""
        sequence = self._has_run(step)
        if step.ends and sequence.waiting:
            # Another sequence of the same name; others have waited longer.
            self._stand_up(sequence)
            self._unseated.append(sequence)
            self._seat()
        else:
            self._settle(sequence, now_ns)

    def again(self, step: S) -> None:
        """A step that was cut wants to be executed once more, before all others of its sequence."""
        sequence = self._has_run(step)
        sequence.waiting.appendleft(step)
        self._note_ready(sequence)

    def _has_run(self, step: S) -> "Sequence[S]":
        sequence = step.sequence
        assert sequence is not None
        assert sequence.running is step
        assert sequence.instance is not None
        sequence.running = None
        self._running[sequence.instance] -= 1
        return sequence

    def lose(self, instance: int, now_ns: int) -> list[S]:
        """End the sequences of an instance that has forgotten what it knew.

        Returns:
            Steps that leave because of it; those from the next START of a sequence on stay.
        """
        fallen: list[S] = []
        for sequence in list(self._sequence_by_key.values()):
            if sequence.instance != instance:
                continue
            waiting = sequence.waiting
            while waiting and not waiting[0].starts:
                fallen.append(waiting.popleft())
            if not waiting:
                sequence.is_open = False
            self._settle(sequence, now_ns)
        return fallen

    def expire(self, now_ns: int) -> int:
        """Forget the sequences that have had nothing to do for too long.

        Returns:
            When to ask again; 0 if no sequence is idle.
        """
        earliest_ns = 0
        for sequence in list(self._sequence_by_key.values()):
            if not sequence.is_idle:
                continue
            if self._has_expired(sequence, now_ns):
                self._forget(sequence)
                continue
            ends_ns = sequence.idle_since_ns + self._policy.idle_ns
            earliest_ns = min(earliest_ns, ends_ns) if earliest_ns else ends_ns
        return earliest_ns

    # What is chosen.

    def _oldest(
        self, ready: "dict[Sequence[S], None]", policy: BatchPolicy, now_ns: int
    ) -> "list[Sequence[S]] | Wait":
        ordered = sorted(ready, key=_waits_since)
        decision = decide([sequence.waiting[0] for sequence in ordered], policy, now_ns)
        return decision if isinstance(decision, Wait) else ordered[: decision.count]

    def _placed(self, instance: int, now_ns: int) -> "list[Sequence[S]] | Wait | None":
        policy = self._policy
        if self._running[instance]:
            # Models with places keep their memory by place, for one batch at a time.
            return None
        ready = self._ready[instance]
        first = min(ready, key=_waits_since).waiting[0]
        due_ns = first.enqueued_ns + policy.max_delay_ns
        if now_ns < due_ns and len(ready) < policy.least_ready * policy.seats:
            return Wait(due_ns)
        return [s for s in ready if s.waiting[0].batch_key == first.batch_key]

    # Seats.

    def _seat(self) -> None:
        while self._unseated:
            seats = max(self._seats, key=_count_free)
            if not seats.free:
                return
            sequence = self._unseated.popleft()
            sequence.instance = self._seats.index(seats)
            sequence.slot = seats.take()
            self._note_ready(sequence)

    def _stand_up(self, sequence: Sequence[S]) -> None:
        instance = sequence.instance
        if instance is None:
            self._unseated.remove(sequence)
        else:
            self._ready[instance].pop(sequence, None)
            self._seats[instance].give_back(sequence.slot)
        sequence.instance = None
        sequence.memory = None

    def _forget(self, sequence: Sequence[S]) -> None:
        del self._sequence_by_key[sequence.key]
        self._stand_up(sequence)
        self._seat()

    def _settle(self, sequence: Sequence[S], now_ns: int) -> None:
        """Let a sequence go on, be idle, or be over."""
        if not sequence.is_idle:
            self._note_ready(sequence)
        elif sequence.is_open:
            sequence.idle_since_ns = now_ns
            self._note_ready(sequence)
        else:
            self._forget(sequence)

    def _note_ready(self, sequence: Sequence[S]) -> None:
        if sequence.instance is None:
            return
        ready = self._ready[sequence.instance]
        if sequence.waiting and sequence.running is None:
            ready[sequence] = None
        else:
            ready.pop(sequence, None)

    def _has_expired(self, sequence: Sequence[S], now_ns: int) -> bool:
        return sequence.is_idle and now_ns - sequence.idle_since_ns >= self._policy.idle_ns


class _Seats:
    """The free slots of one instance; the lowest goes first, so that batches with places are short.

    Attributes:
        free: How many there are.
    """

    __slots__ = ("_given_back", "_unused", "free")

    def __init__(self, count: int) -> None:
        self.free = count
        self._unused = 0
        self._given_back: list[int] = []

    def take(self) -> int:
        """Give the lowest."""
        self.free -= 1
        if self._given_back:
            return heapq.heappop(self._given_back)
        self._unused += 1
        return self._unused - 1

    def give_back(self, slot: int) -> None:
        """Take one back."""
        self.free += 1
        heapq.heappush(self._given_back, slot)


def _count_free(seats: _Seats) -> int:
    return seats.free


def _waits_since(sequence: Sequence[Any]) -> int:
    since_ns: int = sequence.waiting[0].enqueued_ns
    return since_ns
