"""Feed anything to a WebSocket, in any pieces.

The invariant: whole messages or one error of ours with a code to close with, and nothing else; the
same, whatever the pieces; no message above the limit. What was read can be written and reads back.

    python -m fuzz.websocket [RUNS]           with a plain mutator of its own
    python -m fuzz.websocket --atheris ...    guided by coverage, with libFuzzer's options;
                                              needs `pip install atheris`
"""

import random
from collections.abc import Iterable, Iterator

from fuzz import harness
from modelport.wire.websocket import Event, Message, WebSocketBroken, WebSocketCodec

MOST_BYTES = 300


def check(data: bytes) -> None:
    """Hold the invariant on one input: a byte that says how, and what is sent.

    Raises:
        Exception: Whatever broke it.
    """
    how, stream = data[:1].ljust(1, b"\0")[0], data[1:]
    is_client = how % 2 == 1
    events, code = read([stream], is_client=is_client)
    assert read(_cut(stream, how), is_client=is_client) == (events, code)
    messages = [event for event in events if isinstance(event, Message)]
    writer = WebSocketCodec(is_client=not is_client, max_message_bytes=0)
    written = b"".join(writer.encode_message(message.data) for message in messages)
    assert read([written], is_client=is_client) == (messages, None)


def read(pieces: Iterable[bytes], *, is_client: bool) -> tuple[list[Event], int | None]:
    """Give what came out, and the code if it broke."""
    codec = WebSocketCodec(is_client=is_client, max_message_bytes=MOST_BYTES)
    events: list[Event] = []
    try:
        for piece in pieces:
            for event in codec.feed(piece):
                events.append(event)
                if isinstance(event, Message):
                    size = len(event.data.encode() if isinstance(event.data, str) else event.data)
                    assert size <= MOST_BYTES
    except WebSocketBroken as exc:
        _check_error(exc)
        return events, exc.code
    return events, None


def _check_error(error: WebSocketBroken) -> None:
    assert 1000 <= error.code < 5000
    assert str(error)


def _cut(stream: bytes, how: int) -> Iterator[bytes]:
    source = random.Random(how)
    longest = (1, 3, 20, 200)[how // 2 % 4]
    at = 0
    while at < len(stream):
        size = source.randint(1, longest)
        yield stream[at : at + size]
        at += size


def _seeds() -> Iterator[bytes]:
    for how, is_client in ((b"\0", True), (b"\1", False)):
        codec = WebSocketCodec(is_client=is_client, max_message_bytes=0)
        text = codec.encode_message("h\u00e9llo \u20ac")
        data = codec.encode_message(b"\0\1\2") + codec.encode_message(bytes(200))
        control = codec.encode_ping(b"x") + codec.encode_pong(b"yy")
        yield how + text + control + data + codec.encode_close(1000, "bye")
        # The parts of a message: the first without its last bit, the others continue it.
        yield how + b"\x01" + text[1:] + control + b"\x80" + text[1:] + data
        yield how + codec.encode_close(4000) + text


SEEDS = tuple(_seeds())
WORDS = (
    b"\x00", b"\x01", b"\x02", b"\x03", b"\x80", b"\x81", b"\x82", b"\x88", b"\x89", b"\x8a",
    b"\x8b", b"\xc1", b"\xf0", b"\x7d", b"\x7e", b"\x7f", b"\xfd", b"\xfe", b"\xff", b"\x80\x80",
    b"\x81\x80\0\0\0\0", b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x7e\x00\x05",
    b"\xe2\x82\xac", b"\xed\xa0\x80", b"\xc3", b"\x03\xe8", b"\x03\xed", b"\x0f\xa0",
)  # fmt: skip


def mutations(seed: int) -> Iterator[bytes]:
    """Give inputs without end: seeds with pieces cut, doubled, swapped and put in."""
    source = random.Random(seed)
    while True:
        data = bytearray(source.choice(SEEDS))
        data[0] = (data[0] & 1) | source.randrange(256) & 0xFE
        yield harness.mutated(source, data, SEEDS, WORDS, settings=1)


if __name__ == "__main__":
    harness.main(check, mutations)
