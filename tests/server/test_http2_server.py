"""What blocks of fields ask for, and that equal ones are looked up once for all connections."""

import pytest

from modelport.server.http import HttpServer
from modelport.server.http2_options import Http2Options
from modelport.server.http2_server import Http2Server
from modelport.server.pressure import Answers
from modelport.wire.header_blocks import Block
from modelport.wire.http import RequestHead
from modelport.wire.http2 import MalformedHead, Stream

from .grpc_server import Methods, make_server


class Calls:
    """Takes every call that is gRPC, and remembers its path."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def understand(self, head: RequestHead, answers: Answers) -> "Calls":
        self.paths.append(head.path)
        return self

    def open(self, connection: object) -> Stream:
        return Stream()


@pytest.fixture
def listener() -> HttpServer:
    return make_server(Methods())


def block(method: str = "POST", path: str = "/hello", kind: str = "", size: int = 0) -> Block:
    fields = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
    if kind:
        fields.append(("content-type", kind))
    return Block(fields, size)


@pytest.mark.parametrize(
    ("kind", "method", "is_call"),
    [
        ("application/grpc", "POST", True),
        ("application/grpc+proto", "POST", True),
        ("application/grpc;charset=utf-8", "POST", True),
        ("application/grpc-web", "POST", False),
        ("application/grpc", "GET", False),
        ("application/json", "POST", False),
        ("", "POST", False),
    ],
)
def test_the_content_type_says_what_is_a_call(
    listener: HttpServer, kind: str, method: str, is_call: bool
) -> None:
    calls = Calls()
    server = Http2Server(listener, calls, Http2Options())
    opener = server.understand(block(method, kind=kind))
    assert (opener is calls) is is_call
    assert calls.paths == (["/hello"] if is_call else [])


def test_without_calls_a_call_is_a_request_like_others(listener: HttpServer) -> None:
    server = Http2Server(listener, None, Http2Options())
    assert server.understand(block(kind="application/grpc")) is not None


def test_equal_blocks_of_different_connections_are_looked_up_once(listener: HttpServer) -> None:
    server = Http2Server(listener, None, Http2Options())
    assert server.understand(block()) is server.understand(block())
    assert server.understand(block()) is not server.understand(block(path="/echo"))


def test_what_was_learned_is_bounded(listener: HttpServer) -> None:
    calls = Calls()
    server = Http2Server(listener, calls, Http2Options())
    for number in range(1100):
        server.understand(block(path=f"/{number}", kind="application/grpc"))
    server.understand(block(path="/0", kind="application/grpc"))
    server.understand(block(path="/1099", kind="application/grpc"))
    assert calls.paths.count("/0") == 2
    assert calls.paths.count("/1099") == 1


def test_fields_that_are_no_request_are_not_kept(listener: HttpServer) -> None:
    server = Http2Server(listener, None, Http2Options())
    for _ in range(2):
        with pytest.raises(MalformedHead):
            server.understand(Block([(":method", "GET")], 0))
