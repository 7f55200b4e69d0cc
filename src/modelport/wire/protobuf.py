"""The little of protobuf's wire format that is read and written without protobuf itself.

Large ``bytes`` members pass through protobuf's own parser with a copy, and every message costs
objects. Messages that carry tensors are therefore cut here into the part that protobuf is to read
and the places of the rest, and written as pieces.

Source: Protocol Buffers, "Encoding".
"""

from collections.abc import Container

from modelport.errors import InvalidRequest

__all__ = ["LENGTH_DELIMITED", "MOST_MEMBERS", "Malformed", "cut", "field", "tag", "varint"]

Buffer = bytes | memoryview

LENGTH_DELIMITED = 2
"""The wire type of strings, bytes and messages."""

MOST_MEMBERS = 16_384
"""Of one message that is cut: two for each of thousands of tensors. A member may be two bytes long
and costs a hundred times its size, so that a bound in bytes alone is none."""

_VARINT = 0
_FIXED_64 = 1
_FIXED_32 = 5


class Malformed(InvalidRequest):
    """Bytes that are no message of protobuf."""


def varint(value: int) -> bytes:
    """Write a number, which is not negative.

    >>> varint(300).hex()
    'ac02'
    """
    if value < 0x80:
        return _SHORT[value]
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(number: int, wire_type: int = LENGTH_DELIMITED) -> bytes:
    """Write what stands before a member."""
    return varint(number << 3 | wire_type)


def field(number: int, data: bytes) -> bytes:
    r"""Write a string, bytes or a message as the member ``number`` of another.

    >>> field(1, b"add")
    b'\n\x03add'
    """
    return tag(number) + varint(len(data)) + data


def cut(data: Buffer, numbers: Container[int]) -> tuple[bytes, list[tuple[int, int, int]]]:
    """Cut every string and ``bytes`` member of some numbers out of a message.

    Args:
        data: The message.
        numbers: Of the members that are cut out.

    Returns:
        What is left, still a message; and of each member its number, and where it begins and ends
        in ``data``.

    Raises:
        Malformed: If a member is cut off, or of a kind that there is no more, or if there are more
            than ``MOST_MEMBERS``.
    """
    kept: list[Buffer] = []
    places: list[tuple[int, int, int]] = []
    position = start = 0
    end = len(data)
    members = 0
    while position < end:
        members += 1
        if members > MOST_MEMBERS:
            raise Malformed(f"the message is malformed: it has more than {MOST_MEMBERS} members")
        begin = position
        # Nearly every tag and most lengths are one byte.
        key = data[position]
        position += 1
        if key >= 0x80:
            key, position = _read_varint(data, begin)
        wire_type = key & 7
        if wire_type == LENGTH_DELIMITED:
            if position == end:
                raise _cut_off()
            length = data[position]
            position += 1
            if length >= 0x80:
                length, position = _read_varint(data, position - 1)
            inside = position
            position += length
            if position > end:
                raise _cut_off()
            if key >> 3 in numbers:
                places.append((key >> 3, inside, position))
                if start < begin:
                    kept.append(data[start:begin])
                start = position
        elif wire_type == _VARINT:
            _, position = _read_varint(data, position)
        elif wire_type == _FIXED_64:
            position += 8
        elif wire_type == _FIXED_32:
            position += 4
        else:
            raise Malformed(f"the message is malformed: wire type {wire_type} is not used here")
    if position != end:
        raise _cut_off()
    if start < end:
        kept.append(data[start:end])
    return b"".join(kept), places


def _read_varint(data: Buffer, position: int) -> tuple[int, int]:
    value = shift = 0
    end = len(data)
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > _LONGEST_SHIFT:
            raise Malformed("the message is malformed: a number in it has more than 64 bits")
    raise _cut_off()


def _cut_off() -> Malformed:
    return Malformed("the message is malformed: it ends in the middle of a member")


_SHORT = [bytes([value]) for value in range(0x80)]
_LONGEST_SHIFT = 63
