"""The text format, against the letter of its description and the parser of Prometheus' client."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from modelport.wire.prometheus import (
    Family,
    FamilyType,
    Page,
    decode_samples,
    encode_labels,
    encode_number,
)

REQUESTS = Family("requests", FamilyType.COUNTER, "How many came")
WAITING = Family("waiting", FamilyType.GAUGE, "How many wait")
SECONDS = Family("seconds", FamilyType.HISTOGRAM, "How long it took")
LATELY = Family("lately_us", FamilyType.SUMMARY, "How long of late")


def test_a_page_is_this_text() -> None:
    page = Page()
    page.begin(REQUESTS)
    page.samples([('model="a",version="1"', 3), ('model="b",version="2"', 0)])
    page.begin(WAITING)
    page.sample("", 0.5)
    page.begin(SECONDS)
    page.histogram('model="a"', ("0.1", "1"), [2, 0, 1], 4.25)
    page.begin(LATELY)
    page.summary('model="a"', {"0.5": 12, "0.99": math.nan}, 7, 90)
    assert page.encode().decode() == (
        "# HELP requests How many came\n"
        "# TYPE requests counter\n"
        'requests{model="a",version="1"} 3\n'
        'requests{model="b",version="2"} 0\n'
        "# HELP waiting How many wait\n"
        "# TYPE waiting gauge\n"
        "waiting 0.5\n"
        "# HELP seconds How long it took\n"
        "# TYPE seconds histogram\n"
        'seconds_bucket{model="a",le="0.1"} 2\n'
        'seconds_bucket{model="a",le="1"} 2\n'
        'seconds_bucket{model="a",le="+Inf"} 3\n'
        'seconds_sum{model="a"} 4.25\n'
        'seconds_count{model="a"} 3\n'
        "# HELP lately_us How long of late\n"
        "# TYPE lately_us summary\n"
        'lately_us{model="a",quantile="0.5"} 12\n'
        'lately_us{model="a",quantile="0.99"} NaN\n'
        'lately_us_sum{model="a"} 90\n'
        'lately_us_count{model="a"} 7\n'
    )


def test_a_page_without_families_is_empty() -> None:
    assert Page().encode() == b""


def test_a_family_without_samples_is_still_told_of() -> None:
    page = Page()
    page.begin(REQUESTS)
    page.samples([])
    assert page.encode() == b"# HELP requests How many came\n# TYPE requests counter\n"


def test_counts_that_do_not_fit_the_bounds_leave_the_page_as_it_was() -> None:
    page = Page()
    page.begin(SECONDS)
    before = page.encode()
    with pytest.raises(ValueError):
        page.histogram('model="a"', ("1",), [1, 2, 3], 0)
    assert page.encode() == before


def test_help_is_one_line() -> None:
    page = Page()
    page.begin(Family("x", FamilyType.GAUGE, "a\\b\nc"))
    assert page.encode().startswith(b"# HELP x a\\\\b\\nc\n")


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), st.text(max_size=20)))
def test_any_label_value_is_read_back(labels: dict[str, str]) -> None:
    page = Page()
    page.begin(WAITING)
    page.sample(encode_labels(labels), 1)
    text = page.encode().decode()
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels == labels
    assert list(decode_samples(text, {WAITING.name})) == [(WAITING.name, labels, 1.0)]


def test_what_is_no_unicode_does_not_cost_the_page() -> None:
    page = Page()
    page.begin(WAITING)
    page.sample(encode_labels({"model": "a\udcff"}), 1)
    assert b'waiting{model="a?"} 1\n' in page.encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2**70, "1180591620717411303424"),
        (0.1, "0.1"),
        (5e-05, "5e-05"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert encode_number(value) == text


def test_what_is_no_sample_is_passed_over() -> None:
    text = "# HELP a b\na 1\na{x=1} two\n\nother 3\na{ 4\nb +Inf\n"
    assert list(decode_samples(text, {"a", "b"})) == [("a", {}, 1.0), ("b", {}, math.inf)]
