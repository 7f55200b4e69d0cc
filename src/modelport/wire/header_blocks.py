"""HPACK header blocks: read with the library, written without a state.

What we write never enters the other side's dynamic table. So a block is the same bytes on every
connection and may be written once for ever, and the other side may do the same with what it made
of it. What we read does change the table, mostly with the first requests of a connection; while
it stands, equal bytes mean equal fields, and a block that was read before is only looked up.

Source: RFC 7541.
"""

from collections.abc import Iterable
from typing import Any

from hpack import Decoder, HPACKError
from hpack.exceptions import OversizedHeaderListError
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

__all__ = ["Block", "BlockReader", "BlockTooLarge", "BlockUnreadable", "encode_block"]

_TABLE_UPDATES = frozenset(bytes([first]) for first in range(0x20, 0x40))
"""How a block begins that changes the size of the table, which it has to do each time it comes.
Source: RFC 7541 §6.3."""
MOST_KNOWN_BLOCKS = 64
LONGEST_KNOWN_BLOCK = 2048

Fields = list[tuple[str, str]]


class BlockUnreadable(Exception):
    """The bytes are no header block; the table of the connection is lost with it."""


class BlockTooLarge(Exception):
    """The block unfolds to more than is taken; the table is lost as well."""


class Block:
    """One header block that was read.

    Attributes:
        fields: Names and values in their order; bytes above ASCII as Latin-1.
        list_bytes: Their size as RFC 9113 §6.5.2 counts it, 32 for each beside its text.
        meaning: What the reader of the fields keeps here; given again with the same bytes.
    """

    __slots__ = ("fields", "list_bytes", "meaning")

    def __init__(self, fields: Fields, list_bytes: int) -> None:
        self.fields = fields
        self.list_bytes = list_bytes
        self.meaning: Any = None


class BlockReader:
    """Reads the blocks of one connection, in their order.

    Args:
        max_list_bytes: What one block may unfold to.
    """

    def __init__(self, max_list_bytes: int) -> None:
        self._decoder = Decoder(max_list_bytes)
        self._block_by_bytes: dict[bytes, Block] = {}
        # Looked up from outside where every call counts; ``read`` is what fills it.
        self.known = self._block_by_bytes.get

    def read(self, raw: bytes) -> Block:
        """Read a block.

        Raises:
            BlockUnreadable: It is none, or refers to what is not in the table.
            BlockTooLarge: It is larger than it may be.
        """
        block = self._block_by_bytes.get(raw)
        if block is not None:
            return block
        entries = self._decoder.header_table.dynamic_entries
        first, count = entries[0] if entries else None, len(entries)
        try:
            fields = [
                (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
                for name, value in self._decoder.decode(raw, raw=True)
            ]
        except OversizedHeaderListError as exc:
            raise BlockTooLarge("the header list is larger than it may be") from exc
        except (HPACKError, IndexError, ValueError) as exc:
            raise BlockUnreadable(f"the header block cannot be read: {exc}") from exc
        block = Block(fields, sum(len(name) + len(value) + 32 for name, value in fields))
        known = self._block_by_bytes
        # A new entry is a new object at the front; an eviction without one shortens the table.
        if len(entries) != count or (count and entries[0] is not first):
            known.clear()
        elif len(raw) <= LONGEST_KNOWN_BLOCK and raw[:1] not in _TABLE_UPDATES:
            if len(known) >= MOST_KNOWN_BLOCKS:
                known.clear()
            known[raw] = block
        return block


def encode_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Write a block that means the same on every connection, whatever was sent before.

    Args:
        fields: Names in lower case, pseudo-headers first; text is Latin-1.
    """
    return b"".join(map(_encode_field, fields))


def _encode_field(field: tuple[str, str]) -> bytes:
    name, value = field[0].encode("latin-1"), field[1].encode("latin-1", "replace")
    index, index_by_value = HeaderTable.STATIC_TABLE_MAPPING.get(name, (0, {}))
    exact = index_by_value.get(value)
    if exact is not None:
        return _integer(exact, 7, 0x80)
    # Literals without indexing, RFC 7541 §6.2.2; §6.2.3 asks proxies not to index secrets either.
    first = 0x10 if name in _SECRET_NAMES else 0
    head = _integer(index, 4, first) if index else bytes([first]) + _text(name)
    return head + _text(value)


def _text(text: bytes) -> bytes:
    # Not Huffman-coded: it saves a few bytes, and costs both sides more than sending them.
    return _integer(len(text), 7, 0) + text


def _integer(value: int, prefix_bits: int, first: int) -> bytes:
    encoded = encode_integer(value, prefix_bits)
    encoded[0] |= first
    return bytes(encoded)


_SECRET_NAMES = frozenset({b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"})
