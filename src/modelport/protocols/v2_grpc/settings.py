"""Settings that are read and changed while the server runs, over V2 gRPC."""

from modelport.protocols.base import Buffer, Call
from modelport.protocols.v2.log_settings import LogValue, change_log_settings, log_settings
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2.ports import EnginePort
from modelport.protocols.v2.trace_settings import change_trace_settings
from modelport.protocols.v2_grpc.replies import reply
from modelport.wire import v2_grpc_admin as wire
from modelport.wire.proto import grpc_service_pb2 as pb

__all__ = ["SettingHandlers"]


class SettingHandlers:
    """The handlers; errors that they raise are the answer."""

    def __init__(self, engine: EnginePort, options: V2Options) -> None:
        self._engine = engine
        self._options = options

    def log(self, call: Call, data: Buffer) -> None:
        """Change what is logged, if anything is to change, and say what is."""
        message = wire.decode(pb.LogSettingsRequest, data)
        changes = {name: _value(given) for name, given in message.settings.items()}
        logs = self._options.logs
        settings = change_log_settings(logs, changes) if changes else log_settings(logs)
        response = pb.LogSettingsResponse()
        for name, value in settings.items():
            setattr(response.settings[name], _CHOICE[type(value)], value)
        reply(call, response.SerializeToString())

    def trace(self, call: Call, data: Buffer) -> None:
        """Change what is traced, if anything is to change, and say what is."""
        message = wire.decode(pb.TraceSettingRequest, data)
        changes = {name: list(given.value) or None for name, given in message.settings.items()}
        settings = change_trace_settings(
            self._engine, self._options.traces, message.model_name or None, changes
        )
        response = pb.TraceSettingResponse()
        for name, value in settings.items():
            response.settings[name].value.extend([value] if isinstance(value, str) else value)
        reply(call, response.SerializeToString())


def _value(given: pb.LogSettingsRequest.SettingValue) -> LogValue | None:
    choice = given.WhichOneof("parameter_choice")
    value: LogValue | None = None if choice is None else getattr(given, choice)
    return value


_CHOICE = {bool: "bool_param", int: "uint32_param", str: "string_param"}
