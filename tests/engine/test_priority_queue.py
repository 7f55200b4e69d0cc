"""Who goes first, who is refused and who steps back; with time as a number."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.engine.batcher import BatchPolicy, Cut, Wait, decide_among_levels
from modelport.engine.job import Job
from modelport.engine.priority_queue import PriorityQueue, queue_of
from modelport.engine.queue import JobQueue
from modelport.engine.queue_policy import Limits, QueuePolicies
from modelport.runtimes.base import Batch
from modelport.stats import ModelStatistics

from .conftest import request

REJECT, DELAY = Limits(timeout_ns=100), Limits(timeout_ns=100, delays=True)


class Line:
    """A queue with levels, and what has become of those who entered it."""

    def __init__(
        self,
        policies: QueuePolicies | None = None,
        batches: BatchPolicy | None = None,
        most: int = 100,
    ) -> None:
        self.policies = policies or QueuePolicies(levels=3, default_level=2)
        self.statistics = ModelStatistics()
        batches = batches or BatchPolicy(4, joins=True)
        self.queue = PriorityQueue(batches, self.policies, most, self.statistics)

    def enter(self, name: float, priority: int = 0, now_ns: int = 0) -> Job | None:
        job = Job(
            cast(Any, SimpleNamespace(name="m")), request(name), cast(Any, None), 1, now_ns=now_ns
        )
        job.level = self.policies.level_of(priority)
        timeout_ns = self.policies.limits_of(job.level).timeout_ns
        job.expires_ns = now_ns + timeout_ns if timeout_ns else 0
        return job if self.queue.enter(job) else None

    def cut(self, now_ns: int = 0) -> list[float]:
        while self.queue.is_overdue(now_ns):
            self.queue.overdue(now_ns)
        batch = self.queue.cut(now_ns)
        assert isinstance(batch, Batch)
        return names(batch.works)


def names(jobs: Any) -> list[float]:
    return [float(job.request.id) for job in jobs]


def test_higher_levels_go_first_and_each_in_order() -> None:
    line = Line()
    for name, priority in enumerate((3, 0, 1, 3, 1, 2)):
        line.enter(name, priority)
    # A batch that has room is filled up from the next level.
    assert line.cut() == [2, 4, 1, 5]
    assert line.cut() == [0, 3]
    assert line.statistics.pending == 0


def test_model_without_levels_has_the_simple_queue() -> None:
    statistics = ModelStatistics()
    assert type(queue_of(BatchPolicy(1), QueuePolicies(), 5, statistics)) is JobQueue
    bounded = queue_of(BatchPolicy(1), QueuePolicies(default=Limits(most=3)), 5, statistics)
    assert repr(bounded) == "<JobQueue waiting=0 of 3>"
    delaying = queue_of(BatchPolicy(1), QueuePolicies(default=DELAY), 5, statistics)
    assert isinstance(delaying, PriorityQueue)


def test_low_priority_is_not_kept_waiting_for_company_by_higher_ones() -> None:
    """The batch goes when its oldest request has waited long enough, wherever that stands."""
    line = Line(batches=BatchPolicy(4, max_delay_ns=50, joins=True))
    line.enter(0, priority=3, now_ns=0)
    line.enter(1, priority=1, now_ns=40)
    assert line.queue.cut(49) == Wait(50)
    assert line.cut(50) == [1, 0]


def test_who_is_rejected_is_taken_out_and_who_is_delayed_steps_back() -> None:
    policies = QueuePolicies(2, 1, default=REJECT, by_level={2: DELAY})
    line = Line(policies, BatchPolicy(1, joins=True))
    line.enter(0, priority=1)
    line.enter(1, priority=2)
    line.enter(2, priority=2)
    line.enter(3, priority=2, now_ns=90)
    assert line.queue.is_overdue(100)
    assert names(line.queue.overdue(100)) == [0]
    assert line.statistics.pending == 3
    line.enter(4, priority=2, now_ns=100)
    assert [line.cut(100) for _ in range(4)] == [[3], [4], [1], [2]]


def test_delayed_ones_go_before_lower_levels_and_in_the_order_in_which_they_were_late() -> None:
    line = Line(QueuePolicies(2, 1, default=DELAY), BatchPolicy(1, joins=True))
    for name, (priority, now_ns) in enumerate([(1, 0), (2, 50), (1, 10), (1, 60)]):
        line.enter(name, priority, now_ns)
    assert line.queue.overdue(100) == []
    assert line.queue.overdue(110) == []
    assert line.queue.earliest_ns == 150
    assert [line.cut(110) for _ in range(4)] == [[3], [0], [2], [1]]


def test_nobody_is_late_twice() -> None:
    line = Line(QueuePolicies(default=DELAY))
    line.enter(0)
    assert line.queue.overdue(100) == []
    assert not line.queue.is_overdue(10**9)
    assert line.cut(10**9) == [0]


def test_levels_have_their_own_bounds_and_the_others_share_the_operators() -> None:
    policies = QueuePolicies(3, 3, by_level={1: Limits(most=1)})
    line = Line(policies, most=2)
    first = line.enter(0, priority=1)
    assert first is not None
    assert line.queue.most_like(first) == 1
    assert line.enter(1, priority=1) is None
    second = line.enter(2, priority=2)
    assert second is not None
    assert line.queue.most_like(second) == 2
    assert line.enter(3, priority=3) is not None
    assert line.enter(4, priority=2) is None
    assert line.queue.leave(second)
    assert not line.queue.leave(second)
    assert line.enter(5, priority=3) is not None
    assert line.cut() == [0, 3, 5]
    assert line.enter(6, priority=1) is not None
    line.queue.clear()
    assert line.statistics.pending == 0
    assert line.enter(7, priority=1) is not None


def test_decision_among_levels_is_the_usual_one_but_for_the_delay() -> None:
    jobs = [SimpleNamespace(rows=1, batch_key=None, enqueued_ns=ns) for ns in (80, 10)]
    patient = BatchPolicy(4, max_delay_ns=100, joins=True)
    assert decide_among_levels(jobs, patient, 109) == Wait(110)
    assert decide_among_levels(jobs, patient, 110) == Cut(2, 2)
    assert decide_among_levels(jobs, BatchPolicy(2, joins=True), 0) == Cut(2, 2)


LIMITS = st.builds(
    Limits,
    timeout_ns=st.sampled_from([0, 10, 40]),
    delays=st.booleans(),
    most=st.sampled_from([0, 0, 2]),
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(0, 4)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 20)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(
    default=LIMITS,
    by_level=st.dictionaries(st.integers(1, 3), LIMITS),
    rows=st.integers(1, 4),
    events=EVENTS,
)
def test_whatever_comes_the_order_is_right_and_nobody_is_lost(
    default: Limits, by_level: dict[int, Limits], rows: int, events: list[tuple[str, int]]
) -> None:
    """Against a list that is searched for the best each time."""
    policies = QueuePolicies(3, 2, default, by_level)
    line = Line(policies, BatchPolicy(rows, joins=True), most=5)
    now_ns = 1
    # Level, when it became late (0 for not yet), how many came before, and when it would be late.
    waiting: dict[float, list[int]] = {}
    jobs: dict[float, Job] = {}

    def pass_time() -> None:
        expected = []
        for at_ns in sorted({entry[3] for entry in waiting.values() if 0 < entry[3] <= now_ns}):
            for name, entry in list(waiting.items()):
                if entry[3] != at_ns:
                    continue
                entry[3] = 0
                if policies.limits_of(entry[0]).delays:
                    entry[1] = 1
                else:
                    expected.append(name)
                    del waiting[name]
        refused = names(line.queue.overdue(now_ns)) if line.queue.is_overdue(now_ns) else []
        assert sorted(refused) == sorted(expected)

    for count, (what, value) in enumerate(events):
        name = float(count)
        if what == "enter":
            level = policies.level_of(value)
            most = policies.limits_of(level).most
            if most:
                alike = sum(entry[0] == level for entry in waiting.values())
            else:
                alike = sum(not policies.limits_of(e[0]).most for e in waiting.values())
            job = line.enter(name, value, now_ns)
            assert (job is None) == (alike >= (most or 5))
            if job is not None:
                jobs[name] = job
                waiting[name] = [level, 0, count, job.expires_ns]
        elif what == "leave" and float(value) in jobs:
            assert line.queue.leave(jobs[float(value)]) == (float(value) in waiting)
            waiting.pop(float(value), None)
        elif what == "wait":
            # Somebody looks at least as often as somebody is late, as the server's timer does.
            for _ in range(value):
                now_ns += 1
                pass_time()
        elif what == "cut":
            batch = line.queue.cut(now_ns)
            if not waiting:
                assert batch is None
                continue
            assert isinstance(batch, Batch)
            taken = names(batch.works)
            assert len(taken) == min(rows, len(waiting))
            levels_taken = [(waiting[name][0], waiting[name][1]) for name in taken]
            assert levels_taken == sorted(levels_taken)
            left = [entry for name, entry in waiting.items() if name not in taken]
            assert all(levels_taken[-1] <= (entry[0], entry[1]) for entry in left)
            for place in set(levels_taken):
                alike_taken = [n for n in taken if (waiting[n][0], waiting[n][1]) == place]
                if not place[1]:
                    assert alike_taken == sorted(alike_taken), "those that came first go first"
            for name in taken:
                del waiting[name]
        assert line.statistics.pending == len(waiting)
    assert sorted(names(job for job in line.queue.jobs if job.is_queued)) == sorted(waiting)


@pytest.mark.parametrize("count", [5000])
def test_long_queue_with_many_levels_stays_quick_to_enter(count: int) -> None:
    """The place is found by halving: entering must not look at everybody who waits."""
    line = Line(QueuePolicies(levels=1000, default_level=500), most=count)
    looks = 0

    class Counting(Job):
        def __getattribute__(self, name: str) -> Any:
            nonlocal looks
            if name == "level":
                looks += 1
            return super().__getattribute__(name)

    for index in range(count):
        job = Counting(cast(Any, None), request(index), cast(Any, None), 1, now_ns=0)
        job.level = 1 + (index * 7919) % 1000
        assert line.queue.enter(job)
    assert looks < count * 30
    levels = [job.level for job in line.queue.jobs]
    assert levels == sorted(levels)
