"""Settings of the log, read and changed over the network; for REST and gRPC alike."""

from collections.abc import Mapping

from modelport.errors import InvalidRequest, Unsupported
from modelport.protocols.v2.ports import LogsPort
from modelport.wire.v2_values import wrong_type

__all__ = ["LogValue", "change_log_settings", "log_settings"]

LogValue = bool | int | str


def log_settings(logs: LogsPort | None) -> dict[str, LogValue]:
    """Say what is logged, by the names of the settings.

    Raises:
        Unsupported: The log is not this server's.
    """
    return dict(_own(logs).settings())


def change_log_settings(
    logs: LogsPort | None, changes: Mapping[str, object]
) -> dict[str, LogValue]:
    """Change some settings, all of them or none; give all of them.

    Args:
        logs: Of the server.
        changes: By name; any values, as they were sent.

    Raises:
        InvalidRequest: A name is unknown, or a value is of the wrong type or unknown.
        Unsupported: A setting cannot be changed over the network.
    """
    own = _own(logs)
    checked = {name: _checked(name, value) for name, value in changes.items()}
    if checked:
        own.change(checked)
    return dict(own.settings())


def _own(logs: LogsPort | None) -> LogsPort:
    if logs is None:
        raise Unsupported("The log is configured by the program that this server is a part of.")
    return logs


def _checked(name: str, value: object) -> LogValue:
    where = f"'{name[:40]}' of the log settings"
    match name:
        case "log_file":
            raise Unsupported(
                "log file location can not be updated through network protocol. "
                "Set it when the server starts: --log-file."
            )
        case "log_info" | "log_warning" | "log_error":
            if not isinstance(value, bool):
                raise wrong_type(name, "boolean", where, value)
            return value
        case "log_verbose_level":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
                raise wrong_type(name, "unsigned-integer", where, value)
            return value
        case "log_format":
            if not isinstance(value, str):
                raise wrong_type(name, "string", where, value)
            if value not in _FORMATS:
                raise InvalidRequest(
                    f"invalid argument for --log_format, got: {value[:40]}. Accepted are "
                    f"{', '.join(_FORMATS)}."
                )
            return value
        case _:
            raise InvalidRequest(
                f"unknown log setting '{name[:40]}'. There are log_file, log_info, log_warning, "
                "log_error, log_verbose_level and log_format."
            )


_FORMATS = ("default", "ISO8601", "json")
