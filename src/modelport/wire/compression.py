"""gzip and deflate bodies, both ways, and which of them a client takes.

``deflate`` is the zlib format, as RFC 9110 §8.4.1.2 has it. A body may be tiny and unfold to
gigabytes, so the size is watched while it is unfolded, not afterwards.
"""

import zlib
from collections.abc import Sequence

from modelport.errors import InvalidRequest, TooLarge, Unsupported

__all__ = ["CODINGS", "check_coding", "choose_coding", "compress", "decompress"]

Buffer = bytes | bytearray | memoryview

CODINGS = ("gzip", "deflate")

MOST_MEMBERS = 4096
"""Of one gzip body. bgzip makes one of every 64 KiB, so that 64 MiB have a quarter of this; an
empty one has 20 bytes, and millions of them would keep a processor busy for nothing."""
PIECE_BYTES = 65_536
"""That a member is given at a time: what follows its end is copied, so it must not be the rest."""

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

_LEVEL = 1
"""Tensors gain little from more effort, and the caller waits."""


def check_coding(header: str | None) -> str | None:
    """Read ``Content-Encoding`` of a request; ``None`` for a body as it is.

    Raises:
        Unsupported: For a coding that is not ours; answers then say which are.
    """
    if header is None:
        return None
    coding = header.strip().lower()
    if coding in _WINDOW_BITS:
        return coding
    if coding in ("", "identity"):
        return None
    raise Unsupported(
        f"Unsupported compression type. Got content-encoding '{coding[:40]}', accepted are "
        f"{', '.join(CODINGS)} and identity."
    )


def choose_coding(header: str | None) -> str | None:
    """Read ``Accept-Encoding``: the coding that is liked best, the first of equals.

    Source: RFC 9110 §12.5.3. ``*`` names nothing that we know, so it gets the body as it is.
    """
    if header is None:
        return None
    best: str | None = None
    best_quality = 0.0
    for item in header.split(","):
        name, _, parameters = item.partition(";")
        coding = name.strip().lower()
        quality = _quality(parameters)
        if coding in (*CODINGS, "identity") and quality > best_quality:
            best, best_quality = coding, quality
    return best if best in _WINDOW_BITS else None


def decompress(body: Buffer, coding: str, max_bytes: int) -> bytes:
    """Unfold a whole body.

    Raises:
        InvalidRequest: If it is not what ``coding`` says, ends too early, or has more than
            ``MOST_MEMBERS`` members.
        TooLarge: If there would be more than ``max_bytes``.
    """
    pieces: list[bytes] = []
    left = max_bytes
    view = memoryview(body)
    at = members = 0
    try:
        while True:
            member = zlib.decompressobj(_WINDOW_BITS[coding])
            while not member.eof and at < len(view):
                piece = member.decompress(view[at : at + PIECE_BYTES], left + 1)
                at = min(at + PIECE_BYTES, len(view)) - len(member.unused_data)
                left -= len(piece)
                if left < 0:
                    raise TooLarge(
                        f"request body exceeds the maximum of {max_bytes} bytes after decompression"
                    )
                pieces.append(piece)
            if not member.eof:
                raise _bad(coding, "it ends too early")
            members += 1
            # RFC 1952 §2.2: a gzip body is one or more members.
            if at == len(view) or coding != "gzip":
                break
            if members == MOST_MEMBERS:
                raise _bad(coding, f"it has more than {MOST_MEMBERS} members")
    except zlib.error as exc:
        raise _bad(coding, str(exc).partition(": ")[2] or "not in this format") from None
    if at < len(view):
        raise _bad(coding, f"{len(view) - at} bytes follow its end")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _bad(coding: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"failed to decompress the {coding} body: {reason}")


def compress(pieces: Sequence[Buffer], coding: str, *, level: int = _LEVEL) -> list[Buffer]:
    """Fold the pieces of a body into one stream; ``level`` is 1 (fast) to 9 (small)."""
    stream = zlib.compressobj(level, zlib.DEFLATED, _WINDOW_BITS[coding])
    folded: list[Buffer] = [stream.compress(piece) for piece in pieces]
    folded.append(stream.flush())
    return [piece for piece in folded if len(piece)]


def _quality(parameters: str) -> float:
    name, _, value = parameters.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0
