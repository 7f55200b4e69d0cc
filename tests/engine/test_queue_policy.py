from typing import Any

import pytest

from modelport.engine.queue_policy import Limits, QueuePolicies
from modelport.specs import DynamicBatching, ModelConfig, QueuePolicy


def policies(**dynamic: Any) -> QueuePolicies:
    return QueuePolicies.from_config(ModelConfig(dynamic_batching=DynamicBatching(**dynamic)))


def test_policy_is_read_in_nanoseconds() -> None:
    policy = QueuePolicy(
        timeout_action="DELAY",
        default_timeout_microseconds=3,
        allow_timeout_override=True,
        max_queue_size=7,
    )
    assert Limits.of(policy) == Limits(3000, allows_override=True, delays=True, most=7)
    assert Limits.of(None) == Limits()


@pytest.mark.parametrize(
    ("limits", "asked_us", "expected_ns"),
    [
        (Limits(), 0, 0),
        (Limits(), 5, 0),
        (Limits(2000), 0, 2000),
        (Limits(2000), 1, 2000),
        (Limits(2000, allows_override=True), 0, 2000),
        (Limits(2000, allows_override=True), 1, 1000),
        # A request may ask for less than the model's default, never for more.
        (Limits(2000, allows_override=True), 5, 2000),
        (Limits(0, allows_override=True), 5, 5000),
    ],
)
def test_request_may_ask_for_less_where_the_model_allows_it(
    limits: Limits, asked_us: int, expected_ns: int
) -> None:
    assert limits.timeout_for(asked_us) == expected_ns


def test_priority_that_there_is_not_is_the_default_one() -> None:
    three = policies(priority_levels=3, default_priority_level=2)
    assert [three.level_of(asked) for asked in (0, 1, 2, 3, 4, 10**12)] == [2, 1, 2, 3, 2, 2]
    assert [policies().level_of(asked) for asked in (0, 1, 9)] == [0, 0, 0]


def test_level_without_a_policy_of_its_own_has_the_default_one() -> None:
    made = policies(
        priority_levels=3,
        default_priority_level=1,
        default_queue_policy=QueuePolicy(max_queue_size=4),
        priority_queue_policy={2: QueuePolicy(default_timeout_microseconds=1)},
    )
    assert made.limits_of(1) == made.limits_of(3) == Limits(most=4)
    assert made.limits_of(2) == Limits(1000)


def test_usual_model_is_known_to_need_nothing() -> None:
    assert not QueuePolicies.from_config(ModelConfig()).tells_apart
    plain = policies(default_queue_policy=QueuePolicy(max_queue_size=4))
    assert not plain.tells_apart
    timed = policies(default_queue_policy=QueuePolicy(default_timeout_microseconds=4))
    assert timed.tells_apart
    assert not timed.is_ordered
    delaying = policies(default_queue_policy=QueuePolicy(timeout_action="DELAY"))
    assert delaying.is_ordered
    assert delaying.tells_apart
    assert policies(priority_levels=2, default_priority_level=1).is_ordered
