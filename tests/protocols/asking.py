"""One request in the forms of both protocols, and the ways to send it and to hear the refusal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.served import Served

WITHIN_S = 30
TWO = np.array([1, 2], "<f4").tobytes()


class Rest(NamedTuple):
    """An HTTP request; a body that is no bytes is sent as JSON."""

    path: str
    body: Any = b""
    headers: Mapping[str, str] = {}
    method: str = "POST"


class Rpc(NamedTuple):
    """A call of one message."""

    method: str
    message: bytes = b""
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass
class In:
    """An input; the data are bytes."""

    name: str = "A"
    datatype: str = "FP32"
    shape: Sequence[int] = (2,)
    data: bytes = TWO


@dataclass
class Asked:
    """An inference request, whichever way it is sent."""

    model: str
    inputs: Sequence[In] = (In(),)
    outputs: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    id: str = ""

    def by_rest(self) -> Rest:
        """The tensors behind the JSON."""
        document: dict[str, Any] = {
            "id": self.id,
            "parameters": dict(self.parameters),
            "inputs": [
                {
                    "name": one.name,
                    "datatype": one.datatype,
                    "shape": list(one.shape),
                    "parameters": {"binary_data_size": len(one.data)},
                }
                for one in self.inputs
            ],
            "outputs": [{"name": name} for name in self.outputs],
        }
        head = json.dumps(document).encode()
        version = f"/versions/{self.version}" if self.version else ""
        body = head + b"".join(one.data for one in self.inputs)
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return Rest(f"/v2/models/{self.model}{version}/infer", body, headers)

    def by_grpc(self) -> Rpc:
        """The tensors in ``raw_input_contents``."""
        request = pb.ModelInferRequest(
            model_name=self.model, model_version=self.version, id=self.id
        )
        for one in self.inputs:
            request.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
            request.raw_input_contents.append(one.data)
        for name in self.outputs:
            request.outputs.add(name=name)
        for key, value in self.parameters.items():
            request.parameters[key].CopyFrom(parameter(value))
        return Rpc("ModelInfer", request.SerializeToString())


def parameter(value: Any) -> pb.InferParameter:
    """The parameter that holds a value of Python."""
    match value:
        case bool():
            return pb.InferParameter(bool_param=value)
        case int():
            return pb.InferParameter(int64_param=value)
        case float():
            return pb.InferParameter(double_param=value)
        case _:
            return pb.InferParameter(string_param=value)


def parameters(**values: Any) -> dict[str, pb.InferParameter]:
    """The same of several."""
    return {key: parameter(value) for key, value in values.items()}


def rest(served: Served, asked: Rest) -> tuple[int, str]:
    """Send one request; the status and the text of the error."""
    body = asked.body if isinstance(asked.body, bytes) else json.dumps(asked.body)
    connection = HTTPConnection(served.address, timeout=WITHIN_S)
    try:
        connection.request(asked.method, asked.path, body, dict(asked.headers))
        reply = connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text)["error"] if text else ""
    finally:
        connection.close()


def call(channel: grpc.Channel, asked: Rpc) -> tuple[str, str]:
    """Send one message; the name of the status and its text."""
    invoke = channel.unary_unary(f"/inference.GRPCInferenceService/{asked.method}")
    with pytest.raises(grpc.RpcError) as raised:
        invoke(asked.message, timeout=WITHIN_S, metadata=asked.metadata)
    return raised.value.code().name, raised.value.details()


def stream(
    channel: grpc.Channel, message: bytes, metadata: Sequence[tuple[str, str]] = ()
) -> list[pb.ModelStreamInferResponse]:
    """Send one request on a stream of its own; all that comes back.

    Raises:
        grpc.RpcError: The stream ended with another status than OK.
    """
    invoke = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    answers = invoke(iter([message]), timeout=WITHIN_S, metadata=metadata)
    return [pb.ModelStreamInferResponse.FromString(one) for one in answers]
