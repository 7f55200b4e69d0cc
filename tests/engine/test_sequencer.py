import random
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pytest

from modelport.engine.batcher import BatchPolicy, Wait
from modelport.engine.sequencer import Sequence, SequencePolicy, Sequencer
from modelport.specs import Direct, ModelConfig, Oldest, SequenceBatching


@dataclass(eq=False)
class Step:
    name: str
    starts: bool = False
    ends: bool = False
    enqueued_ns: int = 0
    rows: int = 1
    batch_key: Hashable = None
    sequence: Sequence[Any] | None = None

    def __repr__(self) -> str:
        return self.name


def direct(seats: int = 2, **more: Any) -> SequencePolicy:
    return SequencePolicy(seats=seats, idle_ns=1000, **more)


def oldest(seats: int = 2, most: int = 4, delay_ns: int = 0) -> SequencePolicy:
    batching = BatchPolicy(max_rows=most, max_delay_ns=delay_ns, joins=most > 1)
    return SequencePolicy(seats=seats, idle_ns=1000, batching=batching)


class Bench:
    """A sequencer whose steps are known by name: ``a1`` is the first of sequence ``a``."""

    def __init__(self, policy: SequencePolicy, instances: int = 1) -> None:
        self.sequencer: Sequencer[Step] = Sequencer(policy, instances)
        self.steps: dict[str, Step] = {}

    def enter(self, *names: str, now_ns: int = 0, key: object = None) -> None:
        """``a1`` begins and ``a9`` ends a sequence."""
        for name in names:
            step = Step(name, name[1] == "1", name[1] == "9", now_ns, batch_key=key)
            self.steps[name] = step
            self.sequencer.enter(step, name[0])

    def cut(self, instance: int = 0, now_ns: int = 0) -> str | int | None:
        """Names of the steps, ``-`` for an empty place; a number is a time to wait for."""
        cut = self.sequencer.cut(instance, now_ns)
        if isinstance(cut, Wait):
            return cut.until_ns
        return cut if cut is None else " ".join("-" if s is None else s.name for s in cut)

    def done(self, *names: str, now_ns: int = 0) -> None:
        for name in names:
            self.sequencer.done(self.steps[name], now_ns)

    def leave(self, name: str, now_ns: int = 0) -> list[str]:
        return [step.name for step in self.sequencer.leave(self.steps[name], now_ns)]

    def is_open(self, key: str, now_ns: int = 0) -> bool:
        sequence = self.sequencer.find(key, now_ns)
        return sequence is not None and sequence.is_open


def test_the_policy_is_read_from_the_configuration() -> None:
    sequences = SequenceBatching(
        max_sequence_idle_microseconds=5,
        oldest=Oldest(
            max_candidate_sequences=7, preferred_batch_size=(4, 2), max_queue_delay_microseconds=3
        ),
    )
    config = ModelConfig(name="m", max_batch_size=4, sequence_batching=sequences)
    assert SequencePolicy.from_config(config) == SequencePolicy(
        seats=7,
        idle_ns=5000,
        batching=BatchPolicy(max_rows=4, preferred_rows=(2,), max_delay_ns=3000, joins=True),
    )
    sequences = SequenceBatching(
        max_sequence_idle_microseconds=5,
        direct=Direct(max_queue_delay_microseconds=3, minimum_slot_utilization=0.5),
    )
    config = ModelConfig(name="m", max_batch_size=4, sequence_batching=sequences)
    assert SequencePolicy.from_config(config) == SequencePolicy(
        seats=4, idle_ns=5000, max_delay_ns=3000, least_ready=0.5
    )


@pytest.mark.parametrize("policy", [direct(), oldest()])
def test_steps_of_a_sequence_are_executed_one_at_a_time_and_in_order(policy: Any) -> None:
    bench = Bench(policy)
    bench.enter("a1", "a2", "a9")
    for name in ("a1", "a2", "a9"):
        assert bench.cut() == name
        assert bench.cut() is None
        bench.done(name)
    assert len(bench.sequencer) == 0


def test_steps_of_different_sequences_share_a_batch() -> None:
    bench = Bench(oldest(seats=4))
    bench.enter("a1", "b1", "a2", "c1")
    assert bench.cut() == "a1 b1 c1"
    bench.done("a1", "b1", "c1")
    assert bench.cut() == "a2"


def test_the_step_that_came_first_goes_first() -> None:
    bench = Bench(oldest(seats=4, most=1))
    bench.enter("a1", now_ns=1)
    bench.enter("b1", "b2", now_ns=2)
    bench.enter("a2", now_ns=3)
    order = []
    while (name := bench.cut()) is not None:
        order.append(name)
        bench.done(str(name))
    assert order == ["a1", "b1", "b2", "a2"]


def test_the_oldest_wait_for_company() -> None:
    bench = Bench(oldest(seats=4, most=2, delay_ns=10))
    bench.enter("a1", now_ns=5)
    assert bench.cut(now_ns=6) == 15
    bench.enter("b1", now_ns=7)
    assert bench.cut(now_ns=8) == "a1 b1"
    bench.enter("a2", now_ns=9)
    bench.done("a1", "b1")
    assert bench.cut(now_ns=20) == "a2"


def test_steps_of_different_shapes_do_not_share_a_batch() -> None:
    for policy, second in ((oldest(4), "b1"), (direct(4), "- b1")):
        bench = Bench(policy)
        bench.enter("a1", key=(3,))
        bench.enter("b1", key=(4,))
        assert bench.cut() == "a1"
        bench.done("a1")
        assert bench.cut() == second


def test_places_in_the_batch_are_kept() -> None:
    bench = Bench(direct(4))
    bench.enter("a1", "b1", "c1")
    assert bench.cut() == "a1 b1 c1"
    bench.done("a1", "b1", "c1")
    bench.enter("c2")
    assert bench.cut() == "- - c2"
    bench.done("c2")
    bench.enter("a9")
    assert bench.cut() == "a9"
    bench.done("a9")
    bench.enter("d1", "b2")
    assert bench.cut() == "d1 b2"


def test_models_with_places_have_one_batch_at_a_time() -> None:
    bench = Bench(direct(4))
    bench.enter("a1")
    assert bench.cut() == "a1"
    bench.enter("b1")
    assert bench.cut() is None
    bench.done("a1")
    assert bench.cut() == "- b1"


def test_a_batch_with_places_waits_until_enough_of_them_are_ready() -> None:
    bench = Bench(direct(4, max_delay_ns=100, least_ready=0.5))
    bench.enter("a1", now_ns=10)
    assert bench.cut(now_ns=20) == 110
    bench.enter("b1", now_ns=30)
    assert bench.cut(now_ns=40) == "a1 b1"
    bench.done("a1", "b1")
    bench.enter("a2", now_ns=50)
    assert bench.cut(now_ns=149) == 150
    assert bench.cut(now_ns=150) == "a2"


def test_sequences_wait_for_a_seat_in_the_order_in_which_they_began() -> None:
    bench = Bench(direct(1))
    bench.enter("a1", "b1", "c1", "b9")
    assert bench.cut() == "a1"
    bench.done("a1")
    assert bench.cut() is None
    bench.enter("a9")
    assert bench.cut() == "a9"
    bench.done("a9")
    assert bench.cut() == "b1"
    bench.done("b1")
    assert bench.cut() == "b9"
    bench.done("b9")
    assert bench.cut() == "c1"


def test_sequences_are_spread_over_instances_and_stay_where_they_are() -> None:
    bench = Bench(direct(2), instances=2)
    bench.enter("a1", "b1", "c1", "d1", "e1")
    assert (bench.cut(0), bench.cut(1)) == ("a1 c1", "b1 d1")
    bench.done("a1", "b1", "c1", "d1")
    bench.enter("a2", "c9", "b2", "d2")
    assert (bench.cut(0), bench.cut(1)) == ("a2 c9", "b2 d2")
    bench.done("a2", "c9", "b2", "d2")
    assert (bench.cut(0), bench.cut(1)) == ("- e1", None)


def test_a_start_begins_a_sequence_anew_in_its_seat() -> None:
    bench = Bench(direct(2))
    bench.enter("a1", "b1")
    assert bench.cut() == "a1 b1"
    bench.done("a1", "b1")
    bench.enter("a1")
    assert bench.cut() == "a1"


def test_a_start_after_the_end_waits_its_turn() -> None:
    bench = Bench(direct(1))
    bench.enter("a1", "b1", "a9")
    first = bench.cut()
    bench.done("a1")
    bench.enter("a1", "a2")
    assert (first, bench.cut()) == ("a1", "a9")
    bench.done("a9")
    assert bench.cut() == "b1"
    bench.done("b1")
    bench.enter("b9")
    assert bench.cut() == "b9"
    bench.done("b9")
    assert bench.cut() == "a1"


def test_after_its_end_a_sequence_is_not_open() -> None:
    bench = Bench(direct())
    assert not bench.is_open("a")
    bench.enter("a1")
    assert bench.is_open("a")
    bench.enter("a9")
    assert not bench.is_open("a")
    bench.enter("a1")
    assert bench.is_open("a")


def test_a_sequence_that_is_idle_is_forgotten_and_its_seat_given_away() -> None:
    bench = Bench(direct(1))
    bench.enter("a1")
    bench.enter("b1")
    assert bench.sequencer.expire(5000) == 0, "it waits for an instance, which is not being idle"
    bench.cut()
    assert bench.sequencer.expire(6000) == 0, "it is executed, which is not being idle"
    bench.done("a1", now_ns=6000)
    assert bench.is_open("a", now_ns=6999)
    assert bench.sequencer.expire(6500) == 7000
    assert bench.sequencer.expire(7000) == 0
    assert not bench.is_open("a", now_ns=7000)
    assert bench.cut() == "b1"


def test_who_looks_for_an_idle_sequence_does_not_find_it() -> None:
    bench = Bench(direct(1))
    bench.enter("a1", "b1")
    bench.cut()
    bench.done("a1", now_ns=10)
    assert bench.sequencer.find("a", 1010) is None
    assert bench.cut() == "b1"


def test_a_step_that_leaves_is_as_if_never_sent() -> None:
    bench = Bench(oldest())
    bench.enter("a1", "a2", "a3")
    assert bench.leave("a2") == []
    assert bench.cut() == "a1"
    bench.done("a1")
    assert bench.cut() == "a3"
    bench.done("a3")
    assert bench.is_open("a")


def test_a_start_that_leaves_takes_its_steps_with_it() -> None:
    bench = Bench(oldest(seats=1))
    bench.enter("a1", "a2", "a3", "b1")
    assert bench.leave("a1") == ["a2", "a3"]
    assert not bench.is_open("a")
    assert bench.cut() == "b1"
    bench.enter("c1", "c2")
    assert bench.leave("c1") == ["c2"], "also while it waits for a seat"
    assert len(bench.sequencer) == 1


def test_a_start_that_leaves_spares_the_sequence_that_comes_after_it() -> None:
    bench = Bench(oldest())
    bench.enter("a1", "a2")
    first = bench.steps["a1"]
    bench.enter("a1", "a3")
    assert [step.name for step in bench.sequencer.leave(first, 0)] == ["a2"]
    assert bench.is_open("a")
    assert bench.cut() == "a1"


def test_an_end_that_leaves_ends_the_sequence() -> None:
    bench = Bench(oldest(seats=1))
    bench.enter("a1", "a9", "b1")
    assert bench.cut() == "a1"
    assert bench.leave("a9") == []
    bench.done("a1")
    assert not bench.is_open("a")
    assert bench.cut() == "b1"
    bench.done("b1")
    bench.enter("b9")
    assert bench.leave("b9") == []
    assert len(bench.sequencer) == 0


def test_a_step_may_come_again_before_the_others_of_its_sequence() -> None:
    bench = Bench(oldest(seats=1))
    bench.enter("a1", "a2", "b1")
    assert bench.cut() == "a1"
    bench.sequencer.again(bench.steps["a1"])
    assert bench.cut() == "a1"
    bench.done("a1")
    assert bench.cut() == "a2"


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_sequences_neither_move_nor_interleave(seed: int) -> None:
    """Random steps, cancels, ends, silences: each sequence sees its own steps, in order."""
    dice = random.Random(seed)
    seats, instances = dice.choice([1, 2, 5]), dice.choice([1, 3])
    policy = direct(seats) if seed % 2 else oldest(seats, most=dice.choice([1, 3]))
    bench = Bench(policy, instances)
    sequencer = bench.sequencer
    waiting: list[Step] = []
    running: list[tuple[int, Step]] = []
    expected: dict[str, list[Step]] = {}
    seat: dict[int, tuple[int, int]] = {}
    executed = 0
    now_ns = 0
    for _ in range(2000):
        now_ns += dice.randrange(20)
        match dice.choice(["enter", "enter", "cut", "cut", "done", "done", "leave", "idle"]):
            case "enter":
                key = dice.choice("abcdefgh")
                found = sequencer.find(key, now_ns)
                starts = found is None or not found.is_open or dice.random() < 0.05
                step = Step(key, starts, dice.random() < 0.2, now_ns)
                sequencer.enter(step, key)
                waiting.append(step)
                expected.setdefault(key, []).append(step)
            case "cut":
                instance = dice.randrange(instances)
                cut = sequencer.cut(instance, now_ns)
                assert not isinstance(cut, Wait)
                for slot, step_or_gap in enumerate(cut or ()):
                    if step_or_gap is None:
                        continue
                    step = step_or_gap
                    assert expected[step.name].pop(0) is step, "out of order"
                    sequence = step.sequence
                    assert sequence is not None
                    assert all(other.sequence is not sequence for _, other in running)
                    if step.starts:
                        seat.pop(id(sequence), None)
                    here = (instance, slot if policy.batching is None else sequence.slot)
                    assert seat.setdefault(id(sequence), here) == here, "moved"
                    waiting.remove(step)
                    running.append((instance, step))
                    executed += 1
                on_seats = [s for i, s in running if i == instance]
                assert len(on_seats) <= seats
            case "done" if running:
                _, step = running.pop(dice.randrange(len(running)))
                sequencer.done(step, now_ns)
            case "leave" if waiting and dice.random() < 0.3:
                step = dice.choice(waiting)
                for gone in [step, *sequencer.leave(step, now_ns)]:
                    waiting.remove(gone)
                    expected[gone.name].remove(gone)
            case "idle" if dice.random() < 0.05:
                now_ns += 2000
                sequencer.expire(now_ns)
    # Nothing is stuck: what still waits is executed, and then everything is forgotten.
    for _ in range(10_000):
        for _, step in running:
            sequencer.done(step, now_ns)
        running.clear()
        for instance in range(instances):
            cut = sequencer.cut(instance, now_ns)
            assert not isinstance(cut, Wait)
            running += [(instance, step) for step in cut or () if step is not None]
        for _, step in running:
            waiting.remove(step)
        if not running:
            if not waiting:
                break
            now_ns += 2000
            sequencer.expire(now_ns)
    assert waiting == []
    sequencer.expire(now_ns + 2000)
    assert len(sequencer) == 0
    assert executed > 100


def test_an_instance_that_forgets_ends_its_sequences() -> None:
    bench = Bench(direct(2), instances=2)
    bench.enter("a1", "b1", "c1", "d1")
    assert (bench.cut(0), bench.cut(1)) == ("a1 c1", "b1 d1")
    bench.done("a1", "b1", "d1")
    bench.enter("c2", "b2", "e1")
    anew = Step("c1", starts=True)
    bench.sequencer.enter(anew, "c")
    assert [step.name for step in bench.sequencer.lose(0, 0)] == ["c2"]
    assert not bench.is_open("a")
    assert bench.is_open("b")
    assert bench.is_open("c")
    bench.done("c1")
    assert bench.cut(0) == "e1 c1", "e in the seat of a, and c begins anew in its own"
