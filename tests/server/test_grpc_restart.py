"""A server that is replaced under load: clients that wait for a connection lose no call."""

import shutil
import socket
import threading
from pathlib import Path

import grpc
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.served import Served, serving

pytestmark = pytest.mark.slow

CLIENTS = 8
SERVICE = "/inference.GRPCInferenceService"
EXAMPLES = Path(__file__).parents[2] / "examples" / "models"


class Caller(threading.Thread):
    """Calls without pause on a connection of its own, and keeps what failed."""

    def __init__(self, address: str, until: threading.Event) -> None:
        super().__init__()
        self.calls = 0
        self.failures: list[object] = []
        self._address = address
        self._until = until

    def run(self) -> None:
        message = pb.ModelInferRequest(model_name="identity")
        message.inputs.add(name="INPUT0", datatype="FP32", shape=[1])
        message.raw_input_contents.append(bytes(4))
        options = [
            ("grpc.max_reconnect_backoff_ms", 100),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        with grpc.insecure_channel(self._address, options) as channel:
            infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
            while not self._until.is_set():
                try:
                    infer(message.SerializeToString(), timeout=60, wait_for_ready=True)
                    self.calls += 1
                except grpc.RpcError as exc:
                    # It listens before its models are ready, and says so.
                    if not exc.details().startswith("Server not ready: "):
                        self.failures.append(exc)


def test_no_call_is_lost_when_the_server_is_replaced(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "identity", tmp_path / "identity")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    done = threading.Event()
    callers = [Caller(f"127.0.0.1:{port}", done) for _ in range(CLIENTS)]
    environment = {"MODELPORT_GRPC_PORT": port}
    try:
        for number in range(3):
            with serving(str(tmp_path), environment=environment) as served:
                assert served.grpc_address
                for caller in callers if not number else ():
                    caller.start()
                go_on(served, callers)
    finally:
        done.set()
    with serving(str(tmp_path), environment=environment):
        for caller in callers:
            caller.join(60)
    assert not any(caller.is_alive() for caller in callers)
    assert [caller.failures for caller in callers] == [[]] * CLIENTS


def go_on(served: Served, callers: list[Caller]) -> None:
    """Wait until every client has been answered a while by this server."""
    goals = [caller.calls + 30 for caller in callers]
    for _ in range(2000):
        if all(caller.calls >= goal for caller, goal in zip(callers, goals, strict=True)):
            return
        threading.Event().wait(0.01)
    raise AssertionError("the clients are not served")
