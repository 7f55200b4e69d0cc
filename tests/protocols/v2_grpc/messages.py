"""Models, requests and servers for the tests of this protocol."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelport.errors import ModelportError
from modelport.messages import Request, Response
from modelport.protocols.v2.options import V2Options
from modelport.specs import ModelConfig, ModelInput, ModelOutput, TransactionPolicy
from modelport.tensors import Tensor
from modelport.testing.memory import MemoryDeployment, MemoryEngine, MemoryGrpcServer
from modelport.wire.proto import grpc_service_pb2 as pb

CONFIG = ModelConfig(
    name="m",
    input=(ModelInput(name="I", data_type="TYPE_FP32", dims=(2,)),),
    output=(ModelOutput(name="O", data_type="TYPE_FP32", dims=(2,)),),
)
DECOUPLED = ModelConfig(
    name="d",
    input=CONFIG.input,
    output=CONFIG.output,
    model_transaction_policy=TransactionPolicy(decoupled=True),
)
TWO = np.array([1, 2], "<f4")


def response(*values: float, **parameters: Any) -> Response:
    array = np.array(values or TWO, "<f4")
    return Response([Tensor("O", CONFIG.output[0].datatype, array)], parameters)


def echo(request: Request) -> Sequence[Response | ModelportError]:
    return [Response([Tensor("O", t.datatype, t.array) for t in request.payload.tensors])]


def later(request: Request) -> None:
    """Leave the answer to the test."""


def served(
    answer: Any = echo, config: ModelConfig = CONFIG, options: V2Options | None = None
) -> tuple[MemoryGrpcServer, MemoryDeployment]:
    deployment = MemoryDeployment(config, answer)
    return MemoryGrpcServer(MemoryEngine([deployment]), options), deployment


def message(model: str = "m", *, parameters: dict[str, Any] | None = None, **members: Any) -> bytes:
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[TWO.tobytes()], **members)
    if not request.inputs:
        request.inputs.add(name="I", datatype="FP32", shape=[2])
    for key, value in (parameters or {}).items():
        member = "bool_param" if isinstance(value, bool) else "string_param"
        request.parameters[key].CopyFrom(pb.InferParameter(**{member: value}))
    return request.SerializeToString()
