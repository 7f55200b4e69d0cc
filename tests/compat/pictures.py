"""Small pictures, made with the standard library alone: clients' environments have no more."""

import struct
import zlib

__all__ = ["png"]


def png(width: int, height: int, color: tuple[int, int, int]) -> bytes:
    """One of a single colour, red first."""
    row = b"\0" + bytes(color) * width

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(row * height)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
