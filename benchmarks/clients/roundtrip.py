"""Ask W1 requests one after another on one blocking connection and time each.

Run as ``python -m benchmarks.clients.roundtrip PORT REQUESTS``. Nothing between the clock
and the socket: no event loop, and a reply counts as whole when its announced length has
arrived.
"""

import json
import re
import socket
import statistics
import sys
import time

from benchmarks import inputs

_WARM_UP_REQUESTS = 500
_RECEIVE_BYTES = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def round_trip_s(connection: socket.socket, request: bytes) -> float:
    """Give the seconds from sending a request to having its whole reply."""
    started_at = time.perf_counter()
    connection.sendall(request)
    reply = connection.recv(_RECEIVE_BYTES)
    while not _is_whole(reply):
        more = connection.recv(_RECEIVE_BYTES)
        if not more:
            raise ConnectionError("the server closed the connection in the middle of a reply")
        reply += more
    return time.perf_counter() - started_at


def main(port: int, count: int) -> None:
    """Print the percentiles, in microseconds."""
    requests = [exchange.request(port) for exchange in inputs.affine()]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(_WARM_UP_REQUESTS):
            round_trip_s(connection, requests[index % len(requests)])
        taken = [
            round_trip_s(connection, requests[index % len(requests)]) for index in range(count)
        ]
    percentiles = statistics.quantiles(taken, n=100)
    print(json.dumps({"p50_us": percentiles[49] * 1e6, "p99_us": percentiles[98] * 1e6}))


def _is_whole(reply: bytes) -> bool:
    head_bytes = reply.find(b"\r\n\r\n")
    if head_bytes < 0:
        return False
    length = _LENGTH.search(reply, 0, head_bytes)
    return length is not None and len(reply) >= head_bytes + 4 + int(length[1])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
