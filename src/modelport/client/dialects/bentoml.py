"""Calls in BentoML's protocol, as flows: what to send, and which exception an answer is."""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

from modelport._version import __version__
from modelport.client.flows import (
    Ask,
    Flow,
    Pause,
    Request,
    Response,
    Retries,
    TransportFailed,
    followed,
)
from modelport.client.transports.address import without_credentials
from modelport.client.values import File, bind, file_of, plain
from modelport.errors import InvalidRequest
from modelport.exceptions import (
    BentoMLException,
    InvalidArgument,
    NotFound,
    ServiceUnavailable,
    UnprocessableEntity,
)
from modelport.wire.bentoml import NO_FILES, EndpointSchema, decode_schema
from modelport.wire.json_writing import encode

__all__ = ["Dialect", "encode_form", "encode_json", "failure", "unreachable"]

MOST_TEXT_BYTES = 16_384
"""Of what a server says of an error: enough for people, and for a log."""
FIRST_WAIT_S = 0.05
MOST_WAIT_S = 1.0

_EXCEPTION_BY_STATUS: Mapping[int, type[BentoMLException]] = {
    400: InvalidArgument,
    404: NotFound,
    422: UnprocessableEntity,
    503: ServiceUnavailable,
}


class Dialect:
    """How one server is asked.

    Args:
        url: Of the server, with what stands before its routes; ``name:password@`` in it is sent as
            ``Authorization: Basic``, to this server alone.
        token: Sent with every request as ``Authorization: Bearer``; ``None`` for none.
        retries: When a call is sent again.
    """

    def __init__(self, url: str, token: str | None, retries: Retries) -> None:
        url, credentials = without_credentials(url)
        self.url = url.rstrip("/")
        self._prefix = urlsplit(self.url).path.rstrip("/")
        self._origin = self.url[: len(self.url) - len(self._prefix)] + "/"
        self._anonymous = [("User-Agent", f"modelport/{__version__}"), ("Accept", "*/*")]
        self._headers = [*self._anonymous]
        if token:
            credentials = f"Bearer {token}"
        if credentials:
            self._headers.append(("Authorization", credentials))
        self._retries = retries
        self._json_ways: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        """Of the routes that were called with JSON: not one more than the schema has."""

    def locate(self, route: str) -> str:
        """The URL of a route, which may name what stands before it already."""
        if route.startswith(("http://", "https://")):
            return route
        route = "/" + route.lstrip("/")
        if self._prefix and (route + "/").startswith(self._prefix + "/"):
            route = route[len(self._prefix) :]
        return self.url + route

    def request(
        self,
        method: str,
        route: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: Any = b"",
        length: int | None = None,
        timeout_s: float | None = None,
        is_idempotent: bool = False,
    ) -> Request:
        """Make a request with what goes along with all of them; the token to this server alone."""
        known = self._json_ways.get(route) if headers is _JSON_HEADERS else None
        if known is None:
            url = self.locate(route)
            is_ours = f"{url}/".startswith(self._origin)
            own = {name.lower() for name, _ in headers}
            common = self._headers if is_ours else self._anonymous
            known = url, [*(pair for pair in common if pair[0].lower() not in own), *headers]
            if headers is _JSON_HEADERS:
                self._json_ways[route] = known
        return Request(method, *known, body, length, timeout_s, is_idempotent)

    def is_ready(self, timeout_s: float | None) -> Flow[bool]:
        """Ask whether the server can answer; a server that is not there is not ready."""
        try:
            response = yield Ask(self.request("GET", "/readyz", timeout_s=timeout_s))
        except TransportFailed:
            return False
        return response is not None and response.status == 200

    def await_ready(
        self, timeout_s: float, now_s: Callable[[], float] = time.monotonic
    ) -> Flow[None]:
        """Wait until it can.

        Raises:
            ServiceUnavailable: If it cannot for so long.
        """
        until_s = now_s() + timeout_s
        wait_s = FIRST_WAIT_S
        while True:
            left_s = until_s - now_s()
            if left_s <= 0:
                raise ServiceUnavailable(f"Server is not ready after {timeout_s:g} seconds")
            if (yield from self.is_ready(left_s)):
                return
            yield Pause(max(0.0, min(wait_s, until_s - now_s())))
            wait_s = min(wait_s * 2, MOST_WAIT_S)

    def endpoints(self) -> Flow[dict[str, EndpointSchema]]:
        """Ask what there is."""
        response = yield from followed(self.request("GET", "/schema.json"), self._retries)
        if response.status == 404 and self._prefix:
            # BentoML never moves its schema behind a prefix.
            root = self.url[: len(self.url) - len(self._prefix)]
            request = self.request("GET", root + "/schema.json")
            response = yield from followed(request, self._retries)
        if response.status != 200:
            raise failure(response)
        try:
            schema = decode_schema(response.body)
        except InvalidRequest as exc:
            raise BentoMLException(
                f"what {self.url} has at /schema.json is not the schema of a service; is this a "
                "Modelport or BentoML server?"
            ) from exc
        return {endpoint.name: endpoint for endpoint in schema.routes}

    def call(
        self,
        endpoint: EndpointSchema,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        suffix: str = "",
        *,
        headers: Sequence[tuple[str, str]] = (),
        is_idempotent: bool = False,
    ) -> Flow[Response]:
        """Call an endpoint and give its answer, which is a success; files as a stream.

        Raises:
            TypeError: If the arguments are not what it takes.
            BentoMLException: If the answer is no success.
        """
        kinds, body, length = _encode(endpoint, bind(endpoint, args, kwargs))
        route = endpoint.route.rstrip("/") + suffix if suffix else endpoint.route
        is_stream = endpoint.is_stream and not suffix
        if is_stream and _runs_together(endpoint.output):
            # Records keep apart, and tell of failures.
            kinds = [*kinds, ("Accept", "application/x-ndjson, */*;q=0.5")]
        request = self.request(
            "POST",
            route,
            headers=[*kinds, *headers] if headers else kinds,
            body=body,
            length=length,
            is_idempotent=is_idempotent or (self._retries.calls_are_idempotent and not suffix),
        )
        wants_stream = is_stream or (endpoint.gives_files and not suffix)
        response = yield from followed(request, self._retries, wants_stream=wants_stream)
        if not 200 <= response.status < 300:
            raise failure(response)
        return response

    def task(
        self, method: str, endpoint: EndpointSchema, verb: str, task_id: str
    ) -> Flow[Response]:
        """Ask about a task, or for something to be done with it."""
        query = urlencode({"task_id": task_id})
        # Stopping what is stopped already changes nothing.
        return (
            yield from self.ask(
                endpoint,
                f"/{verb}?{query}",
                method=method,
                is_idempotent=verb == "cancel",
                wants_stream=verb == "get" and endpoint.gives_files,
            )
        )

    def ask(
        self,
        endpoint: EndpointSchema,
        suffix: str,
        *,
        method: str = "GET",
        is_idempotent: bool = False,
        wants_stream: bool = False,
    ) -> Flow[Response]:
        """Ask below the route of an endpoint, and give the answer, which is a success.

        Raises:
            BentoMLException: If it is none.
        """
        route = endpoint.route.rstrip("/") + suffix
        request = self.request(method, route, is_idempotent=is_idempotent)
        response = yield from followed(request, self._retries, wants_stream=wants_stream)
        if not 200 <= response.status < 300:
            raise failure(response)
        return response


def _runs_together(item: Mapping[str, Any]) -> bool:
    """Whether nothing tells where one item ends and the next begins: text, numbers, words."""
    branches = item.get("anyOf") or [item]
    return all(
        each.get("type") in _BARE_TYPES and each.get("format") != "binary" for each in branches
    )


def failure(response: Response) -> BentoMLException:
    """The exception that an answer is; its text is what the server sent."""
    text = response.body[:MOST_TEXT_BYTES].decode("utf-8", "replace")
    if len(response.body) > MOST_TEXT_BYTES:
        text += f"... ({len(response.body)} bytes)"
    if not text.strip():
        text = f"the server answered with status {response.status} and no text"
        if "location" in response.headers:
            text += f"; it points to {response.headers['location'][:200]!r}"
    made = _EXCEPTION_BY_STATUS.get(response.status)
    if made is not None:
        return made(text)
    try:
        return BentoMLException(text, error_code=HTTPStatus(response.status))
    except ValueError:
        return BentoMLException(
            f"the server answered with status {response.status}: {text}",
            error_code=HTTPStatus.INTERNAL_SERVER_ERROR,
        )


def unreachable(exc: TransportFailed) -> ServiceUnavailable:
    """The exception for a call that got no answer."""
    return ServiceUnavailable(exc.text)


Encoded = tuple[list[tuple[str, str]], Any, int | None]
"""Headers, body, and the bytes of a body that is read as it is sent."""


def encode_json(value: Any) -> bytes:
    """Write plain values; NaN and Infinity as bare words, text as UTF-8.

    Raises:
        TypeError: If a value has no form in JSON.
    """
    try:
        return encode(value)
    except UnicodeEncodeError:
        raise TypeError("a text holds half of a surrogate pair, which cannot be sent") from None


def encode_form(fields: Sequence[tuple[str, bytes | File]]) -> Encoded:
    """Write a multipart body: values as they are, files with their names and types."""
    from modelport.wire.multipart import encode_part  # brings a parser that few calls need

    boundary = os.urandom(16).hex()
    pieces: list[Callable[[], Iterator[bytes]]] = []
    length = 0
    is_on_disk = False
    for name, content in fields:
        if isinstance(content, File):
            head = encode_part(
                boundary, name, filename=content.name, content_type=content.content_type
            )
            pieces += [_once(head), content.blocks, _once(b"\r\n")]
            length += len(head) + content.size + 2
            is_on_disk |= content.path is not None
        else:
            head = encode_part(boundary, name)
            pieces.append(_once(head + content + b"\r\n"))
            length += len(head) + len(content) + 2
    end = f"--{boundary}--\r\n".encode()
    body = _Pieces([*pieces, _once(end)])
    headers = [("Content-Type", f"multipart/form-data; boundary={boundary}")]
    return headers, body if is_on_disk else b"".join(body), length + len(end)


def _encode(endpoint: EndpointSchema, bound: Mapping[str, Any]) -> Encoded:
    if endpoint.is_root:
        return _encode_root(endpoint, bound)
    if endpoint.is_multipart:
        return _encode_multipart(endpoint, bound)
    try:
        # What is plain already, as nearly always, needs no look at each item.
        body = encode_json(bound)
    except TypeError:
        parameters = endpoint.parameters
        body = encode_json(
            {
                name: plain(value, parameters[name].schema if name in parameters else {})
                for name, value in bound.items()
            }
        )
    return _JSON_HEADERS, body, None


def _encode_root(endpoint: EndpointSchema, bound: Mapping[str, Any]) -> Encoded:
    if "root" not in bound:
        return _JSON_HEADERS, b"", None
    value, parameter = bound["root"], endpoint.parameters["root"]
    if parameter.is_file:
        file = file_of(value, parameter)
        if file.url:
            return _JSON_HEADERS, file.url.encode(), None
        body: Any = file.content if file.content is not None else _Pieces([file.blocks])
        return [("Content-Type", file.content_type)], body, file.size
    if parameter.schema.get("type") == "string":
        content = value if isinstance(value, bytes) else str(value).encode()
        return [("Content-Type", "text/plain")], content, None
    return _JSON_HEADERS, encode_json(plain(value, parameter.schema)), None


def _encode_multipart(endpoint: EndpointSchema, bound: Mapping[str, Any]) -> Encoded:
    fields: list[tuple[str, bytes | File]] = []
    for name, value in bound.items():
        parameter = endpoint.parameters.get(name)
        if parameter is None or not parameter.is_file:
            schema = parameter.schema if parameter else {}
            fields.append((name, encode_json(plain(value, schema))))
        elif value is None and parameter.default is None:
            continue
        else:
            is_list = parameter.schema.get("type") == "array"
            files = value if is_list else [value]
            if is_list and not files:
                fields.append((name, NO_FILES.encode()))
            for one in files:
                file = file_of(one, parameter)
                fields.append((name, file.url.encode() if file.url else file))
    return encode_form(fields)


_JSON_HEADERS = [("Content-Type", "application/json")]
_BARE_TYPES = frozenset({"string", "integer", "number", "boolean", "null"})


def _once(content: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter((content,))


class _Pieces:
    """A body that is read while it is sent, as often as it is sent."""

    def __init__(self, pieces: Sequence[Callable[[], Iterator[bytes]]]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain.from_iterable(piece() for piece in self._pieces)
