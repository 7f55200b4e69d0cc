"""What both clients have in common: all of a call that is not waiting."""

import contextlib
import json
import keyword
import os
import ssl
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlencode

from modelport.client.dialects.bentoml import (
    Dialect,
    encode_form,
    encode_json,
    failure,
    unreachable,
)
from modelport.client.flows import Flow, Response, Retries, TransportFailed, followed
from modelport.client.results import FileResult, Items, has_files, items_of, result_of
from modelport.client.transports.address import Proxies, without_credentials
from modelport.client.transports.common import MOST_BYTES
from modelport.client.values import File, file_of
from modelport.errors import InvalidRequest, TooLarge
from modelport.exceptions import BentoMLException, NotFound
from modelport.wire.bentoml import EndpointSchema, Parameter

__all__ = [
    "Client",
    "Reply",
    "context_of",
    "proxies_of",
]


class Reply:
    """What ``request`` gives: an answer, whatever its status.

    Attributes:
        status_code: Of HTTP.
        headers: Names in lower case.
        content: The body.
    """

    def __init__(self, response: Response) -> None:
        self.status_code = response.status
        self.headers = response.headers
        self.content = response.body

    def __repr__(self) -> str:
        return f"<Reply {self.status_code}>"

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: If it is none.
        """
        return json.loads(self.content)

    def raise_for_status(self) -> Self:
        """Raise what a method would have raised for this answer.

        Raises:
            BentoMLException: If it is no success.
        """
        if self.status_code >= 400:
            raise failure(Response(self.status_code, self.headers, self.content))
        return self


class Client:
    """What both clients have in common."""

    endpoints: dict[str, EndpointSchema]

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float | None = 30,
        server_ready_timeout: float | None = None,
        retries: Retries | int = 0,
        max_response_bytes: int | None = MOST_BYTES,
    ) -> None:
        policy = Retries(count=retries) if isinstance(retries, int) else retries
        self.timeout = timeout
        self.server_ready_timeout = (
            timeout if server_ready_timeout is None else server_ready_timeout
        )
        self._dialect = Dialect(url, token, policy)
        self.url = without_credentials(url)[0]
        self._retries = policy
        self._max_response_bytes = max_response_bytes
        self._folder: Path | None = None
        self._remove_folder: Callable[[], object] | None = None
        self.endpoints = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def _connecting(self) -> Flow[dict[str, EndpointSchema]]:
        if self.server_ready_timeout is None or self.server_ready_timeout > 0:
            wait_s = 1e9 if self.server_ready_timeout is None else self.server_ready_timeout
            yield from self._dialect.await_ready(wait_s)
        return (yield from self._dialect.endpoints())

    def _find(self, name: str) -> EndpointSchema:
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            offered = ", ".join(sorted(self.endpoints)) or "nothing"
            raise NotFound(f"the service has no endpoint '{name}'; it has {offered}")
        return endpoint

    def _names(self) -> Iterator[tuple[str, EndpointSchema]]:
        for name, endpoint in self.endpoints.items():
            if name == "__call__":
                continue  # the class has it
            is_taken = name.startswith("_") or name in _OWN or keyword.iskeyword(name)
            yield (f"api_{name}" if is_taken or hasattr(type(self), name) else name), endpoint

    def _result(self, endpoint: EndpointSchema, response: Response) -> Any:
        """The result that an answer is, which has come as a whole."""
        try:
            if not has_files(endpoint.output, response.headers):
                return result_of(endpoint.output, response.headers, response.body)
        except UNUSABLE as exc:
            raise unusable(endpoint, exc) from exc
        with self._receiving(endpoint, response) as result:
            result.feed(response.body)
            return result.end()

    @contextlib.contextmanager
    def _receiving(self, endpoint: EndpointSchema, response: Response) -> Iterator[FileResult]:
        """Where the pieces of a result with files go; if it does not come whole, nothing stays.

        Raises:
            BentoMLException: If it breaks off, or is not what the schema says.
        """
        result: FileResult | None = None
        try:
            result = FileResult(
                endpoint.output, response.headers, self._files, self._max_response_bytes
            )
            yield result
        except BaseException as exc:
            if result is not None:
                result.drop()
            if isinstance(exc, TransportFailed):
                raise unreachable(exc) from exc
            if isinstance(exc, UNUSABLE):
                raise unusable(endpoint, exc) from exc
            raise

    @contextlib.contextmanager
    def _iterating(self, endpoint: EndpointSchema, response: Response) -> Iterator[Items]:
        """What makes items of the pieces of a stream.

        Raises:
            BentoMLException: If it breaks off, or is not what the schema says.
        """
        try:
            yield items_of(endpoint.output, response.headers, self._max_response_bytes)
        except TransportFailed as exc:
            raise unreachable(exc) from exc
        except InvalidRequest as exc:
            raise BentoMLException(f"the stream of {endpoint.name} is broken: {exc.text}") from exc

    def _files(self) -> Path:
        if self._folder is None:
            import shutil  # both cost a fifth of this module's import
            import tempfile

            self._folder = Path(tempfile.mkdtemp(prefix="modelport-client-"))
            self._remove_folder = weakref.finalize(
                self, _remove, self._folder, os.getpid(), shutil.rmtree
            )
        return self._folder

    def _forget_files(self) -> None:
        if self._remove_folder is not None:
            self._remove_folder()
            self._folder = self._remove_folder = None

    def _asking(
        self,
        method: str,
        url: str,
        json: Any,
        data: Any,
        files: Any,
        content: bytes | str | None,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        timeout: float | None,
    ) -> Flow[Response]:
        if params:
            url += ("&" if "?" in url else "?") + urlencode(params, doseq=True)
        own = list((headers or {}).items())
        kind, body = _form(json, data, files, content)
        if kind and not any(name.lower() == "content-type" for name, _ in own):
            own.append(("Content-Type", kind))
        request = self._dialect.request(
            method.upper(), url, headers=own, body=body, timeout_s=timeout
        )
        return (yield from followed(request, self._retries))


def _remove(folder: Path, process: int, rmtree: Callable[..., object]) -> None:
    # The end of a process that was forked is not the end of the files' owner.
    if os.getpid() == process:
        rmtree(folder, ignore_errors=True)


_OWN = frozenset({"url", "timeout", "server_ready_timeout", "endpoints"})


UNUSABLE = (ValueError, TypeError, InvalidRequest, TooLarge, OSError)
"""What is raised for an answer from which no result can be made."""


def unusable(endpoint: EndpointSchema, exc: Exception) -> BentoMLException:
    """The exception for such an answer."""
    if isinstance(exc, OSError):
        return BentoMLException(f"the answer of {endpoint.name} cannot be kept: {exc.strerror}")
    return BentoMLException(f"the answer of {endpoint.name} is not what the schema says: {exc}")


def context_of(given: ssl.SSLContext | None) -> Callable[[], ssl.SSLContext]:
    """How to make the TLS context, once it is needed."""
    return ssl.create_default_context if given is None else lambda: given


def proxies_of(proxy: str | Literal[False] | None) -> Proxies | None:
    """By which way; ``None`` for what the environment says."""
    if proxy is None:
        return None
    return Proxies({}, proxy or None)


def _form(json: Any, data: Any, files: Any, content: bytes | str | None) -> tuple[str, bytes]:
    """The content type and body of what ``request`` was given."""
    if content is not None:
        return "", content.encode() if isinstance(content, str) else bytes(content)
    if json is not None:
        return "application/json", encode_json(json)
    if files:
        return _files_form(data or {}, files)
    if isinstance(data, Mapping):
        return "application/x-www-form-urlencoded", urlencode(data, doseq=True).encode()
    if data is not None:
        return "", data.encode() if isinstance(data, str) else bytes(data)
    return "", b""


def _files_form(data: Mapping[str, Any], files: Any) -> tuple[str, bytes]:
    fields: list[tuple[str, bytes | File]] = [
        (name, value if isinstance(value, bytes) else str(value).encode())
        for name, value in data.items()
    ]
    for name, value in files.items() if isinstance(files, Mapping) else files:
        fields.append((name, file_of(value, Parameter(name, {"type": "file"}))))
    headers, body, _ = encode_form(fields)
    return headers[0][1], b"".join(body) if not isinstance(body, bytes) else body
