"""Settings of traces, read and changed over the network; for REST and gRPC alike."""

from collections.abc import Mapping, Sequence

from modelport.errors import InvalidRequest, Unsupported
from modelport.protocols.v2.ports import EnginePort, TracesPort

__all__ = ["change_trace_settings", "trace_settings", "values_of"]

Settings = Mapping[str, str | list[str]]


def trace_settings(engine: EnginePort, traces: TracesPort | None, model: str | None) -> Settings:
    """Say what is traced, of all models or of one.

    Raises:
        InvalidRequest: There is no such model.
        Unsupported: Nothing is traced in this server.
    """
    return _checked(engine, traces, model).settings(model)


def change_trace_settings(
    engine: EnginePort,
    traces: TracesPort | None,
    model: str | None,
    changes: Mapping[str, Sequence[str] | None],
) -> Settings:
    """Change some settings, all of them or none; give all of them.

    Args:
        engine: Knows the models.
        traces: What is traced.
        model: Whose settings; ``None`` for those of all models.
        changes: Values by name; ``None`` goes back to what holds without.

    Raises:
        InvalidRequest: There is no such model, setting or value.
        Unsupported: A setting cannot be changed, or nothing is traced in this server.
    """
    allowed = _checked(engine, traces, model)
    allowed.change(model, changes)
    return allowed.settings(model)


def values_of(name: str, value: object) -> Sequence[str] | None:
    """Read a setting as JSON has it: a text, a list of texts, or null.

    Raises:
        InvalidRequest: It is something else.
    """
    if value is None:
        return None
    listed = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) or type(one) is int for one in listed):
        raise InvalidRequest(
            f"Unable to parse '{name[:40]}': a setting is a string, a list of strings, or null"
        )
    return [str(one) for one in listed]


def _checked(engine: EnginePort, traces: TracesPort | None, model: str | None) -> TracesPort:
    if traces is None:
        raise Unsupported("Nothing is traced in this server.")
    if model is not None and not engine.deployments(model):
        raise InvalidRequest(f"Request for unknown model : {model}")
    return traces
