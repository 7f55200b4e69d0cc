"""Calls to a server that speaks the V2 protocol over HTTP, one at a time, for the command line.

Blocking, one connection, standard library only: enough for a person who waits for the answer.
"""

import http.client
import json
import socket
import ssl
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from modelport.client.tls_failures import explain_tls
from modelport.client.transports.address import without_credentials
from modelport.errors import ModelportError, TimedOut, Unavailable
from modelport.wire.prometheus import decode_samples

__all__ = ["BadReply", "Load", "ModelMetadata", "Refused", "Reply", "Server", "TensorMetadata"]


READ_BYTES = 1 << 20
MOST_BYTES = 1 << 30
"""Of an answer, which is held in memory."""
MOST_ERROR_BYTES = 1 << 22
MOST_TEXT = 16_384
"""Of what a server says of an error."""


class Refused(ModelportError):
    """The server answered with an error.

    Attributes:
        status: Of HTTP.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    def __str__(self) -> str:
        return f"[{self.status}] {self.text}"


class BadReply(ModelportError):
    """What came back is not what the V2 protocol says."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer.

    Attributes:
        header_by_name: Names in lower case.
        body: Decompressed, whole.
    """

    header_by_name: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Give the body as JSON.

        Raises:
            BadReply: If it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as exc:
            raise BadReply(f"expected JSON, got {self.body[:80]!r}; is this a V2 server?") from exc


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """An input or output as a server describes it; -1 in the shape is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model as a server describes it."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """What a version has to do at the moment; ``None`` where the server does not tell.

    Attributes:
        instances: It has so many.
        busy: Of them that execute something.
        pending: Requests that wait in the queue.
    """

    instances: int | None = None
    busy: int | None = None
    pending: int | None = None


class Server:
    """One server, over one connection that is opened by the first call.

    Args:
        url: ``http://`` or ``https://``, or only ``host:port``; a path goes before every route,
            and ``name:password@`` is sent as basic credentials.
        api_key: Sent as a bearer token.
        timeout_s: Longest wait for a connection, and for each piece of an answer.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0) -> None:
        url, credentials = without_credentials(url if "://" in url else f"http://{url}")
        parts = urllib.parse.urlsplit(url)
        try:
            is_valid = parts.scheme in ("http", "https") and bool(parts.hostname)
            port = parts.port
        except ValueError:
            is_valid = False
        if not is_valid or parts.hostname is None:
            raise BadReply(f'cannot call "{url}"; expected http://HOST:PORT or https://HOST:PORT')
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._base = parts.path.rstrip("/")
        if api_key:
            credentials = f"Bearer {api_key}"
        self._headers = {"Authorization": credentials} if credentials else {}
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(parts.hostname, port, timeout=timeout_s)
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._connection.close()

    def index(self) -> list[dict[str, Any]]:
        """List the repository: objects with ``name``, maybe ``version``, ``state``, ``reason``."""
        rows = self.post("/v2/repository/index", [b"{}"]).json()
        if not isinstance(rows, list) or not all(_is_named(row) for row in rows):
            raise BadReply("the repository index is no array of objects with a name")
        return rows

    def names(self) -> list[str]:
        """List the models' names, of a server without a repository index (KServe)."""
        models = self.get("/v2/models").json()
        names = models.get("models") if isinstance(models, dict) else None
        if not isinstance(names, list):
            raise BadReply('the list of models is no object with "models"')
        return [str(name) for name in names]

    def load_by_version(self) -> dict[tuple[str, str], Load]:
        """Say how busy each version is, by model and version; empty where no page tells.

        That is ``/metrics``, which Triton has on a port of its own.
        """
        try:
            text = self.get("/metrics").body.decode("utf-8", "replace")
        except Refused:
            return {}
        numbers: dict[tuple[str, str], dict[str, int]] = {}
        for name, labels, value in decode_samples(text, _LOAD_FIELDS):
            version = labels.get("model", ""), labels.get("version", "")
            numbers.setdefault(version, {})[_LOAD_FIELDS[name]] = int(value)
        return {version: Load(**told) for version, told in numbers.items()}

    def metadata(self, model: str, version: str | None = None) -> ModelMetadata:
        """Describe a model's inputs and outputs."""
        found = self.get(self.model_path(model, version)).json()
        try:
            return ModelMetadata(
                name=str(found["name"]),
                versions=tuple(str(each) for each in found.get("versions") or ()),
                platform=str(found.get("platform") or ""),
                inputs=_tensors(found.get("inputs") or ()),
                outputs=_tensors(found.get("outputs") or ()),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise BadReply(f'the metadata of "{model}" is not as V2 says: {found!r:.200}') from exc

    def model_path(self, model: str, version: str | None = None) -> str:
        """Give the route of a model or one of its versions."""
        path = f"/v2/models/{urllib.parse.quote(model, safe='')}"
        return f"{path}/versions/{urllib.parse.quote(version, safe='')}" if version else path

    def get(self, path: str) -> Reply:
        """Call a route that takes nothing."""
        return self._call("GET", path, None, {})

    def post(
        self,
        path: str,
        body: Sequence[bytes | memoryview],
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Call a route with a body, given in pieces.

        Raises:
            Refused: If the server answers with an error.
            Unavailable: If it cannot be reached or goes away.
            TimedOut: If it does not answer in time.
        """
        return self._call("POST", path, b"".join(body), headers or {})

    def _call(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Reply:
        try:
            self._connection.request(method, self._base + path, body, {**self._headers, **headers})
            response = self._connection.getresponse()
            received = self._read(response)
        except TimeoutError as exc:
            self.close()
            raise TimedOut(f"{self.url} did not answer within {self._timeout_s:g} s") from exc
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            raise Unavailable(f"cannot call {self.url}: {_reason(exc)}") from exc
        if response.status >= 300:
            text = _error_text(response.status, received)
            if 300 <= response.status < 400 and (there := response.getheader("Location")):
                text = f"the server has moved this to {there[:200]!r}; call it there"
            raise Refused(response.status, text)
        return Reply({name.lower(): value for name, value in response.getheaders()}, received)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """Read a body as far as one may be long.

        Raises:
            BadReply: It is longer.
            http.client.HTTPException: It ends too early.
        """
        is_error = response.status >= 300
        most = MOST_ERROR_BYTES if is_error else MOST_BYTES
        pieces: list[bytes] = []
        size = 0
        while size <= most and (piece := response.read(READ_BYTES)):
            pieces.append(piece)
            size += len(piece)
        if size > most:
            self.close()
            if not is_error:
                raise BadReply(f"the answer of {self.url} is longer than {most} bytes")
        elif response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(pieces)


def _is_named(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("name"), str)


def _tensors(rows: Sequence[Mapping[str, Any]]) -> tuple[TensorMetadata, ...]:
    return tuple(
        TensorMetadata(
            str(row["name"]), str(row["datatype"]), tuple(int(size) for size in row["shape"])
        )
        for row in rows
    )


def _reason(exc: Exception) -> str:
    if isinstance(exc, ConnectionRefusedError):
        return "nothing listens there; is the server running?"
    if isinstance(exc, ssl.SSLError):
        return f"it {explain_tls(exc)}"
    if isinstance(exc, http.client.IncompleteRead):
        return "it closed the connection in the middle of its answer"
    if isinstance(exc, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(exc, http.client.BadStatusLine):
        return f"it speaks no HTTP; it says {str(exc)[:40]!r}"
    if isinstance(exc, socket.gaierror):
        return "no such host"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _error_text(status: int, body: bytes) -> str:
    """Take the text out of an error body: V2's ``{"error"}``, KServe's ``{"detail"}``, or all."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        for key in ("error", "detail", "message"):
            if found.get(key):
                return str(found[key])[:MOST_TEXT]
    text = body.decode("utf-8", "replace").strip()
    return text[:500] or http.client.responses.get(status, "no text")


_LOAD_FIELDS = {
    "modelport_instances": "instances",
    "modelport_busy_instances": "busy",
    "nv_inference_pending_request_count": "pending",
}
