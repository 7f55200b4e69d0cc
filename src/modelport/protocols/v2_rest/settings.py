"""Settings that are read and changed while the server runs, over V2 REST."""

from typing import Any

from modelport.protocols.base import Exchange
from modelport.protocols.v2.log_settings import change_log_settings, log_settings
from modelport.protocols.v2.ports import EnginePort
from modelport.protocols.v2.trace_settings import (
    change_trace_settings,
    trace_settings,
    values_of,
)
from modelport.protocols.v2_rest.options import RestOptions
from modelport.protocols.v2_rest.replies import respond_json
from modelport.wire import json
from modelport.wire.v2_document import members_of

__all__ = ["SettingHandlers"]


class SettingHandlers:
    """The handlers; errors that they raise are the answer."""

    def __init__(self, engine: EnginePort, options: RestOptions) -> None:
        self._engine = engine
        self._options = options

    def log(self, exchange: Exchange) -> None:
        """Say what is logged."""
        respond_json(exchange, log_settings(self._options.logs))

    def change_log(self, exchange: Exchange) -> None:
        """Change what is logged."""
        respond_json(exchange, change_log_settings(self._options.logs, _changes(exchange)))

    def trace(self, exchange: Exchange) -> None:
        """Say what is traced, of all models or of one."""
        model = exchange.params.get("model")
        respond_json(exchange, trace_settings(self._engine, self._options.traces, model))

    def change_trace(self, exchange: Exchange) -> None:
        """Change what is traced, of all models or of one."""
        changes = {name: values_of(name, value) for name, value in _changes(exchange).items()}
        model = exchange.params.get("model")
        traces = self._options.traces
        respond_json(exchange, change_trace_settings(self._engine, traces, model, changes))


def _changes(exchange: Exchange) -> dict[str, Any]:
    text = bytes(exchange.body)
    json.check_depth(text)
    return members_of(json.decode(text) if text else {}, "the request")
