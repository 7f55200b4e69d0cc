"""A server that starts: what it says while its models come up, and one that has gRPC alone."""

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.asking import TWO, WITHIN_S, Asked, Rest, call, rest
from tests.served import Served, bounded, clean_environment

pytestmark = pytest.mark.slow

TEXT = "Server not ready: it is starting, and model 'slow' is not served yet; ask again when it is"
MODEL = """
import pathlib, time

class TritonPythonModel:
    def initialize(self, args):
        print("loading", flush=True)
        while not (pathlib.Path(__file__).parent / "go").exists():
            time.sleep(0.01)

    def execute(self, requests):
        return []
"""
IDENTITY = Path(__file__).parents[2] / "examples" / "models" / "identity"
CONFIGURATION = """
backend: "python"
input [{ name: "A" data_type: TYPE_FP32 dims: [2] }]
output [{ name: "O" data_type: TYPE_FP32 dims: [2] }]
"""


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def test_requests_that_come_before_the_models_are_up(tmp_path: Path) -> None:
    model = tmp_path / "slow" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text(MODEL)
    (tmp_path / "slow" / "config.pbtxt").write_text(CONFIGURATION)
    http, rpc = free_ports(2)
    ports = {
        "MODELPORT_HTTP_PORT": http,
        "MODELPORT_GRPC_PORT": rpc,
        "MODELPORT_METRICS_PORT": "off",
    }
    with (
        subprocess.Popen(
            [sys.executable, "-m", "modelport", "serve", str(tmp_path)],
            env=clean_environment() | ports,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process,
        bounded(process),
        grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        served = Served(process, url=f"http://127.0.0.1:{http}")
        asked = Asked("slow")
        assert rest(served, asked.by_rest()) == (503, TEXT)
        assert call(channel, asked.by_grpc()) == ("UNAVAILABLE", TEXT)
        assert rest(served, Rest("/v2/models/slow/ready", method="GET")) == (
            400,
            "Model version not ready",
        )
        ask = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        assert not pb.ServerReadyResponse.FromString(ask(b"", timeout=WITHIN_S)).ready
        (model.parent / "go").touch()
        ready_by = time.monotonic() + WITHIN_S
        while not pb.ServerReadyResponse.FromString(ask(b"", timeout=WITHIN_S)).ready:
            assert time.monotonic() < ready_by


def test_grpc_can_be_served_alone() -> None:
    """As by tritonserver's --allow-http=false."""
    with (
        subprocess.Popen(
            [sys.executable, "-m", "modelport", "serve", str(IDENTITY), "--allow-http=false"],
            env=clean_environment() | {"MODELPORT_GRPC_PORT": "0", "MODELPORT_METRICS_PORT": "off"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process,
        bounded(process),
    ):
        assert process.stdout is not None
        found = re.fullmatch(r"Modelport \S+ is ready \(gRPC: (\S+)\)\n", process.stdout.readline())
        assert found
        with grpc.insecure_channel(found[1]) as channel:
            message = pb.ModelInferRequest(model_name="identity")
            message.inputs.add(name="INPUT0", datatype="FP32", shape=[2])
            message.raw_input_contents.append(TWO)
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            answer = infer(message.SerializeToString(), timeout=WITHIN_S)
            assert pb.ModelInferResponse.FromString(answer).raw_output_contents == [TWO]
        served = Served(process, url=f"http://{found[1]}")
        assert rest(served, Rest("/v2", method="GET")) == (
            404,
            "Not Found. This port answers gRPC only, and REST has none; --http-port opens one.",
        )
