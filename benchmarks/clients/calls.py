"""Make gRPC calls on some connections, one at a time on each, and count the answers.

Run as ``python -m benchmarks.clients.calls PORT KIND CONNECTIONS SECONDS CHECKED``, where KIND
is a function of :mod:`benchmarks.messages`; prints one JSON line after its warm-up and one at
the end. With CHECKED 0 the answers may be any message.
"""

import selectors
import sys
import time

from benchmarks import messages
from benchmarks.clients.grpc_peer import CallError, GrpcPeer
from benchmarks.clients.pressing import measure
from benchmarks.messages import Message


class Lane:
    """One connection."""

    def __init__(self, port: int, method: str) -> None:
        self.peer = GrpcPeer(port, method, self._take)
        self.peer.socket.setblocking(False)
        self.message: Message
        self.started_at = 0.0
        self.answer = b""

    def _take(self, answer: bytes) -> None:
        self.answer = answer

    def ask(self, message: Message) -> None:
        """Begin the next call."""
        self.message = message
        self.answer = b""
        self.started_at = time.perf_counter()
        self.peer.call(message.data)


class Press:
    """Connections that call without pause, and how long each call took."""

    def __init__(self, port: int, requests: list[Message], connections: int) -> None:
        self.taken_s: list[float] = []
        self._requests = requests
        self._next = 0
        self._selector = selectors.DefaultSelector()
        for _ in range(connections):
            lane = Lane(port, requests[0].method)
            self._ask(lane)
            events = selectors.EVENT_READ
            if not lane.peer.flush():
                events |= selectors.EVENT_WRITE
            self._selector.register(lane.peer.socket, events, lane)

    def run(self, seconds: float) -> None:
        """Call for some seconds; what is under way then stays so."""
        self.taken_s.clear()
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            for key, events in self._selector.select(1.0):
                lane: Lane = key.data
                if events & selectors.EVENT_READ:
                    lane.peer.receive()
                    if lane.peer.is_done:
                        if not lane.message.is_right(lane.answer):
                            raise CallError(f"a wrong answer: {lane.answer[:200]!r}")
                        self.taken_s.append(time.perf_counter() - lane.started_at)
                        self._ask(lane)
                wanted = selectors.EVENT_READ
                if not lane.peer.flush():
                    wanted |= selectors.EVENT_WRITE
                if wanted != key.events:
                    self._selector.modify(lane.peer.socket, wanted, lane)

    def _ask(self, lane: Lane) -> None:
        lane.ask(self._requests[self._next % len(self._requests)])
        self._next += 1


def main(port: int, kind: str, connections: int, seconds: int, checked: int) -> None:
    """Warm up, measure, print."""
    requests = {"affine": messages.affine, "image_identity": messages.image_identity}[kind]()
    press = Press(port, requests if checked else messages.unchecked(requests), connections)
    measure(press, seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *(int(argument) for argument in sys.argv[3:]))
