"""What the connections of one listener share: routes, door, limits, memory, and the time."""

import asyncio
import functools
import itertools
import logging
import secrets
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field

from modelport.clock import Clock
from modelport.errors import ModelportError, NotFound, Unauthenticated
from modelport.protocols.base import Reply, Route, Rpc
from modelport.server.bulk import RECEIVE_BYTES
from modelport.server.cors import Cors
from modelport.server.http.answer_heads import AnswerHeads
from modelport.server.http.failures import encode_error
from modelport.server.http.known_heads import Bound, max_body_setting
from modelport.server.pressure import Pressure
from modelport.server.routing import Match, Router
from modelport.server.seldom_log import SeldomLog
from modelport.server.turns import Turns
from modelport.wire.chunked import body_too_large
from modelport.wire.http import HttpLimits, RequestHead

__all__ = ["AccessRecord", "Door", "Guest", "Holder", "HttpOptions", "HttpServer"]

log = logging.getLogger("modelport.http")


class Door(Protocol):
    """Decides who may come in, from the head alone and the same each time."""

    def admit(self, head: RequestHead, route: Route | Rpc) -> str:
        """Give the principal that asks.

        Raises:
            Unauthenticated: No key or a wrong one.
            Forbidden: Not from there, or not with this key.
        """
        ...


class Guest(Protocol):
    """What holds a connection: the listener's own, or a protocol that it was handed over to."""

    def check_time(self, now_ns: int) -> None:
        """Called about once a second: end what takes too long."""
        ...

    def close_if_idle(self) -> None:
        """The server is draining: end what has nothing under way."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...


class Holder(Protocol):
    """A connection that holds answers for the end of this turn of the loop."""

    @property
    def is_heavy(self) -> bool:
        """Whether writing them takes a while."""
        ...

    def flush(self) -> None:
        """Write what is held."""
        ...


class HttpOptions(Struct, frozen=True, kw_only=True):
    """How patient and how large the listener is. Durations in seconds."""

    limits: HttpLimits = field(default_factory=HttpLimits)
    idle_timeout_s: float = 75.0
    head_timeout_s: float = 30.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    max_connections: int = 10_000


class AccessRecord(Struct, frozen=True):
    """One line of the access log."""

    peer: str
    principal: str
    method: str
    target: str
    status: int
    body_bytes: int
    duration_s: float
    request_id: str


class HttpServer:
    """What all connections share.

    Args:
        router: Which request goes where.
        door: Who may come in.
        errors: How to say what concerns no route.
        clock: For timeouts and durations.
        options: Limits and patience.
        record_access: Called after each answer, if given.
        cors: Which web pages may call; none if not given.

    Attributes:
        known: Heads that came lately, by their bytes.
        turns: When work is done that can wait.
        seldom: Writes what any client could cause thousands of lines with.
        not_found: What a request is told that no route wants.
        scheme: "http", or "https" where its connections are encrypted.
        http2: Makes who takes over a connection that begins as HTTP/2 does; ``None`` refuses it.
    """

    def __init__(
        self,
        router: Router,
        door: Door,
        errors: Callable[[ModelportError], Reply],
        clock: Clock,
        options: HttpOptions,
        record_access: Callable[[AccessRecord], None] | None = None,
        cors: Cors | None = None,
    ) -> None:
        self.router = router
        self.door = door
        self.errors = errors
        self.clock = clock
        self.options = options
        self.record_access = record_access
        self.cors = cors or Cors()
        self.connections: set[Guest] = set()
        self.known: dict[bytes, Bound] = {}
        self.answer_heads = AnswerHeads()
        self.turns = Turns(clock)
        self.pressure = Pressure(clock, self.turns)
        self.seldom = SeldomLog(log, clock)
        # Whether nothing is to be noted or said beside an ordinary answer.
        self.is_plain = record_access is None
        self._is_draining = False
        self.last_sent_ns = 0
        self.last_sender: Holder | None = None
        self.not_found = "Not Found"
        self.scheme = "http"
        self.http2: Callable[[], asyncio.Protocol] | None = None
        self._holding: list[Holder] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._id_prefix = secrets.token_hex(4)
        self._ids = itertools.count(1)

    @functools.cached_property
    def bulk_buffer(self) -> bytearray:
        """For connections whose clients send much; see :func:`receive_in_place`."""
        return bytearray(RECEIVE_BYTES)

    @property
    def is_draining(self) -> bool:
        """Whether connections are to be closed after their answer."""
        return self._is_draining

    @is_draining.setter
    def is_draining(self, value: bool) -> None:
        self._is_draining = value
        self.is_plain = self.record_access is None and not value

    def open(self) -> None:
        """Begin to watch the time."""
        self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep)

    def drain(self) -> None:
        """Answer what has come, close what is idle, and each other connection after its answer."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.close_if_idle()

    def close(self) -> None:
        """End every connection, answered or not."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.abort()

    def flush_soon(self, connection: Holder) -> None:
        """Have what ``connection`` holds written at the end of this turn of the loop."""
        if not self._holding:
            asyncio.get_running_loop().call_soon(self._flush)
        self._holding.append(connection)

    def _flush(self) -> None:
        holding, self._holding = self._holding, []
        for connection in holding:
            if connection.is_heavy:
                self._flush_heavy(connection)
            else:
                connection.flush()
            self.last_sender = connection
        self.last_sent_ns = self.clock.now_ns()

    def _flush_heavy(self, connection: Holder) -> None:
        turns, now_ns = self.turns, self.clock.now_ns
        started_ns = now_ns()
        if turns.until_ns(started_ns) > started_ns:
            connection.flush()
            turns.spend(now_ns() - started_ns)
        else:
            turns.later(connection.flush)

    def look_up(self, head: RequestHead) -> Bound:
        """Find the route of a request, and hear the door."""
        cors = self.cors.of(head)
        answer_headers = cors.answer_headers(head)
        answers = self.pressure.answers(head.path)
        most = self.options.limits.body_bytes
        preflight = cors.preflight(head)
        if preflight is not None:
            return Bound(head, None, {}, "", most, preflight, answers, answer_headers)
        match = self.router.match(head.method, head.path)
        route = match.route
        if route is None:
            return Bound(head, None, {}, "", most, self._no_route(match), answers, answer_headers)
        most = route.max_body_bytes or most
        principal, refusal = "", None
        try:
            principal = self.door.admit(head, route)
            if head.content_length > most:
                raise body_too_large(head.content_length, most, max_body_setting(route))
        except ModelportError as exc:
            refusal = encode_error(route.errors, exc)
            if isinstance(exc, Unauthenticated):
                headers = (*refusal.headers, ("WWW-Authenticate", "Bearer"))
                refusal = Reply(refusal.status, headers, refusal.body)
        return Bound(head, route, match.params, principal, most, refusal, answers, answer_headers)

    def _no_route(self, match: Match) -> Reply:
        if not match.methods:
            return self.errors(NotFound(self.not_found))
        reply = self.errors(NotFound("Method Not Allowed"))
        allow = ("Allow", ", ".join(match.methods))  # RFC 9110 §15.5.6
        return Reply(405, (*reply.headers, allow), reply.body)

    def new_request_id(self) -> str:
        """An id that ties an answer to the log."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def _sweep(self) -> None:
        now_ns = self.clock.now_ns()
        for connection in list(self.connections):
            connection.check_time(now_ns)
        self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep)
