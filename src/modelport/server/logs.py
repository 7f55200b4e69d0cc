"""The log of the server: which lines there are, what they look like, where they go.

Everything goes through the loggers of the standard library: ours are below ``modelport``, those of
models below ``modelport.model``, requests are told by ``modelport.access``. What libraries and
models log by themselves goes the same way from warnings on, so that the log has one form.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TextIO
from urllib.parse import quote

from modelport.server.config import Problem, SettingsError
from modelport.server.http import AccessRecord
from modelport.server.log_lines import (
    ACCESS_LOGGER,
    AccessLine,
    json_line,
    local_time,
    text_line,
    utc_time,
)
from modelport.server.log_writer import Destination, LogFile, LogStream, LogWriter
from modelport.server.settings import Settings
from modelport.wire import json

__all__ = ["AccessLog", "Logs", "configure_logs"]

MOST_WAITING = 20_000
"""Lines that may wait for the disk: about 4 MB, or a quarter of a second of the busiest server."""
CLOSE_TIMEOUT_S = 5.0
SHORTEST_SECRET = 8
"""Shorter keys are not taken out of lines: they would be found in everything."""
MUTED = ("python_multipart",)
"""Loggers of libraries that have a line for every bad request, and anybody can send those."""

LineEncoder = Callable[[logging.LogRecord], str]


class AccessLog:
    """One line per request, through the logger ``modelport.access``.

    Args:
        quiet_paths: Of requests that are not logged.
    """

    def __init__(self, quiet_paths: frozenset[str] = frozenset()) -> None:
        self._logger = logging.getLogger(ACCESS_LOGGER)
        self._quiet_paths = quiet_paths

    def record(self, access: AccessRecord) -> None:
        """Log one request."""
        if self._quiet_paths and access.target.partition("?")[0] in self._quiet_paths:
            return
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.handle(AccessLine(access))

    def close(self) -> None:
        """Have written what was recorded."""
        for handler in logging.getLogger("modelport").handlers:
            handler.flush()


class Logs:
    """A configured log; ``close`` puts the loggers back as they were."""

    def __init__(
        self, writer: LogWriter, settings: Settings, *, is_coloured: bool, switches: "_Switches"
    ) -> None:
        self._writer = writer
        self._file = settings.log_file or ""
        self._format = settings.log_format
        self._is_coloured = is_coloured
        encode = _line_encoder(settings.log_format, is_coloured=is_coloured)
        # Two, because a model that configures logging for itself closes those of the root logger.
        self._handler = _Handler(writer, encode, switches, owns_writer=True)
        self._root_handler = _Handler(writer, encode, switches, owns_writer=False)
        self._switches = switches
        self._undo: list[Callable[[], object]] = []

    def open(self) -> None:
        """Take the loggers over and start writing."""
        self._writer.open()
        ours, root, access = (logging.getLogger(name) for name in ("modelport", "", ACCESS_LOGGER))
        for logger in (ours, root, access):
            self._undo.append(partial(logger.setLevel, logger.level))
            self._undo.append(partial(setattr, logger, "propagate", logger.propagate))
        ours.addHandler(self._handler)
        ours.propagate = False
        ours.setLevel(self._switches.lowest)
        root.addHandler(self._root_handler)
        root.setLevel(self._switches.lowest_of_others)
        # Has a switch of its own.
        access.setLevel(logging.INFO)
        for name in MUTED:
            logger = logging.getLogger(name)
            self._undo.append(partial(logger.setLevel, logger.level))
            logger.setLevel(logging.CRITICAL)
        logging.captureWarnings(True)

    def settings(self) -> dict[str, bool | int | str]:
        """Say what is logged, where to and how, in the words of Triton's log settings."""
        switches = self._switches
        return {
            "log_file": self._file,
            "log_info": switches.is_on[logging.INFO],
            "log_warning": switches.is_on[logging.WARNING],
            "log_error": switches.is_on[logging.ERROR],
            "log_verbose_level": switches.verbosity,
            "log_format": _NAME_BY_FORMAT.get(self._format, self._format),
        }

    def change(self, changes: Mapping[str, bool | int | str]) -> None:
        """Log otherwise from now on.

        Args:
            changes: Of what ``settings`` gives, but for the file.
        """
        switches = self._switches
        for name, value in changes.items():
            if name in _LEVEL_BY_NAME:
                switches.is_on[_LEVEL_BY_NAME[name]] = bool(value)
            elif name == "log_verbose_level":
                switches.verbosity = int(value)
                switches.is_on[logging.DEBUG] = switches.verbosity > 0
            elif name == "log_format":
                self._format = _FORMAT_BY_NAME.get(str(value), str(value))
                encode = _line_encoder(self._format, is_coloured=self._is_coloured)
                self._handler.encode = self._root_handler.encode = encode
        logging.getLogger("modelport").setLevel(switches.lowest)
        logging.getLogger().setLevel(switches.lowest_of_others)

    def flush(self) -> None:
        """Wait until everything logged so far is written."""
        self._handler.flush()

    def close(self) -> None:
        """Write what is left and let go of the loggers."""
        logging.captureWarnings(False)
        logging.getLogger("modelport").removeHandler(self._handler)
        logging.getLogger().removeHandler(self._root_handler)
        for undo in self._undo:
            undo()
        self._undo.clear()
        self._root_handler.close()
        self._handler.close()


def configure_logs(
    settings: Settings, *, stream: TextIO | None = None, environ: Mapping[str, str] | None = None
) -> Logs:
    """Set the loggers up for this process, and open the log file if there is one.

    Lines that wait when the process exits are still written.

    Args:
        settings: What to log, in which form, where.
        stream: Where the log goes without a file; standard error.
        environ: Says whether colour is welcome; the process's.

    Raises:
        SettingsError: The log file cannot be opened.
    """
    stream = sys.stderr if stream is None else stream
    destination = _destination(settings, stream)
    is_coloured = settings.log_file is None and _welcomes_colour(
        stream, os.environ if environ is None else environ
    )
    encode = _line_encoder(settings.log_format, is_coloured=is_coloured)
    writer = LogWriter(
        destination,
        most_waiting=MOST_WAITING,
        tell_lost=partial(_tell_lost, encode),
        redact=partial(_redact, _secrets(settings)),
    )
    logs = Logs(writer, settings, is_coloured=is_coloured, switches=_Switches(settings))
    logs.open()
    return logs


class _Handler(logging.Handler):
    """Hands records to the writer as lines."""

    def __init__(
        self, writer: LogWriter, encode: LineEncoder, switches: "_Switches", *, owns_writer: bool
    ) -> None:
        super().__init__()
        self.addFilter(switches)
        self._writer = writer
        self.encode = encode
        self._owns_writer = owns_writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Here and not on the writer's thread: what a record tells of may change, and a thread
            # that formats keeps the loop from running for longer than formatting takes.
            self._writer.put(self.encode(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        self._writer.flush(CLOSE_TIMEOUT_S)

    def close(self) -> None:
        if self._owns_writer:
            self._writer.close(CLOSE_TIMEOUT_S)
        super().close()


class _Switches(logging.Filter):
    """Which levels are logged; unlike in ``logging``, each has a switch of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.verbosity = settings.log_verbose
        self.is_on = {
            logging.ERROR: settings.log_error,
            logging.WARNING: settings.log_warning,
            logging.INFO: settings.log_info,
            logging.DEBUG: settings.log_verbose > 0,
        }

    @property
    def lowest(self) -> int:
        """The lowest level that is on."""
        on = [level for level, is_on in self.is_on.items() if is_on]
        return min(on, default=logging.CRITICAL + 1)

    @property
    def lowest_of_others(self) -> int:
        """The same for libraries, whose details only help when ours do not."""
        details = (logging.WARNING, logging.INFO)
        usual = details[self.verbosity] if self.verbosity < len(details) else logging.DEBUG
        return max(self.lowest, usual)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.__class__ is AccessLine:
            return True
        for level, is_on in self.is_on.items():
            if record.levelno >= level:
                return is_on
        return self.verbosity > 0


_LEVEL_BY_NAME = {
    "log_error": logging.ERROR,
    "log_warning": logging.WARNING,
    "log_info": logging.INFO,
}
_NAME_BY_FORMAT = {"text": "default"}
_FORMAT_BY_NAME = {name: form for form, name in _NAME_BY_FORMAT.items()}


def _destination(settings: Settings, stream: TextIO) -> Destination:
    if settings.log_file is None:
        return LogStream(stream)
    try:
        return LogFile(settings.log_file)
    except OSError as exc:
        what = f"cannot write to {settings.log_file}: {exc.strerror or exc}"
        remedy = "name a file in a folder that this user may write to"
        raise SettingsError([Problem("--log-file", what, remedy)]) from exc


def _line_encoder(log_format: str, *, is_coloured: bool) -> LineEncoder:
    if log_format == "json":
        return json_line
    write_time = utc_time if log_format == "ISO8601" else local_time
    return partial(text_line, write_time=write_time, is_coloured=is_coloured)


def _welcomes_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether there is a terminal and nobody said no (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and stream.isatty()


def _tell_lost(encode: LineEncoder, count: int) -> str:
    text = "%d lines of the log were lost: they came faster than they could be written"
    return encode(logging.LogRecord("modelport.log", logging.WARNING, "", 0, text, (count,), None))


def _secrets(settings: Settings) -> tuple[str, ...]:
    """All spellings of the keys in use that a line could hold."""
    restrictions = (*settings.http_restricted_api, *settings.grpc_restricted_protocol)
    secrets = {*settings.api_key, *settings.admin_key, *(one.value for one in restrictions)}
    spellings = {
        spelling
        for secret in secrets
        if len(secret) >= SHORTEST_SECRET
        for spelling in (secret, quote(secret, safe=""), json.encode(secret).decode()[1:-1])
    }
    # The longest first: one may be the beginning of another.
    return tuple(sorted(spellings, key=len, reverse=True))


def _redact(secrets: tuple[str, ...], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
