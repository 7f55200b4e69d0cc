import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from modelport.server.http import AccessRecord
from modelport.server.log_lines import (
    AccessLine,
    json_line,
    local_time,
    text_line,
    utc_time,
)

AT = datetime(2026, 11, 21, 8, 23, 45, 123_600, UTC).timestamp()
UTC_TEXT = "2026-11-21T08:23:45.123Z"


def record(
    message: str, *args: Any, level: int = logging.INFO, name: str = "modelport.http", **extra: Any
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "", 0, message, args, extra.pop("exc_info", None))
    made.created = AT
    made.__dict__.update(extra)
    return made


def access(**changes: Any) -> AccessLine:
    facts: dict[str, Any] = {
        "peer": "10.0.0.7",
        "principal": "ab12",
        "method": "POST",
        "target": "/v2/models/m/infer",
        "status": 200,
        "body_bytes": 123,
        "duration_s": 0.0012345,
        "request_id": "f00-1",
    }
    line = AccessLine(AccessRecord(**{**facts, **changes}))
    line.created = AT
    return line


def text(made: logging.LogRecord) -> str:
    """A line without its time."""
    line = text_line(made, utc_time)
    assert line.startswith(f"{UTC_TEXT} ")
    assert line.endswith("\n")
    return line[len(UTC_TEXT) + 1 : -1]


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (record("ready: %d models", 3), "INFO    http: ready: 3 models"),
        (record("odd", level=logging.WARNING, name="onnx"), "WARNING onnx: odd"),
        (
            record("warm", name="modelport.model", model="resnet"),
            "INFO    model: warm model=resnet",
        ),
        (
            record("failed", level=logging.ERROR, request_id="f00-1"),
            "ERROR   http: failed request_id=f00-1",
        ),
        (
            access(),
            "INFO    access: 10.0.0.7 POST /v2/models/m/infer 200 123 bytes 1.23 ms"
            " principal=ab12 request_id=f00-1",
        ),
        (
            access(peer="", principal=""),
            "INFO    access: - POST /v2/models/m/infer 200 123 bytes 1.23 ms request_id=f00-1",
        ),
        (record("first\nsecond\r\nthird\n"), "INFO    http: first\n    second\n    third"),
        (record("first\nsecond", model="m"), "INFO    http: first model=m\n    second"),
    ],
)
def test_a_line_of_text_is_this(made: logging.LogRecord, line: str) -> None:
    assert text(made) == line


def test_json_is_one_object_with_what_is_known() -> None:
    line = json_line(record("warm %s", "up", name="modelport.model", model="resnet"))
    assert line == (
        f'{{"ts":"{UTC_TEXT}","level":"info","logger":"modelport.model",'
        '"message":"warm up","model":"resnet"}\n'
    )


def test_requests_have_their_facts_in_json() -> None:
    assert json.loads(json_line(access())) == {
        "ts": UTC_TEXT,
        "level": "info",
        "logger": "modelport.access",
        "message": "10.0.0.7 POST /v2/models/m/infer 200 123 bytes 1.23 ms",
        "principal": "ab12",
        "request_id": "f00-1",
        "peer": "10.0.0.7",
        "method": "POST",
        "target": "/v2/models/m/infer",
        "status": 200,
        "body_bytes": 123,
        "duration_s": 0.001234,
    }


def failed() -> logging.LogRecord:
    try:
        raise ValueError("no\nsuch thing")
    except ValueError as exc:
        return record("it broke", model="m", exc_info=(type(exc), exc, exc.__traceback__))


def test_an_exception_comes_with_its_traceback() -> None:
    first, *more = text(failed()).split("\n")
    assert first == "INFO    http: it broke model=m"
    assert more[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in more)
    members = json.loads(json_line(failed()))
    assert members["message"] == "it broke"
    assert members["exception"].endswith("ValueError: no\nsuch thing")


@pytest.mark.parametrize(
    "hostile",
    [
        "a\n2026-11-21 INFO server: forged",
        "a\r2026",
        "\x1b[2Jgone",
        "\x9b31m",
        "\u2028x",
        "\u202ex",
    ],
)
def test_a_message_can_neither_forge_a_line_nor_drive_a_terminal(hostile: str) -> None:
    for made in (record("%s", hostile), record("x", model=hostile), access(target=hostile)):
        line = text_line(made, utc_time)
        assert re.findall(r"^\S.*", line, re.MULTILINE) == [line.split("\n")[0]]
        assert all(char == "\n" or char.isprintable() for char in line)
        assert json_line(made).count("\n") == 1


def test_what_is_no_unicode_can_be_written() -> None:
    assert text(record("name %s", "a\udcff")) == r"INFO    http: name a\udcff"
    assert json.loads(json_line(record("name %s", "a\udcff")))["message"] == "name a\udcff"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a?api_key=s3cret", "/a?api_key=***"),
        ("/a?x=1&Access-Token=s3cret&y=2", "/a?x=1&Access-Token=***&y=2"),
        ("/a?X-Amz-Signature=s3cret", "/a?X-Amz-Signature=***"),
        ("/a?password=", "/a?password=***"),
        ("/a?page=2", "/a?page=2"),
        ("/key=1", "/key=1"),
        ("/a?keys", "/a?keys"),
    ],
)
def test_keys_in_queries_are_masked(target: str, shown: str) -> None:
    made = access(target=target)
    assert f" {shown} " in made.getMessage()
    assert json.loads(json_line(made))["target"] == shown


def test_colour_is_around_and_not_in_the_text() -> None:
    made = record("hot", level=logging.ERROR, model="m")
    coloured = text_line(made, utc_time, is_coloured=True)
    assert "\x1b[31mERROR" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == text_line(made, utc_time)


def test_local_time_is_the_clock_on_the_wall() -> None:
    assert local_time(AT) == datetime.fromtimestamp(AT).strftime("%Y-%m-%d %H:%M:%S.123")


@pytest.mark.parametrize("at", [AT, AT - 0.1236, AT + 0.8763, 0.0005])
def test_times_are_cut_not_rounded(at: float) -> None:
    assert utc_time(at)[:-5] == datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert len(utc_time(at)) == len(UTC_TEXT)


def test_any_formatter_can_have_a_line_of_the_access_log() -> None:
    formatter = logging.Formatter("%(levelname)s %(name)s %(filename)s:%(lineno)d %(message)s")
    assert formatter.format(access()).startswith("INFO modelport.access ")
