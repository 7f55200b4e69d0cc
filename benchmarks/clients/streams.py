"""Read W5 streams, each lane one after another, and count their chunks.

Run as ``python -m benchmarks.clients.streams PORT LANES STREAMS_PER_LANE [PATH]``; prints one
JSON line. PATH is where the numbers come from, by default the V2 model. A lane's rate counts from
its first request to its last chunk, so neither the staggered start nor the end of the others
dilutes it.
"""

import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass, replace

import uvloop

from benchmarks.clients.connection import Connection
from benchmarks.exchange import Exchange
from benchmarks.lanes import CHUNKS, start_offsets
from benchmarks.replies import Reply

STREAM = Exchange(
    "stream",
    "/v2/models/stream/generate_stream",
    json.dumps({"COUNT": CHUNKS}).encode(),
    lambda reply: indexes(reply) == list(range(CHUNKS)),
)


def stream_at(path: str) -> Exchange:
    """Give the request to an endpoint of a service, which counts in the same way."""
    headers = (*STREAM.headers, ("Accept", "text/event-stream"))
    return replace(STREAM, name=path, path=path, body=b"{}", headers=headers)


@dataclass(frozen=True, slots=True)
class Lane:
    """What one lane saw."""

    seconds: float
    first_chunk_s: list[float]
    replies: list[Reply]


def indexes(reply: Reply) -> list[int]:
    """Read the numbers that a stream's events carry; empty where it is no such stream."""
    events = [event for event in reply.body.split(b"\n\n") if event]
    try:
        return [json.loads(event.removeprefix(b"data: "))["INDEX"] for event in events]
    except (ValueError, KeyError, TypeError):
        return []


async def read_lane(port: int, offset_s: float, streams: int, stream: Exchange) -> Lane:
    """Read streams one after another on one connection."""
    connection = await Connection.open(port)
    request = stream.request(port)
    await asyncio.sleep(offset_s)
    started_at = time.perf_counter()
    first_chunk_s: list[float] = []
    replies: list[Reply] = []
    for _ in range(streams):
        replies.append(await connection.ask(request))
        first_chunk_s.append(connection.timing.first_body_at - connection.timing.sent_at)
    connection.close()
    return Lane(connection.timing.ended_at - started_at, first_chunk_s, replies)


async def main(port: int, lanes: int, streams: int, stream: Exchange) -> None:
    """Read all lanes at once; the answers are judged when the clock has stopped."""
    seen = await asyncio.gather(
        *(read_lane(port, offset, streams, stream) for offset in start_offsets(lanes))
    )
    first_chunk_s = [seconds for lane in seen for seconds in lane.first_chunk_s]
    replies = [reply for lane in seen for reply in lane.replies]
    found = {
        "chunks_per_s": sum(streams * CHUNKS / lane.seconds for lane in seen),
        "first_chunk_p50_ms": statistics.median(first_chunk_s) * 1e3,
        "wrong_streams": sum(not STREAM.is_right(reply) for reply in replies),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    port, lanes, streams = (int(argument) for argument in sys.argv[1:4])
    uvloop.run(main(port, lanes, streams, stream_at(sys.argv[4]) if sys.argv[4:] else STREAM))
