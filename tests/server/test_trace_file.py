import json
import logging
from pathlib import Path

import pytest

from modelport.engine.tracing import Trace, TracedTensor
from modelport.server.trace_file import TraceFile


def trace(id: int, log_frequency: int = 0) -> Trace:
    return Trace(
        id,
        "m",
        3,
        "r" if id == 1 else "",
        log_frequency,
        True,
        True,
        [("REQUEST_START", 10), ("REQUEST_END", 20)],
        [TracedTensor("TENSOR_QUEUE_INPUT", "x", "BYTES", (1, 2), (b"a", b"\xff"))],
    )


ROWS = [
    {"id": 1, "model_name": "m", "model_version": 3, "request_id": "r"},
    {
        "id": 1,
        "timestamps": [{"name": "REQUEST_START", "ns": 10}, {"name": "REQUEST_END", "ns": 20}],
    },
    {
        "id": 1,
        "activity": "TENSOR_QUEUE_INPUT",
        "tensor": {"name": "x", "data": '"a","\ufffd"', "shape": "1,2", "dtype": "BYTES"},
    },
]


def test_traces_are_written_in_tritons_form(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("of another run")
    file = TraceFile(path)
    file.keep(trace(1))
    file.close()
    assert json.loads(path.read_text()) == ROWS


def test_steps_of_an_ensemble_stand_after_it_and_name_it(tmp_path: Path) -> None:
    whole, step = trace(1), trace(2)
    step.parent = whole
    whole.steps.append(step)
    path = tmp_path / "trace.json"
    file = TraceFile(path)
    file.keep(whole)
    file.close()
    rows = json.loads(path.read_text())
    assert rows[:3] == ROWS
    assert rows[3] == {"id": 2, "model_name": "m", "model_version": 3, "parent_id": 1}
    assert [row["id"] for row in rows[4:]] == [2, 2]


def test_a_file_is_whole_after_every_write(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    file = TraceFile(path)
    for number in range(1, 20):
        file._write(trace(number))
        assert len(json.loads(path.read_text())) == 3 * number
    file.close()


def test_so_many_traces_have_a_file_of_their_own(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "trace.json")
    for number in range(1, 6):
        file.keep(trace(number, log_frequency=2))
    file.close()
    ids = {
        path.name: [row["id"] for row in json.loads(path.read_text()) if "model_name" in row]
        for path in tmp_path.iterdir()
    }
    assert ids == {"trace.json.0": [1, 2], "trace.json.1": [3, 4], "trace.json.2": [5]}


def test_a_disk_that_takes_nothing_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = TraceFile(tmp_path / "missing" / "trace.json")
    with caplog.at_level(logging.ERROR):
        file.keep(trace(1))
        file.close()
    assert "traces cannot be written: No such file or directory" in caplog.text
