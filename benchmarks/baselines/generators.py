"""Drain the W5 streams in the process that makes them: what timers alone allow.

Run as ``python -m benchmarks.baselines.generators STREAMS STREAMS_PER_LANE``; prints one
JSON line.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

import uvloop

from benchmarks.lanes import CHUNK_INTERVAL_S, CHUNKS, start_offsets


async def chunks() -> AsyncIterator[int]:
    """Yield as ``benchmarks/models/stream`` does: the first at once, then one each 2 ms."""
    for index in range(CHUNKS):
        if index:
            await asyncio.sleep(CHUNK_INTERVAL_S)
        yield index


async def drain(offset_s: float, streams: int) -> float:
    """Drain streams one after another and give the chunks per second of this lane."""
    await asyncio.sleep(offset_s)
    started_at = time.perf_counter()
    count = 0
    for _ in range(streams):
        async for _ in chunks():
            count += 1
    return count / (time.perf_counter() - started_at)


async def main(lanes: int, streams: int) -> None:
    """Drain all lanes at once and print their rates together."""
    rates = await asyncio.gather(*(drain(offset, streams) for offset in start_offsets(lanes)))
    print(json.dumps({"chunks_per_s": sum(rates)}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
