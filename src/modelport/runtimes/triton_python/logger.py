"""Lines that a model writes to the server's log."""

import logging
import sys
from types import FrameType
from typing import ClassVar

from modelport.runtimes.model_code import nearest_home
from modelport.runtimes.triton_python.errors import TritonModelException

__all__ = ["Logger"]


class Logger:
    """The server's log, from any thread; used as it is, without making one."""

    INFO: ClassVar[int] = 0
    WARNING: ClassVar[int] = 1
    ERROR: ClassVar[int] = 2
    VERBOSE: ClassVar[int] = 3

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
        logging.getLogger(name).log(_STANDARD_LEVELS[level], "%s", message)
        return
    home.host.log(_LEVEL_NAMES[level], str(message), model=home.model_name)


_LEVEL_NAMES = {
    Logger.INFO: "info",
    Logger.WARNING: "warning",
    Logger.ERROR: "error",
    Logger.VERBOSE: "verbose",
}

_STANDARD_LEVELS = {
    Logger.INFO: logging.INFO,
    Logger.WARNING: logging.WARNING,
    Logger.ERROR: logging.ERROR,
    Logger.VERBOSE: logging.DEBUG,
}
