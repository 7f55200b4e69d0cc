import pytest
from msgspec.structs import replace

from modelport.custom_metrics import MAX_SERIES, CustomMetrics, Measure, MetricKind, labels_of
from modelport.errors import Conflict, InvalidRequest

SEEN = Measure(model="m", family="seen", kind="counter", help="Seen", verb="add", value=1)


def test_series_are_told_apart_by_labels_in_any_order() -> None:
    metrics = CustomMetrics()
    metrics.apply(replace(SEEN, labels=labels_of({"a": "1", "b": "2"})))
    metrics.apply(replace(SEEN, labels=labels_of({"b": "2", "a": "1"})))
    metrics.apply(SEEN)
    assert metrics.value("seen", labels_of({"a": "1", "b": "2"})) == 2
    assert metrics.value("seen", ()) == 1
    assert metrics.value("never", ()) == 0


def test_gauges_are_set_and_added_to() -> None:
    metrics = CustomMetrics()
    level = replace(SEEN, kind="gauge", family="level")
    metrics.apply(replace(level, verb="set", value=5))
    metrics.apply(replace(level, verb="add", value=-2))
    assert metrics.value("level", ()) == 3


def test_observations_are_counted_in_the_first_bucket_that_holds_them() -> None:
    metrics = CustomMetrics()
    size = replace(SEEN, kind="histogram", family="size", verb="observe", buckets=(1.0, 10.0))
    for value in (0.5, 1.0, 1.5, 10.0, 11.0):
        metrics.apply(replace(size, value=value))
    (family,) = metrics.families()
    assert family.observations[()].counts == [2, 2, 1]
    assert family.observations[()].total == 24.0
    assert metrics.value("size", ()) == 5


def test_metrics_go_with_the_last_model_that_has_them() -> None:
    metrics = CustomMetrics()
    metrics.apply(SEEN)
    metrics.apply(replace(SEEN, model="n"))
    metrics.forget("m")
    assert metrics.value("seen", ()) == 2
    metrics.forget("n")
    assert metrics.families() == []


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (replace(SEEN, family="9lives"), "cannot name a metric"),
        (replace(SEEN, family="nv_seen"), "the server's own"),
        (replace(SEEN, labels=(("le", "1"),)), "cannot name a label"),
        (replace(SEEN, labels=(("a-b", "1"),)), "cannot name a label"),
        (replace(SEEN, value=-1), "cannot go down by 1"),
        (replace(SEEN, verb="set"), "is a counter, which has increment, not set"),
        (replace(SEEN, verb="observe"), "is a counter, which has increment, not observe"),
        (replace(SEEN, value=float("nan")), "was given NaN"),
        (replace(SEEN, kind="histogram", verb="make", buckets=(2.0, 1.0)), "have to rise"),
    ],
)
def test_what_no_page_could_show_is_refused(wrong: Measure, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        CustomMetrics().apply(wrong)


def test_a_name_means_one_kind() -> None:
    metrics = CustomMetrics()
    metrics.apply(SEEN)
    other: MetricKind = "gauge"
    with pytest.raises(
        Conflict, match="'seen' is a counter already, and model 'n' makes it a gauge"
    ):
        metrics.apply(replace(SEEN, model="n", kind=other))


def test_labels_that_grow_with_the_traffic_are_stopped() -> None:
    metrics = CustomMetrics()
    for number in range(MAX_SERIES):
        metrics.apply(replace(SEEN, labels=(("user", str(number)),)))
    with pytest.raises(InvalidRequest, match="use labels with few values"):
        metrics.apply(SEEN)
    metrics.apply(replace(SEEN, labels=(("user", "1"),)))
