"""Everything of V2 REST that is not inference: metadata, statistics, index, loads and unloads.

Source: Open Inference Protocol, REST; Triton's extensions for statistics, model repository and
model configuration.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from modelport.dtypes import DataType
from modelport.errors import InvalidRequest
from modelport.specs import ModelConfig
from modelport.stats import BatchDurations, Duration, ModelStatistics, ResponseDurations
from modelport.wire import json
from modelport.wire.v2_document import members_of
from modelport.wire.v2_values import wrong_type

__all__ = [
    "EXTENSIONS",
    "LoadRequest",
    "decode_index_request",
    "decode_load_request",
    "decode_unload_request",
    "model_metadata",
    "statistics",
    "unknown_load_parameter",
    "wrong_load_parameter",
]

Buffer = bytes | bytearray | memoryview

EXTENSIONS = (
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
    "generate",
)
"""Triton sends its whole list always; clients look names up in it, so all that have routes."""


class LoadRequest(Struct, frozen=True, kw_only=True):
    """What a load asks for.

    Attributes:
        config: Replaces the model's configuration; JSON, as it was sent.
        files: Replace the model's directory; by path inside it.
    """

    config: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


def decode_load_request(body: Buffer, model: str, most_depth: int = json.MAX_DEPTH) -> LoadRequest:
    """Read the body of a load; an empty one asks for nothing special.

    Raises:
        InvalidRequest: If it is malformed, or has a parameter that is unknown or no string.
    """
    config: str | None = None
    files: dict[str, bytes] = {}
    for key, value in _parameters(body, most_depth).items():
        if key != "config" and not key.startswith("file:"):
            raise unknown_load_parameter(key, model)
        if type(value) is not str:
            raise wrong_load_parameter(key, "string_param", model)
        if key == "config":
            config = value
        else:
            files[key.removeprefix("file:")] = _file(key, value, model)
    return LoadRequest(config=config, files=files)


def unknown_load_parameter(key: str, model: str) -> InvalidRequest:
    """The error of a parameter that loads do not have."""
    return InvalidRequest(
        f"unrecognized load parameter '{key[:80]}'. Accepted are 'config' and "
        f"'file:<version>/<path>'; failed to load '{model}'."
    )


def wrong_load_parameter(key: str, expected: str, model: str) -> InvalidRequest:
    """The error of a parameter of a load that has the wrong type."""
    return InvalidRequest(
        f"invalid value type for load parameter '{key[:80]}', expected {expected}. "
        f"So the server failed to load '{model}'."
    )


def decode_unload_request(body: Buffer, most_depth: int = json.MAX_DEPTH) -> bool:
    """Read the body of an unload: whether what was loaded only for the model goes with it.

    Raises:
        InvalidRequest: If it is malformed.
    """
    parameters = _parameters(body, most_depth)
    value = parameters.get("unload_dependents", False)
    if type(value) is not bool:
        raise wrong_type(
            "unload_dependents", "boolean", "'unload_dependents' of the parameters", value
        )
    return value


def decode_index_request(body: Buffer, most_depth: int = json.MAX_DEPTH) -> bool:
    """Read the body of an index request: whether only what is ready is wanted.

    Raises:
        InvalidRequest: If it is malformed.
    """
    value = _object(body, most_depth).get("ready", False)
    if type(value) is not bool:
        raise InvalidRequest("Invalid value for 'ready': expected a boolean")
    return value


def model_metadata(config: ModelConfig, versions: Sequence[int]) -> dict[str, Any]:
    """Say what a model takes and gives."""
    is_batching = config.max_batch_size > 0
    return {
        "name": config.name,
        "versions": [str(version) for version in versions],
        "platform": config.platform or config.backend,
        "inputs": [_tensor(i.name, i.datatype, i.dims, is_batching) for i in config.input],
        "outputs": [_tensor(o.name, o.datatype, o.dims, is_batching) for o in config.output],
    }


def statistics(name: str, version: int, counted: ModelStatistics) -> dict[str, Any]:
    """Say what a version has done."""
    return {
        "name": name,
        "version": str(version),
        "last_inference": counted.last_inference_ms,
        "inference_count": counted.inference_count,
        "execution_count": counted.execution_count,
        "inference_stats": _durations(counted, _INFERENCE),
        "response_stats": {
            index: _durations(one, _RESPONSE) for index, one in counted.response_stats.items()
        },
        "batch_stats": [_batch(rows, one) for rows, one in sorted(counted.batch_stats.items())],
        "memory_usage": [],
    }


_INFERENCE = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
)
_RESPONSE = ("compute_infer", "compute_output", "success", "fail", "empty_response", "cancel")


def _durations(
    counted: ModelStatistics | ResponseDurations, names: Sequence[str]
) -> dict[str, dict[str, int]]:
    durations: list[tuple[str, Duration]] = [(name, getattr(counted, name)) for name in names]
    return {name: {"count": duration.count, "ns": duration.ns} for name, duration in durations}


def _batch(rows: int, one: BatchDurations) -> dict[str, Any]:
    return {
        "batch_size": rows,
        "compute_input": {"count": one.count, "ns": one.compute_input_ns},
        "compute_infer": {"count": one.count, "ns": one.compute_infer_ns},
        "compute_output": {"count": one.count, "ns": one.compute_output_ns},
    }


def _tensor(
    name: str, datatype: DataType, dims: Sequence[int], is_batching: bool
) -> dict[str, Any]:
    shape = [-1, *dims] if is_batching else list(dims)
    return {"name": name, "datatype": datatype.name, "shape": shape}


def _object(body: Buffer, most_depth: int) -> dict[str, Any]:
    return members_of(json.decode(body, most_depth), "the request") if len(body) else {}


def _parameters(body: Buffer, most_depth: int) -> dict[str, Any]:
    value = _object(body, most_depth).get("parameters", {})
    if type(value) is not dict:
        raise InvalidRequest(
            "failed to get request params.: attempt to get members for non-object. "
            "'parameters' must be an object."
        )
    return value


def _file(key: str, text: str, model: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            f"invalid value for load parameter '{key}', expected base64; failed to load '{model}'."
        ) from None
