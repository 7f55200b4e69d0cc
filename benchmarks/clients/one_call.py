"""Make the same small JSON call again and again on one connection, and count the answers.

Run as ``python -m benchmarks.clients.one_call PORT CALLER SECONDS``, where CALLER is ``modelport``
or ``bentoml`` (their clients), or ``raw``: the same bytes on a socket, the end of the answer told
by nothing but its length. Prints one JSON line. Runs in the environment of BentoML, too.
"""

import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [0.1, 0.2, 0.3, 0.4]]
EXPECTED = [0, 0, 3]
_WARM_UP_CALLS = 200


def by_modelport(port: int) -> Callable[[], object]:
    """Call by ``modelport.SyncHTTPClient``."""
    import modelport

    client: Any = modelport.SyncHTTPClient(f"http://127.0.0.1:{port}")
    classify = client.classify
    return lambda: classify(input_series=ROWS)


def by_bentoml(port: int) -> Callable[[], object]:
    """Call by ``bentoml.SyncHTTPClient``."""
    import bentoml

    classify = bentoml.SyncHTTPClient(f"http://127.0.0.1:{port}").classify
    return lambda: classify(input_series=ROWS)


def raw(port: int) -> Callable[[], object]:
    """Exchange the bytes that ``by_modelport`` does."""
    body = json.dumps({"input_series": ROWS}, separators=(",", ":")).encode()
    head = (
        f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: modelport/0.1.0\r\n"
        f"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    peer = socket.create_connection(("127.0.0.1", port))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sendall(request)
    usual = peer.recv(65_536)
    if not usual.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"no good answer: {usual!r}")

    def exchange() -> object:
        peer.sendall(request)
        left = len(usual)
        while left > 0:
            received = peer.recv(65_536)
            if not received:
                raise SystemExit("the server closed the connection")
            left -= len(received)
        return json.loads(received[-len("[0,0,3]") :])

    return exchange


def main(port: int, caller: str, seconds: float) -> None:
    """Warm up, measure, print."""
    call = {"modelport": by_modelport, "bentoml": by_bentoml, "raw": raw}[caller](port)
    for _ in range(_WARM_UP_CALLS):
        if call() != EXPECTED:
            raise SystemExit("a wrong answer")
    calls = 0
    cpu_before_s = time.process_time()
    started_at = now = time.perf_counter()
    while now < started_at + seconds:
        call()
        calls += 1
        now = time.perf_counter()
    cpu_s = time.process_time() - cpu_before_s
    per_call = 1e6 / calls
    print(json.dumps({"call_us": (now - started_at) * per_call, "cpu_us": cpu_s * per_call}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
