"""Requests and responses as the fields of HTTP/2, read strictly and written lightly.

A request over HTTP/2 becomes the same :class:`~modelport.wire.http.RequestHead` as one over
HTTP/1.1, so that routes, the door and the handlers need not know which it was.

Source: RFC 9113 §8.
"""

import re
from collections.abc import Iterable

from modelport.wire.header_blocks import Block, encode_block
from modelport.wire.http import RequestHead
from modelport.wire.http2 import MalformedHead

__all__ = [
    "encode_response_fields",
    "join_fields",
    "parse_request_fields",
    "parse_response_fields",
    "parse_trailer_fields",
]


def parse_request_fields(block: Block) -> RequestHead:
    """Read the fields that open a stream.

    Raises:
        MalformedHead: They are no request, or one that two readers could see differently.
    """
    pseudo, headers = _split(block.fields, _REQUEST_FIELDS)
    method, path = pseudo.get(":method"), pseudo.get(":path")
    if not method or not _METHOD.fullmatch(method) or ":scheme" not in pseudo:
        raise MalformedHead(":method and :scheme are needed once each")
    if path is None or not _PATH.fullmatch(path) or not (path[0] == "/" or path == "*"):
        raise MalformedHead(":path is needed once, and begins with a slash")
    authority = pseudo.get(":authority")
    if authority is not None:
        if headers.get("host", authority) != authority:
            raise MalformedHead(":authority and host differ")
        headers["host"] = authority
    if not _HOST.fullmatch(headers.get("host", "")):
        raise MalformedHead(":authority is no host")
    if not _LENGTH.fullmatch(headers.get("content-length", "0")):
        raise MalformedHead("content-length is no number")
    return RequestHead(b"", method, path, headers, 1)


def parse_response_fields(block: Block) -> tuple[int, dict[str, str]]:
    """Read the fields of a response: its status and its headers.

    Raises:
        MalformedHead: They are no response.
    """
    pseudo, headers = _split(block.fields, _RESPONSE_FIELDS)
    status = pseudo.get(":status", "")
    if not _STATUS.fullmatch(status):
        raise MalformedHead(":status is needed once")
    return int(status), headers


def parse_trailer_fields(block: Block) -> dict[str, str]:
    """Read the fields after a body.

    Raises:
        MalformedHead: They are no trailers.
    """
    return _split(block.fields, frozenset())[1]


def _split(
    fields: Iterable[tuple[str, str]], allowed: frozenset[str]
) -> tuple[dict[str, str], dict[str, str]]:
    pseudo: dict[str, str] = {}
    regular: list[tuple[str, str]] = []
    for name, value in fields:
        if not _VALUE.fullmatch(value):
            raise MalformedHead(f"the value of {name[:40]!r} holds what no value may")
        if name.startswith(":"):
            if regular or name in pseudo or name not in allowed:
                raise MalformedHead(f"{name[:40]!r} is not expected here")
            pseudo[name] = value
        elif not _NAME.fullmatch(name) or name in _OF_CONNECTIONS:
            raise MalformedHead(f"{name[:40]!r} is no name of a field here")
        elif name == "te" and value != "trailers":
            raise MalformedHead("te is for trailers only")
        else:
            regular.append((name, value))
    return pseudo, join_fields(regular)


def join_fields(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Make a mapping; values of repeated names are joined by ", ", of cookies by "; ".

    Raises:
        MalformedHead: For a repeated field of which only one can be meant.
    """
    joined: dict[str, str] = {}
    for name, value in fields:
        if name not in joined:
            joined[name] = value
        elif name in _ONCE:
            raise MalformedHead(f"{name!r} may be sent only once")
        else:
            joined[name] += ("; " if name == "cookie" else ", ") + value
    return joined


def encode_response_fields(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Write the head of a response.

    Raises:
        ValueError: If a header would break out of its field.
    """
    fields = [(":status", str(status))]
    for name, value in headers:
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of header {name} holds a line break")
        low = name.lower()
        if not _NAME.fullmatch(low):
            raise ValueError(f"no header can have the name {name!r}")
        if low not in _OF_CONNECTIONS:
            fields.append((low, value))
    return encode_block(fields)


_REQUEST_FIELDS = frozenset({":method", ":scheme", ":authority", ":path"})
_RESPONSE_FIELDS = frozenset({":status"})
_OF_CONNECTIONS = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
_ONCE = frozenset({"host", "content-length", "inference-header-content-length", "content-type"})
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9113 §8.2.1: lower case only
_VALUE = re.compile(r"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?")
_PATH = re.compile(r"[^\x00-\x20\x7f]+")
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_LENGTH = re.compile(r"[0-9]{1,18}")
_STATUS = re.compile(r"[1-9][0-9]{2}")
