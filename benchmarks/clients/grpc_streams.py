"""Read W5 streams over gRPC, each lane one after another, and count their chunks.

Run as ``python -m benchmarks.clients.grpc_streams PORT LANES STREAMS_PER_LANE``; prints one JSON
line. As ``benchmarks.clients.streams``, with ModelStreamInfer in place of ``generate_stream``.
"""

import heapq
import json
import selectors
import statistics
import sys
import time

from benchmarks import messages
from benchmarks.clients.grpc_peer import GrpcPeer
from benchmarks.lanes import CHUNKS, start_offsets

_REQUEST = messages.stream(CHUNKS)


class Lane:
    """One connection and the streams that it reads in turn."""

    def __init__(self, port: int, streams: int) -> None:
        self.peer = GrpcPeer(port, _REQUEST.method, self._take)
        self.peer.flush()
        self.peer.socket.setblocking(False)
        self.left = streams
        self.started_at = 0.0
        self.ended_at = 0.0
        self.first_chunk_s: list[float] = []
        self.wrong_streams = 0
        self._asked_at = 0.0
        self._indexes: list[int | None] = []

    def ask(self) -> None:
        """Begin the next stream."""
        self._asked_at = time.perf_counter()
        self.started_at = self.started_at or self._asked_at
        self._indexes = []
        self.peer.call(_REQUEST.data)
        self.peer.flush()

    def _take(self, response: bytes) -> None:
        if not self._indexes:
            self.first_chunk_s.append(time.perf_counter() - self._asked_at)
        # Its meaning is looked at when the clock has stopped for this stream.
        self._indexes.append(messages.stream_index(response))

    def receive(self) -> bool:
        """Take what has come; whether that was the lane's last."""
        self.peer.receive()
        if self._asked_at and self.peer.is_done:
            self.ended_at = time.perf_counter()
            self.wrong_streams += self._indexes != list(range(CHUNKS))
            self.left -= 1
            if not self.left:
                return True
            self.ask()
        self.peer.flush()
        return False


def main(port: int, count: int, streams: int) -> None:
    """Read all lanes at once."""
    selector = selectors.DefaultSelector()
    lanes = [Lane(port, streams) for _ in range(count)]
    begun_at = time.perf_counter()
    due = [(begun_at + offset, index) for index, offset in enumerate(start_offsets(count))]
    heapq.heapify(due)
    for lane in lanes:
        selector.register(lane.peer.socket, selectors.EVENT_READ, lane)
    left = count
    while left:
        wait_s = max(0.0, due[0][0] - time.perf_counter()) if due else 10.0
        for key, _ in selector.select(wait_s):
            reader: Lane = key.data
            if reader.receive():
                selector.unregister(reader.peer.socket)
                left -= 1
        while due and due[0][0] <= time.perf_counter():
            lanes[heapq.heappop(due)[1]].ask()
    found = {
        "chunks_per_s": sum(streams * CHUNKS / (lane.ended_at - lane.started_at) for lane in lanes),
        "first_chunk_p50_ms": statistics.median(s for lane in lanes for s in lane.first_chunk_s)
        * 1e3,
        "wrong_streams": sum(lane.wrong_streams for lane in lanes),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
