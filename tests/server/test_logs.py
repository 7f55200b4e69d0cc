"""The log as a whole: settings in, lines out, loggers as they were before."""

import dataclasses
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelport.engine.engine import Engine
from modelport.errors import InvalidRequest
from modelport.server.config import SettingsError
from modelport.server.http import AccessRecord
from modelport.server.logs import AccessLog, Logs, configure_logs
from modelport.server.setting_values import Restriction
from modelport.server.settings import Settings
from modelport.wire.multipart import MultipartReader
from tests.served import FREE_PORTS, clean_environment

ACCESS = AccessRecord("10.0.0.7", "", "GET", "/v2", 200, 2, 0.001, "f00-1")
SERVER = logging.getLogger("modelport.server")


class Log:
    """A configured log that ends in memory."""

    def __init__(self, logs: Logs, stream: io.StringIO) -> None:
        self.logs = logs
        self.stream = stream

    @property
    def lines(self) -> list[str]:
        """What was logged so far, without times."""
        self.logs.flush()
        return [line.partition(" ")[2] for line in self.stream.getvalue().splitlines()]


Configure = Callable[..., Log]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Configures from changes to the default settings; undone after the test."""
    configured: list[Logs] = []

    def make(environ: dict[str, str] | None = None, is_terminal: bool = False, **new: Any) -> Log:
        stream = io.StringIO()
        stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
        settings = dataclasses.replace(Settings(), **{"log_format": "ISO8601", **new})
        logs = configure_logs(settings, stream=stream, environ=environ or {})
        configured.append(logs)
        return Log(logs, stream)

    yield make
    for logs in configured:
        logs.close()


def test_bad_bodies_have_no_lines_of_their_own(configure: Configure) -> None:
    log = configure()
    with pytest.raises(InvalidRequest, match="cannot be read"):
        MultipartReader("multipart/form-data; boundary=b").feed(b"--c\r\n")
    assert log.lines == []
    log.logs.close()
    assert logging.getLogger("python_multipart").level == logging.NOTSET


def log_everything() -> None:
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(SERVER, level)(level)


@pytest.mark.parametrize(
    ("switches", "levels"),
    [
        ({}, ["info", "warning", "error", "critical"]),
        ({"log_verbose": 1}, ["debug", "info", "warning", "error", "critical"]),
        ({"log_info": False}, ["warning", "error", "critical"]),
        ({"log_warning": False}, ["info", "error", "critical"]),
        ({"log_error": False}, ["info", "warning"]),
        ({"log_verbose": 2, "log_info": False}, ["debug", "warning", "error", "critical"]),
        ({"log_info": False, "log_warning": False, "log_error": False}, []),
    ],
)
def test_each_level_has_a_switch_of_its_own(
    configure: Configure, switches: dict[str, Any], levels: list[str]
) -> None:
    log = configure(**switches)
    log_everything()
    assert [line.rpartition(" ")[2] for line in log.lines] == levels


def test_json_is_said_by_the_setting(configure: Configure) -> None:
    log = configure(log_format="json")
    SERVER.info("ready", extra={"request_id": "f00-1"})
    log.logs.flush()
    members = json.loads(log.stream.getvalue())
    assert (members["message"], members["request_id"]) == ("ready", "f00-1")


def test_text_has_the_time_of_the_place(configure: Configure) -> None:
    log = configure(log_format="text")
    SERVER.info("ready")
    assert log.lines[0].endswith(" INFO    server: ready")
    assert "T" not in log.stream.getvalue().split(" INFO")[0]


@pytest.mark.parametrize(
    ("is_terminal", "environ", "is_coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colour_is_for_terminals_and_only_if_welcome(
    configure: Configure, is_terminal: bool, environ: dict[str, str], is_coloured: bool
) -> None:
    log = configure(environ, is_terminal, log_format="text")
    SERVER.info("ready")
    log.logs.flush()
    assert ("\x1b[" in log.stream.getvalue()) is is_coloured


def test_json_and_files_are_never_coloured(configure: Configure, tmp_path: Path) -> None:
    configure({}, True, log_format="json")
    log = configure({}, True, log_file=str(tmp_path / "log"))
    SERVER.info("ready")
    log.logs.flush()
    assert "\x1b" not in (tmp_path / "log").read_text() + log.stream.getvalue()


def test_the_log_goes_to_the_file_and_nowhere_else(configure: Configure, tmp_path: Path) -> None:
    log = configure(log_file=str(tmp_path / "log"))
    SERVER.info("ready")
    log.logs.flush()
    assert (tmp_path / "log").read_text().endswith(" INFO    server: ready\n")
    assert log.stream.getvalue() == ""


def test_a_log_file_that_cannot_be_written_is_told_before_the_start(tmp_path: Path) -> None:
    before = logging.getLogger().handlers[:]
    path = str(tmp_path / "missing" / "log")
    with pytest.raises(SettingsError, match=r"--log-file: cannot write to .*missing") as caught:
        configure_logs(dataclasses.replace(Settings(), log_file=path))
    assert "No such file" in str(caught.value)
    assert logging.getLogger().handlers == before


def test_models_speak_under_their_name(configure: Configure) -> None:
    log = configure()
    host = Engine().host
    for level in ("verbose", "info", "warning", "error"):
        host.log(level, f"{level} of 100%", model="resnet")
    assert log.lines == [
        "INFO    model: info of 100% model=resnet",
        "WARNING model: warning of 100% model=resnet",
        "ERROR   model: error of 100% model=resnet",
    ]


def test_libraries_are_heard_from_warnings_on(configure: Configure) -> None:
    log = configure()
    logging.getLogger("library").info("loaded")
    logging.getLogger("library").warning("odd")
    assert log.lines == ["WARNING library: odd"]


def test_more_of_libraries_is_heard_when_details_are_wanted(configure: Configure) -> None:
    log = configure(log_verbose=1)
    logging.getLogger("library").debug("step")
    logging.getLogger("library").info("loaded")
    assert log.lines == ["INFO    library: loaded"]


def test_warnings_of_python_are_lines_too(configure: Configure) -> None:
    log = configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # Once more: pytest and the line above put their own in place.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "DeprecationWarning: old" in log.lines[0]


def test_a_model_that_configures_logging_for_itself_does_not_take_ours(
    configure: Configure,
) -> None:
    log = configure()
    root = logging.getLogger()
    others = [handler for handler in root.handlers if type(handler).__name__ != "_Handler"]
    for handler in others:
        root.removeHandler(handler)
    try:
        logging.basicConfig(force=True, stream=io.StringIO())
        SERVER.info("still here")
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in others:
            root.addHandler(handler)
    assert log.lines == ["INFO    server: still here"]


def test_requests_are_told_one_by_one(configure: Configure) -> None:
    log = configure()
    access = AccessLog()
    access.record(ACCESS)
    access.close()
    assert log.stream.getvalue().endswith(
        " INFO    access: 10.0.0.7 GET /v2 200 2 bytes 1.00 ms request_id=f00-1\n"
    )


def test_the_access_log_does_not_hang_on_the_switch_for_infos(configure: Configure) -> None:
    log = configure(log_info=False)
    AccessLog().record(ACCESS)
    SERVER.info("ready")
    assert [line.split()[1] for line in log.lines] == ["access:"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_keys_are_nowhere_in_the_log(configure: Configure, log_format: str) -> None:
    log = configure(
        log_format=log_format,
        api_key=("first-key/with\\signs", "short"),
        admin_key=("second-key-0123",),
        http_restricted_api=(Restriction(("health",), "x-key", "third-key-0123"),),
    )
    SERVER.info("got %s and %s", "first-key/with\\signs", "second-key-0123")
    SERVER.info("got /a?q=first-key%2Fwith%5Csigns and third-key-0123")
    log.logs.flush()
    text = log.stream.getvalue()
    assert text.count("***") == 4
    assert "-key" not in text


def test_a_bad_call_of_the_logger_costs_only_its_own_line(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log = configure()
    SERVER.info("%d", "no number")
    SERVER.info("ready")
    assert log.lines == ["INFO    server: ready"]


def test_loggers_are_given_back_as_they_were() -> None:
    loggers = [logging.getLogger(name) for name in ("", "modelport", "modelport.access")]

    def state() -> list[Any]:
        return [(one.level, one.propagate, one.handlers[:]) for one in loggers]

    before = state()
    logs = configure_logs(Settings(), stream=io.StringIO())
    assert state() != before
    logs.close()
    assert state() == before


def test_lines_that_wait_at_exit_are_written() -> None:
    script = (
        "import logging\n"
        "from modelport.server.logs import configure_logs\n"
        "from modelport.server.settings import Settings\n"
        "configure_logs(Settings())\n"
        "for number in range(3000): logging.getLogger('modelport.x').info('line %d', number)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.count("\n") == 3000
    assert done.stderr.endswith("line 2999\n")


def test_what_is_logged_can_be_changed(configure: Configure) -> None:
    log = configure(log_format="text", log_verbose=0)
    assert log.logs.settings() == {
        "log_file": "",
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }
    log.logs.change({"log_info": False, "log_warning": False})
    SERVER.info("not seen")
    SERVER.warning("not seen")
    SERVER.error("seen")
    log.logs.change({"log_info": True, "log_verbose_level": 1, "log_format": "json"})
    SERVER.debug("details")
    log.logs.flush()
    first, second = log.stream.getvalue().splitlines()
    assert "seen" in first
    assert json.loads(second)["message"] == "details"
    assert log.logs.settings()["log_format"] == "json"
    log.logs.change({"log_format": "default", "log_verbose_level": 0})
    SERVER.debug("not seen")
    assert log.logs.settings()["log_format"] == "default"
    log.logs.flush()
    assert len(log.stream.getvalue().splitlines()) == 2


def test_a_model_that_fails_at_start_is_told_of_once(tmp_path: Path) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.pbtxt").write_text("max_batch_size: many")
    ended = subprocess.run(
        [sys.executable, "-m", "modelport", "serve", str(tmp_path)],
        env=clean_environment() | FREE_PORTS | {"MODELPORT_DATA_DIR": str(tmp_path / ".data")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    written = ended.stdout + ended.stderr
    assert written.count("failed to load 'torn'") == 1, written
    assert "1 of the models failed to load: torn" in written
