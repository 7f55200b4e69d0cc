"""What model files import as ``triton_python_backend_utils``.

The names are Triton's.
"""

import struct
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelport.dtypes import DATATYPE_BY_CONFIG_NAME, DATATYPE_BY_NUMPY
from modelport.runtimes.model_code import nearest_home
from modelport.runtimes.triton_python.calling import (
    ResponseIterator,
    is_model_ready,
    load_model,
    unload_model,
)
from modelport.runtimes.triton_python.errors import TritonError, TritonModelException
from modelport.runtimes.triton_python.logger import Logger
from modelport.runtimes.triton_python.memory import InferenceTrace, MemoryType, PreferredMemory
from modelport.runtimes.triton_python.metrics import Metric, MetricFamily, MetricKind
from modelport.runtimes.triton_python.model_config import ModelConfig
from modelport.runtimes.triton_python.request import (
    REQUEST_FLAG_SEQUENCE_END,
    REQUEST_FLAG_SEQUENCE_START,
    REQUEST_RELEASE_ALL,
    REQUEST_RELEASE_RESCHEDULE,
    InferenceRequest,
)
from modelport.runtimes.triton_python.response import (
    RESPONSE_COMPLETE_FINAL,
    InferenceResponse,
    InferenceResponseSender,
)
from modelport.runtimes.triton_python.tensor import NUMBER_BY_DATATYPE, Tensor
from modelport.tensors import Array

__all__ = [
    "TRITONSERVER_MEMORY_CPU",
    "TRITONSERVER_MEMORY_GPU",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "TRITONSERVER_REQUEST_RELEASE_ALL",
    "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE",
    "TRITONSERVER_RESPONSE_COMPLETE_FINAL",
    "TRITON_STRING_TO_NUMPY",
    "InferenceRequest",
    "InferenceResponse",
    "InferenceResponseSender",
    "InferenceTrace",
    "Logger",
    "MemoryType",
    "Metric",
    "MetricFamily",
    "MetricKind",
    "ModelConfig",
    "PreferredMemory",
    "ResponseIterator",
    "Tensor",
    "TritonError",
    "TritonModelException",
    "deserialize_bytes_tensor",
    "get_input_config_by_name",
    "get_input_tensor_by_name",
    "get_model_dir",
    "get_output_config_by_name",
    "get_output_tensor_by_name",
    "is_model_ready",
    "load_model",
    "numpy_to_triton_type",
    "serialize_byte_tensor",
    "triton_string_to_numpy",
    "triton_to_numpy_type",
    "unload_model",
    "using_decoupled_model_transaction_policy",
]

TRITONSERVER_RESPONSE_COMPLETE_FINAL = RESPONSE_COMPLETE_FINAL
TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = REQUEST_FLAG_SEQUENCE_START
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = REQUEST_FLAG_SEQUENCE_END
TRITONSERVER_REQUEST_RELEASE_ALL = REQUEST_RELEASE_ALL
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = REQUEST_RELEASE_RESCHEDULE
TRITONSERVER_MEMORY_GPU = MemoryType.TRITONSERVER_MEMORY_GPU
TRITONSERVER_MEMORY_CPU = MemoryType.TRITONSERVER_MEMORY_CPU


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The input of that name, or ``None`` where the caller left it out."""
    for tensor in inference_request._inputs:
        if tensor._name == name:
            return tensor
    return None


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The output of that name, or ``None``.

    Raises:
        TritonModelException: If the response is an error.
    """
    error = inference_response.error()
    if error is not None:
        raise TritonModelException(f"the response has no outputs, it is an error: {error}")
    for tensor in inference_response._output_tensors:
        if tensor._name == name:
            return tensor
    return None


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What a configuration, parsed from its JSON, says of an input."""
    return _config_by_name(model_config, "input", name)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What a configuration, parsed from its JSON, says of an output."""
    return _config_by_name(model_config, "output", name)


def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Whether a configuration, parsed from its JSON, allows any number of responses."""
    policy = model_config.get("model_transaction_policy") or {}
    return bool(policy.get("decoupled", False))


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """The numpy type for a configuration's ``data_type``; ``None`` for BF16, which has none."""
    if triton_type_string == "TYPE_BF16":
        return None
    return TRITON_STRING_TO_NUMPY[triton_type_string]


def triton_to_numpy_type(data_type: int) -> Any:
    """The numpy type for a number from ``Tensor.triton_dtype``; ``None`` where there is none."""
    return _NUMPY_BY_NUMBER.get(data_type)


def numpy_to_triton_type(data_type: Any) -> int | None:
    """The number for a numpy type or dtype; ``None`` where there is none."""
    dtype = np.dtype(data_type)
    if dtype.kind == "S":
        dtype = np.dtype(object)
    datatype = DATATYPE_BY_NUMPY.get(dtype)
    return None if datatype is None else NUMBER_BY_DATATYPE[datatype]


def serialize_byte_tensor(input_tensor: Array) -> bytes | None:
    """Put the elements of an object or bytes array one after another, each after its length.

    Returns:
        Row by row, 4-byte little-endian lengths; ``None`` for an array without elements, and for
        one of another dtype.
    """
    if input_tensor.size == 0 or input_tensor.dtype.kind not in "OS":
        return None
    parts = []
    for item in input_tensor.flat:
        data = bytes(item) if isinstance(item, bytes) else str(item).encode()
        parts.append(struct.pack("<I", len(data)))
        parts.append(data)
    return b"".join(parts)


def deserialize_bytes_tensor(encoded_tensor: bytes) -> Array:
    """Take apart what ``serialize_byte_tensor`` made, as a flat object array of bytes.

    Raises:
        TritonModelException: If a length reaches over the end.
    """
    items = []
    offset, end = 0, len(encoded_tensor)
    while offset < end:
        start = offset + 4
        if start > end:
            raise TritonModelException("the serialized tensor ends inside a length")
        (size,) = struct.unpack_from("<I", encoded_tensor, offset)
        offset = start + size
        if offset > end:
            raise TritonModelException("the serialized tensor ends inside an element")
        items.append(bytes(encoded_tensor[start:offset]))
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def get_model_dir() -> str:
    """The directory of the version whose code is calling."""
    home = nearest_home(sys._getframe(1))
    if home is None:
        raise TritonModelException("get_model_dir() was not called from a model's code")
    return str(home.directory)


def _config_by_name(
    model_config: Mapping[str, Any], section: str, name: str
) -> dict[str, Any] | None:
    for properties in model_config.get(section, ()):
        if properties["name"] == name:
            found: dict[str, Any] = properties
            return found
    return None


TRITON_STRING_TO_NUMPY = {
    name: datatype.numpy.type
    for name, datatype in DATATYPE_BY_CONFIG_NAME.items()
    if datatype.name != "BF16"
}

_NUMPY_BY_NUMBER = {
    number: datatype.numpy.type
    for datatype, number in NUMBER_BY_DATATYPE.items()
    if datatype.name != "BF16"
}
