"""What clients have asked for and do not read, held within one bound over all connections.

A client that does not read costs its own bound (``HIGH_WATER_BYTES``), but an answer is as large as
it is, and five hundred clients times a megabyte is half a gigabyte. So while too much is unread,
requests whose last answer was large wait before they are executed; small ones are not touched.
Clients that have not read a byte for a while are closed to make room, the longest stuck first. Who
has read before is given longer: a machine that is busy stops good clients for a second or two, and
with the connection of one all its calls are lost.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from modelport.clock import Clock
from modelport.server.turns import TURN_NS, Turns

__all__ = ["LARGE_ANSWER_BYTES", "UNREAD_BYTES", "Answers", "Pressure", "Reader"]

log = logging.getLogger("modelport.http")

UNREAD_BYTES = 16_777_216
"""Unread bytes of all connections together above which requests with large answers wait."""
LARGE_ANSWER_BYTES = 16_384
"""Answers below this are never waited with."""
STUCK_NS = 500_000_000
"""A client that has not read a byte of its answer for so long is stuck, once memory is short."""
PATIENCE_NS = 5_000_000_000
"""The same for one that has been seen reading on."""
READING_NS = 50_000_000
"""What is taken this soon after an answer was written has gone into the buffers of the kernel."""
MOST_WAITING_NS = 10_000_000_000
"""How long a request waits for memory before it is refused."""
CHECK_S = 0.1
LOOKS_AT_ONCE = 64
"""Clients that are looked at before other work may come in between; a thousand take 1 ms."""
MOST_CLOSED = 6
"""Stuck clients that are closed at one look: many come back at once, and each costs a turn."""
TELL_EACH_NS = 1_000_000_000
"""How often the log says that clients were closed: an attack must not fill it."""
MOST_KNOWN = 1024
LONGEST_KNOWN = 256
"""Characters of a path whose answers are remembered: what strangers ask for stays small."""


class Reader(Protocol):
    """A connection whose client does not read as fast as we write.

    Attributes:
        reads_on: Whether the client has been seen to take what it had not taken at once.
    """

    reads_on: bool

    def unread_bytes(self) -> int:
        """Bytes of answers that are still in memory."""
        ...

    def abort(self) -> None:
        """Drop the connection, and with it what is unread."""
        ...


class Answers:
    """What is known of the answers to the requests with one path.

    Attributes:
        bytes: Of the last one.
    """

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class _Unread:
    __slots__ = ("bytes", "since_ns")

    def __init__(self, bytes: int, since_ns: int) -> None:
        self.bytes = bytes
        self.since_ns = since_ns


class Pressure:
    """Counts unread bytes, and lets requests go on while there are few. On the event loop only.

    Args:
        clock: For how long clients are stuck.
        turns: When those that waited go on.

    Attributes:
        is_short: Whether there were too many a moment ago, so that requests have to wait.
    """

    def __init__(self, clock: Clock, turns: Turns) -> None:
        self._now_ns = clock.now_ns
        self._turns = turns
        self._unread: dict[Reader, _Unread] = {}
        self._unseen: list[Reader] = []
        self._stuck: list[tuple[int, Reader]] = []
        self._thrown_out: deque[Reader] = deque()
        self._untold = 0
        self._told_ns = clock.now_ns() - TELL_EACH_NS
        self._waiting: deque[tuple[int, int, Callable[[], None], Callable[[], None]]] = deque()
        self._answers_by_path: dict[str, Answers] = {}
        self._reserved_bytes = 0
        self._is_going_on = False
        self._is_looking = False
        self._turn_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self.is_short = False

    def __repr__(self) -> str:
        return f"<Pressure unread={self.unread_bytes()} waiting={len(self._waiting)}>"

    def answers(self, path: str) -> Answers:
        """What is known of a path; the same object for the same path."""
        known = self._answers_by_path
        found = known.get(path)
        if found is None:
            found = Answers()
            if len(path) <= LONGEST_KNOWN:
                if len(known) >= MOST_KNOWN:
                    known.clear()
                known[path] = found
        return found

    def unread_bytes(self) -> int:
        """Of all connections, when each was last looked at."""
        return sum(unread.bytes for unread in self._unread.values())

    def reserve(self, expected_bytes: int) -> bool:
        """Set room aside for an answer that a request will have.

        Returns:
            Whether there is room. If not, the request has to ``wait``; if so, ``release`` it when
            the answer is out.
        """
        # Whoever waits already goes first.
        if self._waiting or not self._has_room(expected_bytes):
            return False
        # Hundreds of them may come in one turn of the loop, and small requests between them.
        now_ns = self._now_ns()
        if not self._turn_ns:
            self._turn_ns = now_ns
            asyncio.get_running_loop().call_soon(self._end_turn)
        elif now_ns - self._turn_ns > TURN_NS:
            return False
        self._reserved_bytes += expected_bytes
        return True

    def _end_turn(self) -> None:
        self._turn_ns = 0
        self._go_on_soon()

    def release(self, expected_bytes: int) -> None:
        """The answer is out, or will never be; from now on its unread bytes count."""
        self._reserved_bytes -= expected_bytes
        self._go_on_soon()

    def _has_room(self, expected_bytes: int) -> bool:
        taken_bytes = self._reserved_bytes + self.unread_bytes()
        # One that is larger than the bound goes on when it is alone.
        return not taken_bytes or taken_bytes + expected_bytes <= UNREAD_BYTES

    def wait(
        self, expected_bytes: int, go_on: Callable[[], None], refuse: Callable[[], None]
    ) -> None:
        """Call ``go_on`` once room is reserved for the answer, ``refuse`` if none comes free."""
        self.is_short = True
        self._waiting.append((self._now_ns() + MOST_WAITING_NS, expected_bytes, go_on, refuse))
        self._watch()

    def filled(self, reader: Reader) -> None:
        """A client does not keep up."""
        self._unread[reader] = _Unread(reader.unread_bytes(), self._now_ns())
        self._watch()

    def grew(self, reader: Reader) -> None:
        """A client that does not keep up has been given more."""
        unread = self._unread.get(reader)
        if unread is not None:
            unread.bytes = reader.unread_bytes()

    def is_stuck(self, reader: Reader) -> bool:
        """Whether a client has not read a byte for a while, and memory is short."""
        unread = self._unread.get(reader) if self.is_short else None
        return unread is not None and self._now_ns() - unread.since_ns > STUCK_NS // 2

    def emptied(self, reader: Reader) -> None:
        """A client has caught up, or has gone."""
        if self._unread.pop(reader, None) is not None:
            self._go_on_soon()

    def _watch(self) -> None:
        if self._timer is None and not self._is_looking:
            self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._is_looking = True
        self._unseen = list(self._unread)
        self._stuck = []
        self._turns.later(self._look_on)

    def _look_on(self) -> None:
        """Look at some of a thousand readers; the others have their turn later."""
        now_ns = self._now_ns()
        unseen = self._unseen
        some, unseen[-LOOKS_AT_ONCE:] = unseen[-LOOKS_AT_ONCE:], ()
        for reader in some:
            unread = self._unread.get(reader)
            if unread is None:
                continue
            left_bytes = reader.unread_bytes()
            if left_bytes < unread.bytes:
                reader.reads_on |= now_ns - unread.since_ns > READING_NS
                unread.since_ns = now_ns
            # More is no sign of reading: a client can ask on while it takes no answers.
            unread.bytes = left_bytes
            if now_ns - unread.since_ns > (PATIENCE_NS if reader.reads_on else STUCK_NS):
                self._stuck.append((unread.since_ns, reader))
        if unseen:
            self._turns.later(self._look_on)
        else:
            self._make_room(now_ns, self._stuck)

    def _make_room(self, now_ns: int, stuck: list[tuple[int, Reader]]) -> None:
        """Throw out who is stuck, if memory is short, and refuse who has waited too long."""
        self._is_looking = False
        total = self.unread_bytes()
        self.is_short = is_short = total > UNREAD_BYTES or bool(self._waiting)
        stuck.sort(key=lambda row: row[0])
        for _, reader in stuck[:MOST_CLOSED]:
            if not is_short or total <= UNREAD_BYTES // 2:
                break
            unread = self._unread.pop(reader, None)
            if unread is not None:
                total -= unread.bytes
                self._thrown_out.append(reader)
        if self._thrown_out:
            self._tell(now_ns, len(self._thrown_out), total)
            self._throw_out()
        while self._waiting and self._waiting[0][0] <= now_ns:
            self._waiting.popleft()[3]()
        self._go_on_soon()
        if self._unread or self._waiting:
            self._watch()

    def _tell(self, now_ns: int, count: int, left_bytes: int) -> None:
        self._untold += count
        if now_ns - self._told_ns >= TELL_EACH_NS:
            log.warning(
                "clients are cut off that do not read their answers: %d; %d bytes of others wait",
                self._untold,
                left_bytes,
            )
            self._untold = 0
            self._told_ns = now_ns

    def _throw_out(self) -> None:
        # What hangs on a connection falls with it, and that takes a while: one in each turn.
        # Looks may overlap: the last one's are not all gone when the machine is slow.
        if self._thrown_out:
            self._thrown_out.popleft().abort()
        if self._thrown_out:
            asyncio.get_running_loop().call_soon(self._throw_out)

    def _go_on_soon(self) -> None:
        if self._waiting and not self._is_going_on and self._has_room(self._waiting[0][1]):
            self._is_going_on = True
            self._turns.later(self._go_on)

    def _go_on(self) -> None:
        now_ns = self._now_ns()
        until_ns = self._turns.until_ns(now_ns)
        while self._waiting and now_ns < until_ns and self._has_room(self._waiting[0][1]):
            _, expected_bytes, go_on, _ = self._waiting.popleft()
            self._reserved_bytes += expected_bytes
            go_on()
            now_ns = self._now_ns()
        self._is_going_on = False
        self._go_on_soon()
