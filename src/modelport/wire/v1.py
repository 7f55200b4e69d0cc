"""Predictions as TensorFlow Serving has them over REST, and KServe's V1 and OVMS after it.

A request is rows, ``{"instances": [...]}`` answered by ``{"predictions": [...]}``, or columns,
``{"inputs": ...}`` answered by ``{"outputs": ...}``. A model with one input may be given its values
without its name; one with several gets an object for each row, or one object of columns. Shapes
are those of the nested lists. ``{"b64": "..."}`` is a value that is bytes.

Source: TensorFlow Serving, "RESTful API"; KServe, "V1 Inference Protocol".
"""

import base64
import binascii
import json as plain_json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidRequest
from modelport.messages import Request, Response, Tensors
from modelport.specs import ModelConfig, ModelInput
from modelport.tensors import Array, Tensor
from modelport.wire import json
from modelport.wire.json_arrays import LONG_VALUES, in_pieces
from modelport.wire.nested_numbers import decode_numbers
from modelport.wire.v2_bytes import string_array
from modelport.wire.v2_values import array_of

__all__ = [
    "MalformedJson",
    "Prediction",
    "decode_predict_request",
    "encode_predict_response",
    "model_metadata",
    "model_status",
    "version_status",
]

Buffer = bytes | bytearray | memoryview

LONG_BYTES = 1 << 14
"""Of a body from which on a list of numbers is looked for, and nothing else in it."""
LONG_HEAD_BYTES = 256
"""In which all that stands before such a list, or after it, has its place."""

_SIGNATURE = rb'"signature_name"\s*:\s*"(?:serving_default)?"\s*'
_HEAD = re.compile(rb'\s{0,64}\{\s*(?:%b,\s*)?"(instances|inputs)"\s*:\s*(?=\[)' % _SIGNATURE)
_TAIL = re.compile(rb"\s*(?:,\s*%b)?\}\s*" % _SIGNATURE)


class MalformedJson(InvalidRequest):
    """The body is no JSON; OVMS has a status of its own for that."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A request and the form of its answer.

    Attributes:
        request: For the engine.
        is_row: Rows in the request, so rows in the answer.
    """

    request: Request
    is_row: bool


def decode_predict_request(
    body: Buffer,
    config: ModelConfig,
    *,
    most_depth: int = json.MAX_DEPTH,
    most_bytes: int | None = None,
) -> Prediction:
    """Read a request for the model of ``config``.

    Args:
        body: Whole. Long lists of numbers alone are read in pieces; take a thread for them.
        config: Complete.
        most_depth: Levels that the JSON may have.
        most_bytes: Of all other JSON, which is read in one go; ``None`` for any number.

    Raises:
        MalformedJson: If the body is no JSON.
        InvalidRequest: If it has neither rows nor columns, or they do not make tensors of the
            model's datatypes.
        TooLarge: If it is longer than ``most_bytes``.
    """
    simple = _numbers(body, config, most_depth) if len(body) > LONG_BYTES else None
    if simple is not None:
        return simple
    json.check_size(len(body), most_bytes)
    members = _parse(body, most_depth)
    if type(members) is not dict:
        raise InvalidRequest("Invalid JSON structure. The body must be a JSON object.")
    name = members.get("signature_name", "")
    if name not in ("", "serving_default"):
        raise InvalidRequest(
            f'Serving signature name: "{str(name)[:80]}" not found in signature def. There is '
            "'serving_default', and no other."
        )
    is_row, is_column = "instances" in members, "inputs" in members
    if is_row == is_column:
        raise InvalidRequest(
            "Invalid JSON structure. Could not detect row or column format: give 'instances', "
            f"a list of rows, or 'inputs', columns by name; got {'both' if is_row else 'neither'}."
        )
    if is_row:
        columns = _columns_of_rows(members["instances"], config)
    else:
        columns = _columns(members["inputs"], config)
    entry_by_name = {entry.name: entry for entry in config.input}
    tensors = [
        _tensor(name, values, entry_by_name.get(name), config) for name, values in columns.items()
    ]
    return Prediction(Request(Tensors(tensors)), is_row)


def encode_predict_response(response: Response, *, is_row: bool) -> list[Buffer]:
    """Write a response in the form of its request.

    Raises:
        InvalidRequest: If rows were asked for, and the outputs do not have the same number of them.
    """
    outputs = response.outputs
    count = _row_count(outputs) if is_row else 0
    start = b'{"predictions":' if is_row else b'{"outputs":'
    if len(outputs) == 1:
        return [start, *_pieces(_value(outputs[0])), b"}"]
    columns = {tensor.name: _value(tensor) for tensor in outputs}
    if not is_row:
        return [start, *_object_pieces(columns), b"}"]
    if sum(tensor.array.size for tensor in outputs) <= LONG_VALUES:
        rows = [{name: value[index] for name, value in columns.items()} for index in range(count)]
        return [start, _dumps(rows), b"}"]
    pieces: list[Buffer] = [start]
    before = b"["
    for index in range(count):
        pieces.append(before)
        pieces += _object_pieces({name: value[index] for name, value in columns.items()})
        before = b","
    return [*pieces, b"]}"]


def model_status(name: str, rows: Sequence[tuple[str, str, str]], *, is_ready: bool) -> Any:
    """Say how the versions of a model are; TensorFlow Serving's answer and KServe's in one.

    Args:
        name: Of the model.
        rows: Version, state and reason, as in the index of V2.
        is_ready: Whether any answers.
    """
    return {"name": name, "ready": is_ready, **version_status(rows)}


def version_status(rows: Sequence[tuple[str, str, str]]) -> Any:
    """Say how the versions of a model are, with newer ones first."""
    ordered = sorted(rows, key=lambda row: -int(row[0]))
    return {
        "model_version_status": [
            {
                "version": version,
                "state": _STATE.get(state, "UNKNOWN"),
                "status": _status(state, reason),
            }
            for version, state, reason in ordered
        ]
    }


def model_metadata(config: ModelConfig, version: int) -> Any:
    """Say what a model takes and gives, in the JSON form of TensorFlow Serving's message."""
    batch = (-1,) if config.max_batch_size > 0 else ()
    signature = {
        "inputs": {i.name: _tensor_info(i.name, i.datatype, batch + i.dims) for i in config.input},
        "outputs": {
            o.name: _tensor_info(o.name, o.datatype, batch + o.dims) for o in config.output
        },
        "methodName": "tensorflow/serving/predict",
        "defaults": {},
    }
    return {
        "modelSpec": {"name": config.name, "signatureName": "", "version": str(version)},
        "metadata": {
            "signature_def": {
                "@type": "type.googleapis.com/tensorflow.serving.SignatureDefMap",
                "signatureDef": {"serving_default": signature},
            }
        },
    }


# --- requests -----------------------------------------------------------------------------------


def _parse(body: Buffer, most_depth: int) -> Any:
    text = bytes(body) if isinstance(body, memoryview) else body
    json.check_depth(text, most_depth)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Bare NaN, or really no JSON; who reads exactly says which.
        try:
            return json.decode(text, most_depth)
        except InvalidRequest as exc:
            raise MalformedJson(f"The file is not valid json - {exc}") from None


def _numbers(body: Buffer, config: ModelConfig, most_depth: int) -> Prediction | None:
    """Read a request that is one list of numbers, as most long ones are; ``None`` for others."""
    view = memoryview(body)
    head = _HEAD.match(body)
    end = bytes(view[-LONG_HEAD_BYTES:]).rfind(b"]") + 1 - LONG_HEAD_BYTES
    required = [entry for entry in config.input if not entry.optional]
    if head is None or end >= 0 or len(required) != 1 or _TAIL.fullmatch(view[end:]) is None:
        return None
    text = view[head.end() : end]
    # The object around it is one level more.
    if bytes(text[:most_depth]).lstrip(b"[ \t\r\n") == b"":
        return None
    (entry,) = required
    array = decode_numbers(text, entry.datatype, entry.name)
    if array is None:
        return None
    array = array.reshape(_meant_shape(array.shape, entry, config))
    tensor = Tensor(entry.name, entry.datatype, array)
    return Prediction(Request(Tensors([tensor])), head[1] == b"instances")


def _columns_of_rows(rows: Any, config: ModelConfig) -> dict[str, list[Any]]:
    if type(rows) is not list or not rows:
        raise InvalidRequest(
            "Invalid JSON structure. 'instances' must be a list of at least one row."
        )
    if not _is_named(rows[0]):
        return {_only_input(config): rows}
    names = rows[0].keys()
    for index, row in enumerate(rows):
        if not _is_named(row) or row.keys() != names:
            raise InvalidRequest(
                "Invalid JSON structure. Every row of 'instances' must be an object with the same "
                f"names; row 0 has {_listed(names)}, and row {index} is another"
            )
    return {name: [row[name] for row in rows] for name in names}


def _columns(columns: Any, config: ModelConfig) -> dict[str, Any]:
    if _is_named(columns):
        named: dict[str, Any] = columns
        return named
    return {_only_input(config): columns}


def _is_named(value: Any) -> bool:
    """Whether an object holds values by name, and is not bytes itself."""
    return type(value) is dict and value.keys() != {"b64"}


def _only_input(config: ModelConfig) -> str:
    required = [entry.name for entry in config.input if not entry.optional]
    if len(required) == 1:
        return required[0]
    raise InvalidRequest(
        "Invalid JSON structure. Values without a name need a model with one input; model "
        f"'{config.name}' has {_listed(entry.name for entry in config.input)}. Give an object."
    )


def _tensor(name: str, values: Any, entry: ModelInput | None, config: ModelConfig) -> Tensor:
    flat, shape = _flattened(values, name)
    if entry is None:
        # The engine says which inputs there are; what their values are does not matter.
        return Tensor(name, dtypes.BYTES, string_array([b""] * len(flat), shape, name), shape)
    shape = _meant_shape(shape, entry, config)
    kinds = set(map(type, flat))
    # Under OVMS, texts may stand for rows of bytes.
    is_text = kinds == {str} and entry.datatype is dtypes.UINT8 and len(shape) == 2
    if dict in kinds or is_text:
        elements = [_bytes(value, name) for value in flat]
        return Tensor(name, dtypes.BYTES, string_array(elements, shape, name))
    return Tensor(name, entry.datatype, array_of(flat, entry.datatype, shape, name))


def _meant_shape(shape: tuple[int, ...], entry: ModelInput, config: ModelConfig) -> tuple[int, ...]:
    expected = ((-1,) if config.max_batch_size > 0 else ()) + entry.dims
    if not shape and expected:
        # A value alone, where a list of one was meant.
        shape = (1,)
    if len(shape) == len(expected) - 1 and expected[-1] in (1, -1):
        # [1, 2, 3] for a column of shape [-1, 1]: everybody writes it so.
        shape = (*shape, 1)
    return shape


def _flattened(values: Any, name: str) -> tuple[list[Any], tuple[int, ...]]:
    """Take lists out of lists; gives the values and the shape that they had."""
    level = [values]
    shape: list[int] = []
    while level and (kinds := set(map(type, level))) == {list}:
        lengths = set(map(len, level))
        if len(lengths) > 1:
            few, many = min(lengths), max(lengths)
            raise InvalidRequest(
                f"Encountered list of size: {few} where other lists have size: {many} in input "
                f"'{name}'; lists of one level must be of one length"
            )
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    if level and list in kinds:
        raise InvalidRequest(
            f"Encountered list beside values in input '{name}'; all values must be equally deep"
        )
    return level, tuple(shape)


def _bytes(value: Any, name: str) -> bytes:
    if type(value) is str:
        return value.encode()
    text = value.get("b64") if type(value) is dict and len(value) == 1 else None
    if type(text) is not str:
        raise InvalidRequest(
            f"Unable to parse 'b64' of input '{name}': bytes are "
            '{"b64": "<base64>"}, and nothing else is in the object'
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            f"Unable to base64 decode the value of 'b64' in input '{name}'"
        ) from None


def _listed(names: Any) -> str:
    return f"[{', '.join(map(repr, names))}]"


# --- responses ----------------------------------------------------------------------------------


def _row_count(outputs: Sequence[Tensor]) -> int:
    counts = {tensor.shape[0] if tensor.shape else -1 for tensor in outputs}
    if len(counts) == 1 and -1 not in counts:
        return counts.pop()
    shapes = ", ".join(f"'{tensor.name}' {list(tensor.shape)}" for tensor in outputs)
    raise InvalidRequest(
        f"the outputs have inconsistent batch size: {shapes}. They cannot be said in rows; send "
        "'inputs' in place of 'instances' to get columns."
    )


def _value(tensor: Tensor) -> Any:
    """What the encoder takes: an array of numbers, or lists of strings."""
    array = tensor.array
    if tensor.datatype is dtypes.BYTES:
        is_binary = tensor.name.endswith("_bytes")
        flat = [_string(value, is_binary) for value in array.ravel().tolist()]
        nested = np.empty(len(flat), object)
        nested[:] = flat
        return nested.reshape(array.shape).tolist()
    if tensor.datatype is dtypes.BF16:
        array = dtypes.float32_from_bf16(array)
    elif tensor.datatype is dtypes.FP16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _string(value: Any, is_binary: bool) -> Any:
    data = value if type(value) is bytes else str(value).encode()
    if not is_binary:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(data).decode()}


def _object_pieces(values: Mapping[str, Any]) -> Iterator[bytes]:
    before = b"{"
    for name, value in values.items():
        yield before + _dumps(name) + b":"
        yield from _pieces(value)
        before = b","
    yield b"}"


def _pieces(value: Any) -> Iterable[bytes]:
    if isinstance(value, np.ndarray) and value.size > LONG_VALUES:
        return in_pieces(value, _dumps)
    return (_dumps(value),)


def _dumps(value: Any) -> bytes:
    encoded = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" in encoded:
        # NaN and Infinity, for which there are words here as in TensorFlow Serving.
        return plain_json.dumps(value, default=_listed_array, separators=(",", ":")).encode()
    return encoded


def _listed_array(array: Array) -> Any:
    return array.tolist()


# --- models -------------------------------------------------------------------------------------


def _status(state: str, reason: str) -> Mapping[str, str]:
    # Who serves is fine, though it may have failed to load anew; so is who was told to go.
    if state == "READY" or reason.partition(",")[0] in ("", "unloaded"):
        return {"error_code": "OK", "error_message": "OK"}
    return {"error_code": "UNKNOWN", "error_message": reason}


def _tensor_info(name: str, datatype: DataType, shape: Sequence[int]) -> Any:
    return {
        "dtype": _DTYPE[datatype],
        "tensorShape": {
            "dim": [{"size": str(size), "name": ""} for size in shape],
            "unknownRank": False,
        },
        "name": name,
    }


_STATE = {
    "READY": "AVAILABLE",
    "LOADING": "LOADING",
    "UNLOADING": "UNLOADING",
    "UNAVAILABLE": "END",
    "UNKNOWN": "START",
}

_DTYPE = {datatype: f"DT_{name}" for name, datatype in DATATYPE_BY_NAME.items()} | {
    dtypes.FP16: "DT_HALF",
    dtypes.FP32: "DT_FLOAT",
    dtypes.FP64: "DT_DOUBLE",
    dtypes.BF16: "DT_BFLOAT16",
    dtypes.BYTES: "DT_STRING",
}
