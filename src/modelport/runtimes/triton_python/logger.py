"""Lines that a model writes to the server's log."""

import enum
import logging
import sys
from types import FrameType
from typing import ClassVar

from modelport.runtimes.model_code import nearest_home
from modelport.runtimes.triton_python.errors import TritonModelException

__all__ = ["Logger"]


class Logger:
    """The server's log, from any thread; used as it is, without making one."""

    class LogLevel(enum.IntEnum):
        """What a line of the log is about."""

        INFO = 0
        WARNING = 1
        ERROR = 2
        VERBOSE = 3

    INFO: ClassVar[LogLevel] = LogLevel.INFO
    WARNING: ClassVar[LogLevel] = LogLevel.WARNING
    ERROR: ClassVar[LogLevel] = LogLevel.ERROR
    VERBOSE: ClassVar[LogLevel] = LogLevel.VERBOSE

    @staticmethod
    def log(message: str, level: int = INFO) -> None:
        """Write a line at one of the class's levels."""
        if level not in _LEVEL_NAMES:
            raise TritonModelException(f"Logger has no level {level!r}; use Logger.INFO")
        _write(level, message, sys._getframe(1))

    @staticmethod
    def log_info(message: str) -> None:
        """Write what is good to know."""
        _write(Logger.INFO, message, sys._getframe(1))

    @staticmethod
    def log_warn(message: str) -> None:
        """Write what may go wrong."""
        _write(Logger.WARNING, message, sys._getframe(1))

    @staticmethod
    def log_error(message: str) -> None:
        """Write what went wrong."""
        _write(Logger.ERROR, message, sys._getframe(1))

    @staticmethod
    def log_verbose(message: str) -> None:
        """Write what is only wanted when one looks for something."""
        _write(Logger.VERBOSE, message, sys._getframe(1))


def _write(level: int, message: str, frame: FrameType) -> None:
    home = nearest_home(frame)
    if home is None or home.host is None:
        # Also while a configuration is being completed: there is no host to speak of yet.
        name = "modelport.model" if home is None else f"modelport.model.{home.model_name}"
        logging.getLogger(name).log(_STANDARD_LEVELS[level], "%s", _shown(message))
        return
    home.host.log(_LEVEL_NAMES[level], _shown(message), model=home.model_name)


def _shown(message: object) -> str:
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message)


_LEVEL_NAMES: dict[int, str] = {
    Logger.INFO: "info",
    Logger.WARNING: "warning",
    Logger.ERROR: "error",
    Logger.VERBOSE: "verbose",
}

_STANDARD_LEVELS: dict[int, int] = {
    Logger.INFO: logging.INFO,
    Logger.WARNING: logging.WARNING,
    Logger.ERROR: logging.ERROR,
    Logger.VERBOSE: logging.DEBUG,
}
