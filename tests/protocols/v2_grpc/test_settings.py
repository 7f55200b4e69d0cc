from typing import Any

from modelport.engine.trace_settings import TraceSettings
from modelport.engine.tracing import Traces
from modelport.protocols.v2.options import V2Options
from modelport.specs import ModelConfig
from modelport.testing.clock import ManualClock
from modelport.testing.memory import MemoryCall, MemoryDeployment, MemoryEngine, MemoryGrpcServer
from modelport.wire.proto import grpc_service_pb2 as pb


class FakeLogs:
    """A log that only remembers how it is to be."""

    def __init__(self) -> None:
        self.now: dict[str, Any] = {"log_file": "", "log_info": True, "log_verbose_level": 0}

    def settings(self) -> dict[str, Any]:
        return self.now

    def change(self, changes: Any) -> None:
        self.now.update(changes)


class Bench:
    """A server with a log and traces."""

    def __init__(self) -> None:
        traces = Traces(TraceSettings(), "trace.json", lambda trace: None, ManualClock())
        options = V2Options(logs=FakeLogs(), traces=traces)
        model = MemoryDeployment(ModelConfig(name="a"), lambda request: None)
        self.server = MemoryGrpcServer(MemoryEngine([model]), options)

    def call(self, method: str, message: Any) -> MemoryCall:
        return self.server.call(method, message.SerializeToString())

    def ask(self, method: str, message: Any) -> Any:
        call = self.call(method, message)
        assert (call.status, call.text) == (0, "")
        return getattr(pb, f"{method}Response").FromString(call.sent[0])

    def log(self, **settings: Any) -> pb.LogSettingsRequest:
        given = {k: pb.LogSettingsRequest.SettingValue(**v) for k, v in settings.items()}
        return pb.LogSettingsRequest(settings=given)

    def trace(self, model: str = "", **settings: list[str]) -> pb.TraceSettingRequest:
        given = {
            name: pb.TraceSettingRequest.SettingValue(value=values)
            for name, values in settings.items()
        }
        return pb.TraceSettingRequest(model_name=model, settings=given)


def test_the_log_is_told_and_changed() -> None:
    bench = Bench()
    told = bench.ask("LogSettings", bench.log()).settings
    assert (told["log_file"].string_param, told["log_info"].bool_param) == ("", True)
    changes = bench.log(log_info={"bool_param": False}, log_verbose_level={"uint32_param": 3})
    told = bench.ask("LogSettings", changes).settings
    assert (told["log_info"].bool_param, told["log_verbose_level"].uint32_param) == (False, 3)


def test_a_bad_change_of_the_log_is_refused() -> None:
    bench = Bench()
    for given, status in (
        ({"log_info": {"uint32_param": 1}}, 3),
        ({"log_info": {}}, 3),
        ({"log_verbose_level": {"string_param": "1"}}, 3),
        ({"log_format": {"string_param": "loud"}}, 3),
        ({"log_file": {"string_param": "x"}}, 12),
        ({"colour": {"bool_param": True}}, 3),
    ):
        assert bench.call("LogSettings", bench.log(**given)).status == status, given


def test_traces_are_told_and_changed() -> None:
    bench = Bench()
    told = bench.ask("TraceSetting", bench.trace()).settings
    assert (list(told["trace_level"].value), list(told["trace_rate"].value)) == (["OFF"], ["1000"])
    both = ["TIMESTAMPS", "TENSORS"]
    told = bench.ask("TraceSetting", bench.trace("a", trace_level=both, trace_rate=["2"])).settings
    assert (list(told["trace_level"].value), list(told["trace_rate"].value)) == (both, ["2"])
    told = bench.ask("TraceSetting", bench.trace("a", trace_level=[], trace_rate=[])).settings
    assert (list(told["trace_level"].value), list(told["trace_rate"].value)) == (["OFF"], ["1000"])


def test_a_bad_change_of_traces_is_refused() -> None:
    bench = Bench()
    call = bench.call("TraceSetting", bench.trace(trace_rate=["1", "2"]))
    assert (call.status, call.text[:37]) == (3, "expect only 1 value for 'trace_rate',")
    call = bench.call("TraceSetting", bench.trace("x"))
    assert (call.status, call.text) == (3, "Request for unknown model : x")
    assert bench.call("TraceSetting", bench.trace(trace_file=["x"])).status == 12
