"""Trace and log settings, over HTTP and gRPC."""

from collections.abc import Iterator
from typing import Any

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

OFF = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
CLEAR = dict.fromkeys(("trace_level", "trace_rate", "trace_count", "log_frequency"))


@pytest.fixture(params=["http", "grpc"])
def either(request: Any, client: Any, grpc_client: Any) -> Iterator[Any]:
    """A client of one protocol; both have the same methods."""
    yield client if request.param == "http" else grpc_client
    client.update_trace_settings(model_name="digits", settings=CLEAR)
    client.update_trace_settings(settings=CLEAR)
    if hasattr(client, "update_log_settings"):
        usual = {"log_info": True, "log_verbose_level": 0, "log_format": "default"}
        client.update_log_settings(usual)


knows_log_settings = pytest.mark.skipif(
    not hasattr(triton.InferenceServerClient, "update_log_settings"),
    reason="clients before 2.26 have no methods for the log",
)


def plain(settings: Any) -> dict[str, Any]:
    """Settings as HTTP gives them; gRPC has lists of everything."""
    if isinstance(settings, dict):
        return settings
    values = {name: list(value.value) for name, value in settings.settings.items()}
    return {name: v if name == "trace_level" else v[0] for name, v in values.items()}


def plain_log(settings: Any) -> dict[str, Any]:
    if isinstance(settings, dict):
        return settings
    return {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in settings.settings.items()
    }


def test_traces_are_told_and_changed(either: Any) -> None:
    assert plain(either.get_trace_settings()) == OFF
    changes = {"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "7", "trace_count": "5"}
    assert plain(either.update_trace_settings(settings=changes)) == {**OFF, **changes}
    assert plain(either.get_trace_settings(model_name="digits")) == {**OFF, **changes}
    told = plain(either.update_trace_settings("digits", {"trace_level": ["OFF"]}))
    assert told == {**OFF, **changes, "trace_level": ["OFF"]}
    assert plain(either.get_trace_settings()) == {**OFF, **changes}
    assert plain(either.update_trace_settings("digits", {"trace_level": None})) == {
        **OFF,
        **changes,
    }
    assert plain(either.update_trace_settings(settings=CLEAR)) == OFF


@pytest.mark.parametrize(
    ("model", "changes", "text"),
    [
        (None, {"trace_file": "x"}, "trace file location can not be updated through network"),
        (None, {"trace_rate": "often"}, "Unable to parse 'trace_rate', got: often"),
        (None, {"trace_level": ["ALL"]}, "unknown trace level 'ALL'"),
        ("nobody", {"trace_rate": "1"}, "Request for unknown model : nobody"),
    ],
)
def test_bad_traces_change_nothing(either: Any, model: Any, changes: Any, text: str) -> None:
    with pytest.raises(InferenceServerException, match=text):
        either.update_trace_settings(model, {"log_frequency": "9", **changes})
    assert plain(either.get_trace_settings()) == OFF


@knows_log_settings
def test_the_log_is_told_and_changed(either: Any) -> None:
    before = plain_log(either.get_log_settings())
    assert before["log_info"] is True
    assert before["log_verbose_level"] == 0
    changes = {"log_info": False, "log_verbose_level": 1, "log_format": "ISO8601"}
    assert plain_log(either.update_log_settings(changes)) == {**before, **changes}
    assert plain_log(either.get_log_settings()) == {**before, **changes}


@knows_log_settings
def test_a_bad_log_changes_nothing(either: Any) -> None:
    before = plain_log(either.get_log_settings())
    with pytest.raises(InferenceServerException, match="log file location can not be updated"):
        either.update_log_settings({"log_info": False, "log_file": "/tmp/somewhere"})
    with pytest.raises(InferenceServerException, match="invalid argument for --log_format"):
        either.update_log_settings({"log_format": "loud"})
    assert plain_log(either.get_log_settings()) == before
