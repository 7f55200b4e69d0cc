"""gRPC to clients that we did not write: grpcio, sync and aio, over real sockets."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sized
from functools import partial
from random import Random

import grpc
import pytest
import trustme
from grpc import aio

from modelport.protocols.base import Buffer
from modelport.server.grpc import GrpcOptions
from modelport.server.http2_options import Http2Options
from modelport.server.settings import Settings
from modelport.server.tls import grpc_context
from modelport.wire import compression
from modelport.wire import grpc as wire_grpc
from modelport.wire.http2 import Http2Limits
from tests.waiting import eventually

from .grpc_server import Methods, Running, make_server, running

UNBOUNDED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
TIMEOUT_S = 20


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest.fixture
def server(methods: Methods) -> Iterator[Running]:
    with running(make_server(methods)) as served:
        yield served


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, options=UNBOUNDED) as made:
        yield made


def longer_than(rows: Sized, count: int) -> bool:
    return len(rows) > count


def unary(channel: grpc.Channel, name: str) -> grpc.UnaryUnaryMultiCallable:
    return channel.unary_unary(f"/t.Test/{name}")


@pytest.mark.parametrize("size", [0, 1, 4, 16_384, 70_000, 1_048_571, 5_000_000])
def test_a_message_of_any_size_goes_there_and_back(channel: grpc.Channel, size: int) -> None:
    message = bytes(range(256)) * (size // 256 + 1)
    assert unary(channel, "Echo")(message[:size], timeout=TIMEOUT_S) == message[:size]


def test_many_calls_on_one_connection_are_answered_each_with_its_own(
    channel: grpc.Channel,
) -> None:
    calls = [
        (size, unary(channel, "Big").future(b"%d" % size, timeout=TIMEOUT_S))
        for size in range(0, 300_000, 1_000)
    ]
    assert all(len(call.result()) == size for size, call in calls)


def test_an_error_of_the_method_is_told_with_any_characters(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Refuse")(b"", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "100 % not so: ünïcode\nand a line"


def test_a_method_that_breaks_tells_nothing_of_the_server(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Boom")(b"", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    assert unary(channel, "Echo")(b"still there", timeout=TIMEOUT_S) == b"still there"


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/x.Y/Z")(b"", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == "the method /x.Y/Z is not known here"


def test_metadata_goes_both_ways(channel: grpc.Channel) -> None:
    metadata = [("x-a", "1"), ("x-a", "2"), ("x-b-bin", b"\x01\x02")]
    answer, call = unary(channel, "Metadata").with_call(b"", metadata=metadata, timeout=5)
    lines = answer.decode().splitlines()
    assert "x-a=1, 2" in lines
    assert "x-b-bin=AQI" in lines or "x-b-bin=AQI=" in lines
    assert ("x-trailer", "1") in call.trailing_metadata()
    assert ("x-trailer-bin", b"\x01\x02") in call.trailing_metadata()


@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_taken(channel: grpc.Channel, coding: grpc.Compression) -> None:
    message = b"again and " * 30_000
    assert unary(channel, "Echo")(message, compression=coding, timeout=TIMEOUT_S) == message


@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_messages_that_take_long_to_unfold_are_unfolded_beside_the_loop(
    channel: grpc.Channel, coding: grpc.Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_on_loop = []
    original = compression.decompress

    def decompress(body: Buffer, coding: str, max_bytes: int) -> bytes:
        unfolded = original(body, coding, max_bytes)
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            finished_on_loop.append(len(unfolded))
        return unfolded

    monkeypatch.setattr(compression, "decompress", decompress)
    unfolds = bytes(5_000_000)
    random = Random(1).randbytes(300_000)
    assert unary(channel, "Echo")(unfolds, compression=coding, timeout=TIMEOUT_S) == unfolds
    assert unary(channel, "Echo")(random, compression=coding, timeout=TIMEOUT_S) == random
    assert finished_on_loop == []
    small = b"again and " * 1_000
    assert unary(channel, "Echo")(small, compression=coding, timeout=TIMEOUT_S) == small
    assert finished_on_loop == [len(small)]


def test_messages_of_a_stream_keep_their_order_however_long_each_takes(
    channel: grpc.Channel, methods: Methods
) -> None:
    sent = [b"a", bytes(5_000_000), b"b", bytes(1_000_000), bytes(70_000), b"c", bytes(3_000_000)]
    echoes = channel.stream_stream("/t.Test/Echoes")
    for messages in (sent, sent[:-1]):
        methods.seen.clear()
        answers = echoes(iter(messages), compression=grpc.Compression.Gzip, timeout=TIMEOUT_S)
        assert list(answers) == messages
        assert methods.seen == [*messages, b"half-closed"]


def test_a_call_may_end_while_its_message_is_unfolded(
    channel: grpc.Channel, methods: Methods, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_unfolding, may_go_on = threading.Event(), threading.Event()

    def unfold(folded: wire_grpc.Folded) -> bytes:
        is_unfolding.set()
        assert may_go_on.wait(TIMEOUT_S)
        return b"late"

    monkeypatch.setattr(wire_grpc.Folded, "unfold", unfold)
    try:
        for name, make in (("Later", channel.unary_unary), ("Echoes", channel.stream_stream)):
            is_unfolding.clear()
            message = bytes(1_000_000)
            call = make(f"/t.Test/{name}")
            options = {"compression": grpc.Compression.Gzip, "timeout": TIMEOUT_S}
            begun = (
                call.future(message, **options)
                if name == "Later"
                else call(iter([message]), **options)
            )
            assert is_unfolding.wait(TIMEOUT_S)
            begun.cancel()
            assert unary(channel, "Echo")(b"lives on", timeout=TIMEOUT_S) == b"lives on"
    finally:
        may_go_on.set()
    assert unary(channel, "Echo")(b"lives on", timeout=TIMEOUT_S) == b"lives on"
    assert b"late" not in methods.seen


def test_responses_are_compressed_for_clients_that_take_them_so(methods: Methods) -> None:
    with (
        running(make_server(methods, grpc=GrpcOptions(compression_level=1))) as served,
        grpc.insecure_channel(served.address) as channel,
    ):
        for _ in range(2):
            assert unary(channel, "Big")(b"100000", timeout=TIMEOUT_S) == bytes(100_000)
        assert unary(channel, "Echo")(b"small", timeout=TIMEOUT_S) == b"small"


def test_a_message_over_the_limit_is_refused_and_the_connection_lives_on(
    methods: Methods,
) -> None:
    with (
        running(make_server(methods, grpc=GrpcOptions(max_message_bytes=1000))) as served,
        grpc.insecure_channel(served.address) as channel,
    ):
        for coding in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError) as caught:
                unary(channel, "Echo")(bytes(100_000), compression=coding, timeout=TIMEOUT_S)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.details().startswith("Received message larger than max (")
        assert unary(channel, "Echo")(bytes(1000), timeout=TIMEOUT_S) == bytes(1000)


def test_a_deadline_ends_the_call_and_tells_the_handler(
    channel: grpc.Channel, methods: Methods
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Later")(b"", timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: methods.cancelled == ["/t.Test/Later"])
    assert methods.waiting[0].deadline_ns is not None


def test_a_cancelled_call_tells_the_handler(
    channel: grpc.Channel, server: Running, methods: Methods
) -> None:
    call = unary(channel, "Later").future(b"")
    eventually(lambda: methods.waiting)
    call.cancel()
    eventually(lambda: methods.cancelled == ["/t.Test/Later"])
    server.call(lambda: methods.waiting[0].finish())  # nothing happens


def test_a_client_that_goes_away_cancels_its_calls(server: Running, methods: Methods) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = unary(channel, "Later").future(b"")
        eventually(lambda: methods.waiting)
        assert not call.done()
    eventually(lambda: methods.cancelled == ["/t.Test/Later"])
    eventually(lambda: not server.server.connections)


def test_a_late_answer_is_sent(channel: grpc.Channel, server: Running, methods: Methods) -> None:
    call = unary(channel, "Later").future(b"", timeout=TIMEOUT_S)
    eventually(lambda: methods.waiting)

    def answer() -> None:
        methods.waiting[0].send([b"late"])
        methods.waiting[0].finish()

    server.call(answer)
    assert call.result() == b"late"


def test_both_sides_stream(channel: grpc.Channel, methods: Methods) -> None:
    messages = [b"", b"a", bytes(200_000), b"z"] * 20
    echoes = channel.stream_stream("/t.Test/Echoes")(iter(messages), timeout=TIMEOUT_S)
    assert list(echoes) == messages
    assert methods.seen[-1] == b"half-closed"


def test_a_stream_in_which_the_client_waits_for_each_response(channel: grpc.Channel) -> None:
    received: list[bytes] = []

    def ask() -> Iterator[bytes]:
        for number in range(50):
            yield b"%d" % number
            eventually(partial(longer_than, received, number))

    for answer in channel.stream_stream("/t.Test/Echoes")(ask(), timeout=TIMEOUT_S):
        received.append(answer)
    assert received == [b"%d" % number for number in range(50)]


def test_messages_wait_until_they_are_welcome(
    channel: grpc.Channel, server: Running, methods: Methods
) -> None:
    messages = [b"wait", b"after", bytes(3_000_000), b"end"]
    echoes = channel.stream_stream("/t.Test/Echoes")(iter(messages), timeout=TIMEOUT_S)
    assert next(echoes) == b"wait"
    time.sleep(0.2)
    assert methods.seen == [b"wait"]
    server.call(lambda: methods.waiting[0].resume())
    assert list(echoes) == messages[1:]


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"fail", grpc.StatusCode.INVALID_ARGUMENT), (b"boom", grpc.StatusCode.INTERNAL)],
)
def test_an_error_in_a_stream_ends_it(
    channel: grpc.Channel, methods: Methods, message: bytes, code: grpc.StatusCode
) -> None:
    echoes = channel.stream_stream("/t.Test/Echoes")(iter([b"1", message]), timeout=TIMEOUT_S)
    assert next(echoes) == b"1"
    with pytest.raises(grpc.RpcError) as caught:
        next(echoes)
    assert caught.value.code() is code
    assert methods.cancelled == ["/t.Test/Echoes"]


def test_a_method_with_one_request_may_answer_with_many(channel: grpc.Channel) -> None:
    answers = channel.unary_stream("/t.Test/Many")(b"3000", timeout=TIMEOUT_S)
    assert [int(answer[:-1000]) for answer in answers] == list(range(3000))


def test_a_client_that_stops_reading_has_the_method_wait(
    channel: grpc.Channel, methods: Methods
) -> None:
    answers = channel.unary_stream("/t.Test/Many")(b"100000000", timeout=60)
    next(answers)
    time.sleep(0.5)
    answers.cancel()
    eventually(lambda: methods.cancelled == ["/t.Test/Many"])


def test_a_stranger_is_refused_at_the_door(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Echo")(b"", metadata=[("x-stranger", "1")], timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_server_goes_away_when_everything_is_answered(
    channel: grpc.Channel, server: Running, methods: Methods
) -> None:
    """And the client notices before it sends more: its next call asks for a new connection."""
    call = unary(channel, "Later").future(b"", timeout=TIMEOUT_S)
    eventually(lambda: methods.waiting)
    server.call(server.server.drain)
    time.sleep(0.1)
    server.call(server.server.drain)
    server.call(lambda: methods.waiting[0].send([b"the last"]))
    server.call(lambda: methods.waiting[0].finish())
    assert call.result() == b"the last"
    for _ in range(100):
        server.call(server.server.drain)
        if not server.server.connections:
            break
        time.sleep(0.02)
    assert not server.server.connections


def test_no_more_streams_than_are_allowed_are_open_at_once(methods: Methods) -> None:
    limits = Http2Limits(streams=4)
    with (
        running(make_server(methods, http2=Http2Options(limits=limits))) as served,
        grpc.insecure_channel(served.address) as channel,
    ):
        assert unary(channel, "Echo")(b"", timeout=TIMEOUT_S) == b""
        calls = [unary(channel, "Later").future(b"", timeout=TIMEOUT_S) for _ in range(10)]
        done = 0
        while done < 10:
            eventually(partial(longer_than, methods.waiting, done))
            assert len(methods.waiting) - done <= 4
            served.call(partial(methods.waiting[done].send, [b"x"]))
            served.call(methods.waiting[done].finish)
            done += 1
        assert [call.result() for call in calls] == [b"x"] * 10


def test_a_connection_that_is_old_is_replaced_without_a_loss(methods: Methods) -> None:
    options = Http2Options(max_age_s=1.0)
    with (
        running(make_server(methods, http2=options)) as served,
        grpc.insecure_channel(served.address) as channel,
    ):
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert unary(channel, "Echo")(b"x", timeout=TIMEOUT_S) == b"x"


def test_a_client_that_pings_too_often_is_sent_away(methods: Methods) -> None:
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 50),
    ]
    with (
        running(make_server(methods)) as served,
        grpc.insecure_channel(served.address, options=options) as channel,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, "Later")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "too_many_pings" in caught.value.details()


def test_tls_with_client_certificates(methods: Methods, tmp_path: pytest.TempPathFactory) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("localhost", "127.0.0.1")
    clients = authority.issue_cert("someone")
    cert, key, root = (f"{tmp_path}/{name}.pem" for name in ("cert", "key", "root"))
    own.private_key_pem.write_to_path(key)
    with open(cert, "wb") as file:
        file.writelines(blob.bytes() for blob in own.cert_chain_pems)
    authority.cert_pem.write_to_path(root)
    settings = Settings(
        grpc_use_ssl_mutual=True, grpc_server_cert=cert, grpc_server_key=key, grpc_root_cert=root
    )
    with running(make_server(methods), grpc_context(settings)) as served:
        known = grpc.ssl_channel_credentials(
            authority.cert_pem.bytes(),
            clients.private_key_pem.bytes(),
            b"".join(blob.bytes() for blob in clients.cert_chain_pems),
        )
        with grpc.secure_channel(f"localhost:{served.port}", known) as channel:
            assert unary(channel, "Echo")(bytes(300_000), timeout=TIMEOUT_S) == bytes(300_000)
        unknown = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with (
            grpc.secure_channel(f"localhost:{served.port}", unknown) as channel,
            pytest.raises(grpc.RpcError) as caught,
        ):
            unary(channel, "Echo")(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_asynchronous_client_of_grpcio(server: Running) -> None:
    async def talk() -> None:
        async with aio.insecure_channel(server.address, options=UNBOUNDED) as channel:
            echo = channel.unary_unary("/t.Test/Echo")
            answers = await asyncio.gather(*(echo(b"%d" % n, timeout=5) for n in range(200)))
            assert list(answers) == [b"%d" % n for n in range(200)]
            stream = channel.stream_stream("/t.Test/Echoes")(timeout=5)
            for message in (b"a", bytes(100_000)):
                await stream.write(message)
                assert await stream.read() == message
            await stream.done_writing()
            assert await stream.read() is aio.EOF

    asyncio.run(talk())
