"""Lists of what waits, and what is done about it."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.engine.batcher import BatchPolicy, Cut, Wait, decide
from modelport.specs import DynamicBatching, ModelConfig


@dataclass
class Waiting:
    rows: int = 1
    batch_key: object = None
    enqueued_ns: int = 0


def waiting(*rows: int) -> list[Waiting]:
    return [Waiting(each) for each in rows]


EIGHT = BatchPolicy(max_rows=8, joins=True)
PATIENT = BatchPolicy(max_rows=8, max_delay_ns=100, joins=True)
PICKY = BatchPolicy(max_rows=8, preferred_rows=(2, 4), max_delay_ns=100, joins=True)


@pytest.mark.parametrize(
    ("policy", "rows", "now_ns", "expected"),
    [
        # Without dynamic batching every request runs by itself, however many wait.
        (BatchPolicy(max_rows=8), (3, 1, 1), 0, Cut(1, 3)),
        # Without a delay whatever is there goes.
        (EIGHT, (1,), 0, Cut(1, 1)),
        (EIGHT, (1, 2, 3), 0, Cut(3, 6)),
        # As many as fit, and not one row more.
        (EIGHT, (4, 4, 1), 0, Cut(2, 8)),
        (EIGHT, (4, 5, 1), 0, Cut(1, 4)),
        (EIGHT, (8,), 0, Cut(1, 8)),
        # With a delay it waits for company until the first has waited long enough.
        (PATIENT, (1, 2), 0, Wait(100)),
        (PATIENT, (1, 2), 99, Wait(100)),
        (PATIENT, (1, 2), 100, Cut(2, 3)),
        (PATIENT, (1, 2), 5000, Cut(2, 3)),
        # A full batch does not wait, nor one that cannot grow.
        (PATIENT, (4, 4), 0, Cut(2, 8)),
        (PATIENT, (4, 5), 0, Cut(1, 4)),
        # A preferred size goes at once, the largest there is; the rest waits on.
        (PICKY, (1,), 0, Wait(100)),
        (PICKY, (1, 1), 0, Cut(2, 2)),
        (PICKY, (1, 1, 1), 0, Cut(2, 2)),
        (PICKY, (1, 1, 1, 1, 1), 0, Cut(4, 4)),
        (PICKY, (3,), 0, Wait(100)),
        (PICKY, (3,), 100, Cut(1, 3)),
        # The largest batch is always a good one.
        (PICKY, (2, 6), 0, Cut(2, 8)),
        # Requests without rows cost nothing, and end as well.
        (EIGHT, (0, 8, 0), 0, Cut(3, 8)),
        (EIGHT, (0,), 0, Cut(1, 0)),
    ],
)
def test_what_waits_and_what_is_done(
    policy: BatchPolicy, rows: tuple[int, ...], now_ns: int, expected: Cut | Wait
) -> None:
    assert decide(waiting(*rows), policy, now_ns) == expected


def test_delay_counts_from_when_the_first_has_come() -> None:
    queue = [Waiting(enqueued_ns=40), Waiting(enqueued_ns=90)]
    assert decide(queue, PATIENT, 139) == Wait(140)
    assert decide(queue, PATIENT, 140) == Cut(2, 2)


def test_requests_of_another_shape_close_the_batch() -> None:
    queue = [Waiting(batch_key=(2,)), Waiting(batch_key=(2,)), Waiting(batch_key=(3,))]
    assert decide(queue, EIGHT, 0) == Cut(2, 2)
    # Nothing can be put in front of the third one, so waiting would be for nothing.
    assert decide(queue, PATIENT, 0) == Cut(2, 2)


def test_policy_of_a_model_without_dynamic_batching_joins_nothing() -> None:
    assert BatchPolicy.from_config(ModelConfig(max_batch_size=8)) == BatchPolicy(max_rows=8)
    dynamic = DynamicBatching(max_queue_delay_microseconds=9)
    assert BatchPolicy.from_config(ModelConfig(dynamic_batching=dynamic)) == BatchPolicy(max_rows=1)


def test_policy_counts_in_nanoseconds_and_takes_the_largest_size_for_granted() -> None:
    dynamic = DynamicBatching(max_queue_delay_microseconds=3, preferred_batch_size=(8, 4, 2))
    config = ModelConfig(max_batch_size=8, dynamic_batching=dynamic)
    expected = BatchPolicy(max_rows=8, preferred_rows=(2, 4), max_delay_ns=3000, joins=True)
    assert BatchPolicy.from_config(config) == expected


POLICIES = st.builds(
    BatchPolicy,
    max_rows=st.just(8),
    preferred_rows=st.sampled_from([(), (4,), (2, 4, 6)]),
    max_delay_ns=st.sampled_from([0, 1, 50, 1000]),
    joins=st.booleans(),
)
ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 60),  # after the one before
        st.integers(0, 8),  # rows
        st.sampled_from(["a", "b"]),  # batch key
    ),
    min_size=1,
    max_size=40,
)


@given(POLICIES, ARRIVALS, st.integers(1, 200))
def test_no_request_is_lost_reordered_or_kept_too_long(
    policy: BatchPolicy, arrivals: list[tuple[int, int, str]], run_ns: int
) -> None:
    """One instance, which takes ``run_ns`` for a batch, and a queue that is asked as ours is."""
    now_ns = 0
    coming: list[tuple[int, Waiting]] = []
    for after_ns, rows, key in arrivals:
        now_ns += after_ns
        coming.append((now_ns, Waiting(rows, key, now_ns)))
    queue: list[Waiting] = []
    done: list[Waiting] = []
    now_ns = free_ns = 0
    while coming or queue:
        while coming and coming[0][0] <= now_ns:
            queue.append(coming.pop(0)[1])
        next_ns = coming[0][0] if coming else None
        if not queue:
            assert next_ns is not None
            now_ns = max(next_ns, free_ns)
            continue
        if now_ns < free_ns:
            now_ns = min(free_ns, next_ns) if next_ns is not None else free_ns
            continue
        decision = decide(queue, policy, now_ns)
        if isinstance(decision, Wait):
            assert now_ns < decision.until_ns <= queue[0].enqueued_ns + policy.max_delay_ns
            now_ns = min(decision.until_ns, next_ns) if next_ns is not None else decision.until_ns
            continue
        batch, queue = queue[: decision.count], queue[decision.count :]
        assert len(batch) == decision.count >= 1
        assert decision.rows == sum(each.rows for each in batch) <= policy.max_rows
        assert policy.joins or len(batch) == 1
        assert len({each.batch_key for each in batch}) == 1
        if free_ns <= batch[0].enqueued_ns:
            # The instance was free all the time: only the delay can have kept it.
            assert now_ns <= batch[0].enqueued_ns + policy.max_delay_ns
        done += batch
        free_ns = now_ns + run_ns
    arrived = [each.enqueued_ns for each in done]
    assert len(done) == len(arrivals)
    assert arrived == sorted(arrived)
    assert [each.rows for each in done] == [rows for _, rows, _ in arrivals]
