import inspect

import pytest

from modelport import errors
from modelport.errors import (
    InvalidArguments,
    InvalidInference,
    InvalidRequest,
    Kind,
    ModelFailed,
    ModelportError,
    Overloaded,
    PollFailed,
    QueueTimedOut,
    RegionFailed,
    WorkerDied,
)

REFINED = (
    InvalidArguments,
    InvalidInference,
    PollFailed,
    QueueTimedOut,
    RegionFailed,
    WorkerDied,
)

CLASSES = [
    each
    for each in vars(errors).values()
    if inspect.isclass(each) and issubclass(each, ModelportError)
]


@pytest.mark.parametrize("each", CLASSES)
def test_errors_are_their_text(each: type[ModelportError]) -> None:
    error = each("what, where, what to do")
    assert str(error) == error.text == "what, where, what to do"
    assert error.args == ("what, where, what to do",)


def test_every_class_is_offered_and_drawn_in_the_tree() -> None:
    tree = errors.__doc__ or ""
    for each in CLASSES:
        assert each.__name__ in errors.__all__
        assert each.__name__ in tree


def test_every_kind_but_unknown_has_one_class_of_its_own() -> None:
    kinds = [each.kind for each in CLASSES if each not in REFINED]
    assert sorted(kinds) == sorted(Kind)
    assert ModelportError.kind is Kind.UNKNOWN


def test_invalid_inference_is_an_invalid_request_that_may_know_whose() -> None:
    error = InvalidInference("bad", request_id="7")
    assert isinstance(error, InvalidRequest)
    assert error.request_id == "7"
    assert InvalidInference("bad").request_id == ""


def test_models_may_say_what_kind_their_failure_is() -> None:
    assert ModelFailed("bad").kind is ModelFailed.INTERNAL is Kind.MODEL_FAILED
    assert ModelFailed("bad", code=Kind.NOT_FOUND).kind is Kind.NOT_FOUND
    assert ModelFailed("bad").kind is Kind.MODEL_FAILED


def test_overload_says_when_to_try_again() -> None:
    assert Overloaded("full").retry_after_s == 1
    assert Overloaded("full", retry_after_s=7).retry_after_s == 7
