"""The ``data`` of a tensor in V2 JSON, both ways: a list of values and an array.

The fast way decodes into a typed list and lays that out in one go; whatever it refuses is parsed
again by the exact way, which either finds it right after all (NaN, nested in some odd manner) or
says what is wrong and where. Both come to the same array for what both accept.

Values must come back with the same bits. A number is written with the fewest digits that name
its float32, and read by most clients as a double which they then round: twice rounded. That goes
wrong for exactly one magnitude out of 2^31, see :data:`_TWICE_ROUNDED`.

Source: Open Inference Protocol, "Tensor Data"; Triton, ``http_server.cc``.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson

from modelport import dtypes
from modelport.dtypes import DataType
from modelport.errors import InvalidRequest
from modelport.tensors import Array
from modelport.wire import json as exact_json

__all__ = [
    "CODECS",
    "MAX_DIMENSIONS",
    "MAX_ELEMENTS",
    "array_of",
    "decode_in_pieces",
    "decode_values",
    "encode_values",
    "impossible_shape",
    "lay_out",
    "overflowing_size",
    "shape_text",
    "wrong_type",
]

MAX_DIMENSIONS = 32
"""What every numpy can hold."""

MAX_ELEMENTS = 2**63 - 1

_PREPARED = 64
"""Up to so many values, their ``struct`` is compiled before the first request."""

PIECE_BYTES = 1 << 18
"""Of the text of values that is read at a time: about 2 ms, after which other threads may go on.
One call for all of 60 MB would have everybody wait for a second, and hold a Python object for each
number."""

_TWICE_ROUNDED = b"7.038531e-26"
"""The shortest name of float32 0x15ae43fd; the double nearest to it lies in the middle between
that float and the next, and then goes to the wrong one. Found by trying all 2^31 magnitudes."""

_UNAMBIGUOUS = b"7.0385307e-26"


def decode_values(
    raw: msgspec.Raw | list[Any],
    datatype: DataType,
    shape: tuple[int, ...],
    name: str,
    most_exact: int | None = None,
) -> Array:
    """Read the values of one tensor, flat or nested in any way.

    Args:
        raw: The JSON text of ``data``, known to be well-formed; or what the exact way has parsed.
        datatype: As announced.
        shape: As announced, no dimension negative.
        name: Of the tensor, for the texts of errors.
        most_exact: Bytes of a text that may take the exact way, with everybody else waiting;
            ``None`` for any number.

    Raises:
        InvalidRequest: If a value is of the wrong type or out of range, or their number is not
            that of the shape.
        TooLarge: If the text would have to take the exact way, and is longer than that.
    """
    if isinstance(raw, list):
        return array_of(_flat(raw), datatype, shape, name)
    codec = CODECS[datatype]
    if len(raw) > 2 * PIECE_BYTES:
        found = decode_in_pieces(memoryview(raw), codec, datatype, shape, name)
        if found is not None:
            return found
    try:
        values = codec.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        exact_json.check_size(len(raw), most_exact)
        values = _decode_nested(raw, codec, datatype, name)
    return _packed(values, codec, datatype, shape, name)


def decode_in_pieces(
    text: memoryview, codec: "_Codec", datatype: DataType, shape: tuple[int, ...], name: str
) -> Array | None:
    """Read many values, a piece of the text at a time; ``None`` for the way of the whole.

    The text is well-formed, so without its brackets it is a flat list, unless there were empty
    ones or something else than values. Strings keep their brackets, and have to be flat.
    """
    if text[0] != ord("["):
        return None
    is_text = datatype is dtypes.BYTES
    if is_text:
        text = text[1:-1]
    packed: list[Any] = []
    count = start = 0
    while start < len(text):
        piece = _next_piece(text, start, b'",' if is_text else b",")
        start += len(piece) + 1
        try:
            values = codec.decode(b"[%b]" % (piece if is_text else piece.translate(None, b"[]")))
            packed.append(codec.pack(values))
        except (msgspec.DecodeError, OverflowError, FloatingPointError, struct.error):
            return None
        if not values:
            return None
        count += len(values)
    if count != math.prod(shape):
        raise _wrong_count(count, shape, name)
    if is_text:
        return lay_out(np.concatenate(packed), datatype, shape, name)
    return lay_out(bytearray(b"").join(packed), datatype, shape, name)


def _next_piece(text: memoryview, start: int, separator: bytes) -> bytes:
    """Cut a piece off that ends with a value; one that is too long by itself makes it longer.

    A separator inside of a string cuts that in two, which no decoder takes.
    """
    size = PIECE_BYTES
    while True:
        piece = bytes(text[start : start + size])
        if start + size >= len(text):
            return piece
        cut = piece.rfind(separator)
        if cut >= 0:
            return piece[: cut + len(separator) - 1]
        size *= 2


def array_of(values: list[Any], datatype: DataType, shape: tuple[int, ...], name: str) -> Array:
    """Make an array of parsed values, flat ones; otherwise like :func:`decode_values`."""
    checked = _check_types(values, datatype, name)
    return _packed(checked, CODECS[datatype], datatype, shape, name)


def _packed(
    values: Sequence[Any], codec: "_Codec", datatype: DataType, shape: tuple[int, ...], name: str
) -> Array:
    if len(values) != math.prod(shape):
        raise _wrong_count(len(values), shape, name)
    try:
        packed = codec.pack(values)
        # Writable, because nobody else has it: models that write into their inputs need no copy.
        buffer = bytearray(packed) if type(packed) is bytes else packed
        return lay_out(buffer, datatype, shape, name)
    except (OverflowError, FloatingPointError, struct.error):
        raise _out_of_range(values, datatype, name) from None


def encode_values(array: Array, datatype: DataType, name: str) -> bytes:
    """Write the values of one tensor as a flat JSON array, row-major.

    Raises:
        InvalidRequest: If BYTES are not UTF-8: JSON has no way to say them.
    """
    special = _SPECIAL.get(datatype)
    if special is not None:
        return special(array, name)
    encoded = orjson.dumps(array.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
    # One letter is found faster than a word, and no number but these has it.
    if b"n" in encoded:
        # "null": orjson has no word for NaN and Infinity.
        return json.dumps(array.ravel().tolist(), separators=(",", ":")).encode()
    if b"e" in encoded and datatype is dtypes.FP32 and _TWICE_ROUNDED in encoded:
        return encoded.replace(_TWICE_ROUNDED, _UNAMBIGUOUS)
    return encoded


def lay_out(
    buffer: Any, datatype: DataType, shape: tuple[int, ...], name: str, offset: int = 0
) -> Array:
    """Make an array of a buffer that holds exactly what the shape asks for; no copy.

    Raises:
        InvalidRequest: If numpy cannot hold such a shape.
    """
    try:
        if type(buffer) is np.ndarray:
            return buffer.reshape(shape)
        return np.ndarray(shape, datatype.numpy, buffer, offset)
    except ValueError:
        raise impossible_shape(shape, name) from None


def impossible_shape(shape: tuple[int, ...], name: str) -> InvalidRequest:
    """The error of a shape that no array has, whatever its data."""
    if len(shape) > MAX_DIMENSIONS:
        return InvalidRequest(
            f"invalid shape for input '{name}': shape {shape_text(shape)} has {len(shape)} "
            f"dimensions, and at most {MAX_DIMENSIONS} are accepted"
        )
    return InvalidRequest(
        f"invalid shape for input '{name}': shape {shape_text(shape)} causes total element count "
        f"to exceed maximum size of {MAX_ELEMENTS}"
    )


def overflowing_size(shape: tuple[int, ...], name: str) -> InvalidRequest:
    """The error of a shape whose elements could be counted, and their bytes could not."""
    return InvalidRequest(
        f"byte size overflow for input '{name}': shape {shape_text(shape)} causes total byte size "
        f"to exceed maximum size of {MAX_ELEMENTS}"
    )


def shape_text(shape: Sequence[int]) -> str:
    """``[-1,16]``, cut short where it would be long."""
    dims = ",".join(str(dim) for dim in shape[:MAX_DIMENSIONS])
    return f"[{dims}]" if len(shape) <= MAX_DIMENSIONS else f"[{dims},...]"


def _encode_strings(array: Array, name: str) -> bytes:
    values = array.ravel().tolist()
    try:
        return orjson.dumps([v.decode() if type(v) is bytes else str(v) for v in values])
    except (UnicodeDecodeError, TypeError):
        raise InvalidRequest(
            f"tensor '{name}' holds BYTES that are not UTF-8 and cannot be sent as JSON. "
            'Ask for it as binary data: "parameters":{"binary_data":true} on the output, or '
            '"binary_data_output":true on the request.'
        ) from None


_SPECIAL: dict[DataType, Callable[[Array, str], bytes]] = {
    dtypes.BYTES: _encode_strings,
    dtypes.BF16: lambda array, name: encode_values(
        dtypes.float32_from_bf16(array), dtypes.FP32, name
    ),
    # As float32, because the fewest digits that name a float16 are too few for other readers.
    dtypes.FP16: lambda array, name: encode_values(array.astype(np.float32), dtypes.FP32, name),
}


# --- the exact way ------------------------------------------------------------------------------


def _decode_nested(
    raw: msgspec.Raw, codec: "_Codec", datatype: DataType, name: str
) -> Sequence[Any]:
    text = bytes(raw)
    if datatype is not dtypes.BYTES and text.startswith(b"["):
        # Nested numbers: the text is known to be well-formed, so without its inner brackets it is
        # a flat list, unless there were empty ones or something else than numbers.
        try:
            return codec.decode(b"[" + text.translate(None, b"[]") + b"]")
        except msgspec.DecodeError:
            pass
    # Part of a document whose depth has been found to be right.
    try:
        value = exact_json.decode(text, exact_json.DEEPEST)
    except InvalidRequest as exc:
        # It counts from the beginning of what it was given.
        raise InvalidRequest(f"{exc.text} of 'data' of input '{name}'") from None
    if type(value) is not list:
        raise wrong_type("data", "array", f"'data' of input '{name}'", value)
    return _check_types(_flat(value), datatype, name)


def _flat(values: list[Any]) -> list[Any]:
    """Take lists out of lists; the depth is bounded, because the text's was."""
    if not any(type(value) is list for value in values):
        return values
    return list(_leaves(values))


def _leaves(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if type(value) is list:
            yield from _leaves(value)
        else:
            yield value


def wrong_type(key: str, wanted: str, where: str, got: Any) -> InvalidRequest:
    """The error of a JSON value that is not of the type it must have.

    Args:
        key: Of the member, as existing clients look for it.
        wanted: ``array``, ``string``, ``unsigned-integer`` and so on.
        where: For a person.
        got: The value; only its kind is told, or its beginning for a number.
    """
    as_type = "double" if wanted == "number" else wanted
    return InvalidRequest(
        f"Unable to parse '{key}': attempt to access JSON non-{wanted} as {as_type}. "
        f"{where[0].upper()}{where[1:]} must be {_ARTICLE[wanted]}, got {_shown(got)}."
    )


def _shown(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            text = str(value)
            return text if len(text) <= 40 else text[:40] + "..."
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


_ARTICLE = {
    "array": "an array",
    "object": "an object",
    "string": "a string",
    "boolean": "true or false",
    "number": "a number",
    "signed-integer": "an integer",
    "unsigned-integer": "an integer of 0 or more",
}


def _check_types(values: list[Any], datatype: DataType, name: str) -> list[Any]:
    wanted, types = _WANTED[datatype]
    for index, value in enumerate(values):
        if type(value) not in types or (wanted == "unsigned-integer" and value < 0):
            where = f"value {index} of input '{name}' ({datatype})"
            raise wrong_type("data", wanted, where, value)
    return values


def _wrong_count(count: int, shape: tuple[int, ...], name: str) -> InvalidRequest:
    wanted = math.prod(shape)
    if wanted > MAX_ELEMENTS:
        return impossible_shape(shape, name)
    return InvalidRequest(
        "Unable to parse 'data': Shape does not match true shape of 'data' field. "
        f"Input '{name}' of shape {shape_text(shape)} takes {wanted} values, got {count}."
    )


def _out_of_range(values: Sequence[Any], datatype: DataType, name: str) -> InvalidRequest:
    codec = CODECS[datatype]
    for index, value in enumerate(values):
        try:
            codec.pack([value])
        except (OverflowError, FloatingPointError, struct.error):
            return InvalidRequest(
                f"Unable to parse 'data': value {index} of input '{name}' is {_shown(value)}, "
                f"which {datatype} cannot hold"
            )
    raise AssertionError("values that pack one by one pack together")


# --- packing ------------------------------------------------------------------------------------

Pack = Callable[[Sequence[Any]], Any]


def _numbers(code: str) -> Pack:
    """Give a packer that refuses what its type cannot hold, with every numpy alike.

    It also beats numpy's own constructor, for ten values and for a hundred thousand.
    """
    packers = [struct.Struct(f"<{count}{code}").pack for count in range(_PREPARED + 1)]

    def pack(values: Sequence[Any]) -> Any:
        count = len(values)
        if count <= _PREPARED:
            return packers[count](*values)
        return struct.pack(f"<{count}{code}", *values)

    return pack


def _pack_bf16(values: Sequence[float]) -> Array:
    with np.errstate(over="raise"):
        wide = np.array(values, np.float32)
    bits = dtypes.bf16_from_float32(wide)
    if (np.isinf(dtypes.float32_from_bf16(bits)) & np.isfinite(wide)).any():
        raise OverflowError
    return bits


def _pack_strings(values: Sequence[str]) -> Array:
    array = np.empty(len(values), object)
    array[:] = [value.encode() for value in values]
    return array


class _Codec:
    """How the values of one datatype are read.

    Attributes:
        decode: JSON text to a list of values, refusing what is not flat or of another type.
        pack: Values to a buffer, or an array with one dimension; raises ``OverflowError``,
            ``FloatingPointError`` or ``struct.error`` for what the datatype cannot hold.
    """

    __slots__ = ("decode", "pack")

    def __init__(self, type_: Any, pack: Pack) -> None:
        self.decode: Callable[[Any], Sequence[Any]] = msgspec.json.Decoder(type_).decode
        self.pack = pack


_NATURAL = list[Annotated[int, msgspec.Meta(ge=0)]]

CODECS = {
    dtypes.BOOL: _Codec(list[bool], bytes),
    dtypes.UINT8: _Codec(_NATURAL, _numbers("B")),
    dtypes.UINT16: _Codec(_NATURAL, _numbers("H")),
    dtypes.UINT32: _Codec(_NATURAL, _numbers("I")),
    dtypes.UINT64: _Codec(_NATURAL, _numbers("Q")),
    dtypes.INT8: _Codec(list[int], _numbers("b")),
    dtypes.INT16: _Codec(list[int], _numbers("h")),
    dtypes.INT32: _Codec(list[int], _numbers("i")),
    dtypes.INT64: _Codec(list[int], _numbers("q")),
    dtypes.FP16: _Codec(list[float], _numbers("e")),
    dtypes.FP32: _Codec(list[float], _numbers("f")),
    dtypes.FP64: _Codec(list[float], _numbers("d")),
    dtypes.BF16: _Codec(list[float], _pack_bf16),
    dtypes.BYTES: _Codec(list[str], _pack_strings),
}

_WANTED: dict[DataType, tuple[str, tuple[type, ...]]] = {
    dtypes.BOOL: ("boolean", (bool,)),
    dtypes.BYTES: ("string", (str,)),
    dtypes.FP16: ("number", (float, int)),
    dtypes.FP32: ("number", (float, int)),
    dtypes.FP64: ("number", (float, int)),
    dtypes.BF16: ("number", (float, int)),
    dtypes.INT8: ("signed-integer", (int,)),
    dtypes.INT16: ("signed-integer", (int,)),
    dtypes.INT32: ("signed-integer", (int,)),
    dtypes.INT64: ("signed-integer", (int,)),
    dtypes.UINT8: ("unsigned-integer", (int,)),
    dtypes.UINT16: ("unsigned-integer", (int,)),
    dtypes.UINT32: ("unsigned-integer", (int,)),
    dtypes.UINT64: ("unsigned-integer", (int,)),
}
