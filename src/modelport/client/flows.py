"""A call to a server as a generator: what to send, what to make of the answer, when to try again.

The generator yields :class:`Ask` and :class:`Pause`, and gets a :class:`Response` for each ``Ask``.
It knows no socket and does not wait; a blocking and an asynchronous client run the same one.
"""

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from modelport.errors import Unavailable

__all__ = [
    "Ask",
    "Body",
    "Flow",
    "Pause",
    "Request",
    "Response",
    "Retries",
    "Stream",
    "TransportFailed",
    "asked",
    "followed",
]

MOST_REDIRECTS = 10
NOTHING: Mapping[str, str] = MappingProxyType({})

Body = bytes | Iterable[bytes]
T = TypeVar("T")


class TransportFailed(Unavailable):
    """No answer came: refused, reset, closed too early, or too late.

    Attributes:
        was_sent: Whether the server may have seen the request.
        is_timeout: Whether it was waited for as long as may be.
    """

    def __init__(self, text: str, *, was_sent: bool, is_timeout: bool = False) -> None:
        super().__init__(text)
        self.was_sent = was_sent
        self.is_timeout = is_timeout


class Request(NamedTuple):
    """One request.

    Attributes:
        method: In capitals.
        url: Whole, with scheme and host.
        headers: Without ``Host`` and without those that say how long the body is.
        body: Whole, or its pieces; pieces can be sent only once unless they can be iterated again.
        length: Bytes of the pieces, if known.
        timeout_s: Bound on connecting and on each wait for bytes; ``None`` for the client's.
        is_idempotent: Whether it may be sent again though the server has perhaps acted on it,
            whatever the method says.
    """

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = ()
    body: Body = b""
    length: int | None = None
    timeout_s: float | None = None
    is_idempotent: bool = False

    @property
    def can_repeat(self) -> bool:
        """Whether the same bytes can be sent a second time."""
        return isinstance(self.body, bytes)

    @property
    def is_safe(self) -> bool:
        """Whether nothing happens twice if it is."""
        return self.is_idempotent or self.method in _SAFE


class Stream(Protocol):
    """The body of an answer that is read as it comes. Read to the end, or closed, by its owner."""

    def close(self) -> None:
        """Let the connection go; what was not read is lost."""
        ...


class Response(NamedTuple):
    """An answer.

    Attributes:
        headers: Names in lower case.
        body: Whole; empty where ``stream`` is set.
        stream: Of an answer that was asked for as a stream and is a success.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    stream: Stream | None = None


class Ask(NamedTuple):
    """Send this and give the answer back in; raises :class:`TransportFailed` at the yield."""

    request: Request
    wants_stream: bool = False


class Pause(NamedTuple):
    """Wait before going on."""

    seconds: float


Flow = Generator[Ask | Pause, Response | None, T]


def _random() -> float:
    return int.from_bytes(os.urandom(4)) / 2**32


class Retries:
    """When to send a request again, and how long to wait before.

    Only what is safe to repeat is: a request that the server has not seen, one that it has refused
    with 429, and whatever went wrong, one that changes nothing or is known to the server by an
    idempotency key. A call that broke off, or was answered with 503, has perhaps been made. Waits
    grow by 2 with jitter, unless the server names one by ``Retry-After``.

    Attributes:
        count: Repetitions at the most; 0 switches them off.
        first_wait_s: Before the first one.
        most_wait_s: Between any two.
        most_named_wait_s: A server that names a longer one is not asked again.
        calls_are_idempotent: Whether calls may be made twice, as those of most models may: then
            they are also sent again after 503, and when the connection broke off.
    """

    __slots__ = (
        "calls_are_idempotent",
        "count",
        "first_wait_s",
        "jitter",
        "most_named_wait_s",
        "most_wait_s",
    )

    def __init__(
        self,
        *,
        count: int = 0,
        first_wait_s: float = 0.25,
        most_wait_s: float = 8.0,
        most_named_wait_s: float = 60.0,
        calls_are_idempotent: bool = False,
        jitter: Callable[[], float] = _random,
    ) -> None:
        self.count = count
        self.first_wait_s = first_wait_s
        self.most_wait_s = most_wait_s
        self.most_named_wait_s = most_named_wait_s
        self.calls_are_idempotent = calls_are_idempotent
        self.jitter = jitter

    def __repr__(self) -> str:
        return f"<Retries {self.count}>"

    def wait_s(self, attempt: int, headers: Mapping[str, str] = NOTHING) -> float | None:
        """How long to wait before repetition ``attempt``, counted from 0; ``None`` to give up.

        Args:
            attempt: Which one.
            headers: Of the answer that refused.
        """
        named_s = _named_wait_s(headers)
        if named_s is not None:
            return named_s if named_s <= self.most_named_wait_s else None
        longest = min(self.first_wait_s * 2.0 ** min(attempt, 60), self.most_wait_s)
        return float(longest * (0.5 + self.jitter() / 2))


def _named_wait_s(headers: Mapping[str, str]) -> float | None:
    """What ``Retry-After`` says (RFC 9110 §10.2.3); of a date, how long after the answer's own."""
    said = headers.get("retry-after", "")
    if said.isascii() and said.isdigit():
        return float(said)
    if not said:
        return None
    from email.utils import parsedate_to_datetime  # few answers need it, and it costs 3 ms

    try:
        until, now = (parsedate_to_datetime(text) for text in (said, headers.get("date", "")))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError):
        return None


_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED = frozenset({429, 503})
_NOT_STARTED = frozenset({429})
"""What nobody answers who has begun; 503 is also said by a proxy that lost its server."""
_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})


def asked(
    request: Request, retries: Retries | None = None, *, wants_stream: bool = False
) -> Flow[Response]:
    """Send a request, again where that is safe, and give the last answer.

    Raises:
        TransportFailed: If there was none.
    """
    policy = retries or Retries()
    attempt = 0
    while True:
        is_last = attempt == policy.count or not request.can_repeat
        try:
            response = yield Ask(request, wants_stream)
        except TransportFailed as exc:
            if is_last or (exc.was_sent and not request.is_safe):
                raise
            yield Pause(policy.wait_s(attempt) or 0.0)
        else:
            assert response is not None
            if is_last or response.status not in (_REFUSED if request.is_safe else _NOT_STARTED):
                return response
            wait_s = policy.wait_s(attempt, response.headers)
            if wait_s is None:
                return response
            yield Pause(wait_s)
        attempt += 1


def followed(
    request: Request, retries: Retries | None = None, *, wants_stream: bool = False
) -> Flow[Response]:
    """The same, going where redirections lead.

    To another host nothing goes along that says who asks. A body goes along with 307 and 308, and
    with nothing else (RFC 9110 §15.4).
    """
    for _ in range(MOST_REDIRECTS):
        response = yield from asked(request, retries, wants_stream=wants_stream)
        location = response.headers.get("location")
        if response.status not in _REDIRECTED or location is None or not request.can_repeat:
            return response
        url = _redirected(request.url, location)
        if url is None:
            return response
        headers = request.headers
        if urlsplit(url)[:2] != urlsplit(request.url)[:2]:
            headers = [pair for pair in headers if pair[0].lower() not in _SECRET]
        method, body = request.method, request.body
        if response.status == 303 or (response.status in (301, 302) and method == "POST"):
            method, body = "GET", b""
            headers = [pair for pair in headers if not pair[0].lower().startswith("content-")]
        request = Request(
            method,
            url,
            headers,
            body,
            timeout_s=request.timeout_s,
            is_idempotent=request.is_idempotent,
        )
    raise TransportFailed(
        f"the server redirected more than {MOST_REDIRECTS} times, at last to {request.url[:200]!r}",
        was_sent=True,
    )


def _redirected(url: str, location: str) -> str | None:
    """Where a redirection leads; ``None`` if to no server: into a Unix socket, for example."""
    try:
        found = quote(urljoin(url, location), safe="%/:=&?~#+!$,;'@()*[]")
        parts = urlsplit(found)
        is_server = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return found if is_server else None
