"""The client that waits for each answer."""

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

from modelport.client.bentoml.calls import Client, Reply, context_of, proxies_of
from modelport.client.bentoml.methods import method
from modelport.client.bentoml.tasks import (
    TASK_VERBS,
    TaskInfo,
    TaskOf,
    TaskStatus,
    listing,
    submitting,
)
from modelport.client.dialects.bentoml import unreachable
from modelport.client.flows import Flow, Pause, Response, Retries, TransportFailed
from modelport.client.transports.blocking import BlockingStream
from modelport.client.transports.blocking import Client as Transport
from modelport.client.transports.common import MOST_BYTES
from modelport.client.values import bind
from modelport.errors import TooLarge
from modelport.exceptions import BentoMLException
from modelport.wire.bentoml import EndpointSchema

__all__ = ["SyncHTTPClient", "Task"]

T = TypeVar("T")


class SyncHTTPClient(Client):
    """Calls a service, and waits for each answer. Safe to share between threads.

    The methods of the service are methods of this object, with their signatures; ``client(...)``
    calls the one that is called ``__call__``. A method that is named like one of this class has
    ``api_`` before its name here, and keeps it for ``call``.

    Args:
        url: Of the server: ``http://host:port``, with a prefix if there is one.
        token: Sent as ``Authorization: Bearer`` to this server alone.
        timeout: Bound on connecting and on each wait for bytes, in seconds.
        server_ready_timeout: How long to wait for the server to be ready, in seconds; ``None`` for
            ``timeout``, 0 for not at all.
        retries: How often to send again what is safe to repeat, or when and how often exactly.
        ssl_context: For ``https://``: which authorities are trusted, which certificate is shown.
            ``None`` trusts those of the system.
        proxy: ``http://[name:password@]host:port`` for every request; ``False`` for none;
            ``None`` for what ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` say.
        max_response_bytes: Of an answer that is held in memory; a longer one is an error. Streams
            and files are not held. ``None`` for no bound.

    Raises:
        InvalidRequest: If ``url`` is no address of a server, or ``proxy`` none of a proxy.
        ServiceUnavailable: If the server is not ready in time.
    """

    client_cls: ClassVar[type[Transport]] = Transport

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float | None = 30,
        server_ready_timeout: float | None = None,
        retries: Retries | int = 0,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | Literal[False] | None = None,
        max_response_bytes: int | None = MOST_BYTES,
    ) -> None:
        super().__init__(
            url,
            token=token,
            timeout=timeout,
            server_ready_timeout=server_ready_timeout,
            retries=retries,
            max_response_bytes=max_response_bytes,
        )
        self._transport = self.client_cls(
            timeout, context_of(ssl_context), proxies_of(proxy), max_response_bytes
        )
        try:
            self.endpoints = self._run(self._connecting())
        except BaseException:
            self.close()
            raise
        for name, endpoint in self._names():
            setattr(self, name, method(endpoint, self._call, self._verbs(endpoint)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the endpoint ``__call__``."""
        return self.call("__call__", *args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an endpoint by its name.

        Raises:
            NotFound: If there is none, before anything is sent.
            TypeError: If the arguments are not what it takes, before anything is sent.
            BentoMLException: If there was no answer, or one that is no success.
        """
        return self._call(self._find(name), args, kwargs)

    def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        data: Any = None,
        files: Any = None,
        content: bytes | str | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Send any request, with a path on this server or a whole URL.

        Args:
            method: Of HTTP.
            url: Path or URL.
            json: Body as JSON.
            data: Fields of a form.
            files: Files of a form, by field: a path, bytes, an open file, or a tuple of name,
                content and perhaps content type.
            content: Body as it is.
            params: Of the query.
            headers: Beside those of the client, or in place of them.
            timeout: In place of the client's.

        Raises:
            BentoMLException: If there was no answer; one with any status is given back.
        """
        flow = self._asking(method, url, json, data, files, content, params, headers, timeout)
        return Reply(self._run(flow))

    def is_ready(self, timeout: int | None = None) -> bool:
        """Whether the server says within ``timeout`` seconds that it can answer."""
        return self._run(self._dialect.is_ready(timeout))

    def close(self) -> None:
        """Close the connections, and remove the files of results. Idempotent."""
        self._transport.close()
        self._forget_files()

    def _run(self, flow: Flow[T]) -> T:
        answer: Response | None = None
        error: TransportFailed | None = None
        try:
            while True:
                step = flow.send(answer) if error is None else flow.throw(error)
                answer = error = None
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    continue
                try:
                    answer = self._transport.send(step.request, wants_stream=step.wants_stream)
                except TransportFailed as exc:
                    error = exc
        except StopIteration as end:
            return cast(T, end.value)
        except TransportFailed as exc:
            raise unreachable(exc) from exc
        except TooLarge as exc:
            raise BentoMLException(exc.text) from exc

    def _call(
        self, endpoint: EndpointSchema, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        flow = self._dialect.call(endpoint, args, kwargs)
        if endpoint.is_stream:
            # What is wrong with the arguments is said here and not at the first item.
            bind(endpoint, args, kwargs)
            return self._items(endpoint, flow)
        return self._given(endpoint, flow)

    def _given(self, endpoint: EndpointSchema, flow: Flow[Response]) -> Any:
        """The result of an endpoint; files go to disk as they come."""
        response = self._run(flow)
        stream = cast("BlockingStream | None", response.stream)
        if stream is None:
            return self._result(endpoint, response)
        with contextlib.closing(stream), self._receiving(endpoint, response) as result:
            for data in stream:
                result.feed(data)
            return result.end()

    def _items(self, endpoint: EndpointSchema, flow: Flow[Response]) -> Iterator[Any]:
        response = self._run(flow)
        stream = cast(BlockingStream, response.stream)
        with contextlib.closing(stream), self._iterating(endpoint, response) as items:
            for data in stream:
                yield from items.feed(data)
            yield from items.end()

    def _verbs(self, endpoint: EndpointSchema) -> "Mapping[str, Callable[..., Any]]":
        if not endpoint.is_task:
            return {}

        def submit(*args: Any, **kwargs: Any) -> Task:
            flow = submitting(self._dialect, endpoint, args, kwargs)
            return Task(self, endpoint, self._run(flow))

        def list_tasks(
            status: TaskStatus | str | None = None, *, limit: int = 100, before: str | None = None
        ) -> list[TaskInfo]:
            return self._run(listing(self._dialect, endpoint, status, limit, before))

        def of(name: str) -> Callable[..., Any]:
            def ask(task_id: str) -> Any:
                return getattr(Task(self, endpoint, task_id), name)()

            return ask

        return {"submit": submit, "list": list_tasks, **{name: of(name) for name in TASK_VERBS}}


class Task(TaskOf[SyncHTTPClient]):
    """A call that is made later.

    Attributes:
        id: By which the server knows it.
    """

    def get_status(self) -> TaskStatus:
        """Where it stands."""
        return self.info().status

    def info(self) -> TaskInfo:
        """All that the server says of it."""
        return self._client._run(self._describing())

    def get(self) -> Any:
        """Give its result.

        Raises:
            InvalidArgument: If it is not over yet.
            BentoMLException: What the call has failed with.
        """
        return self._client._given(self._endpoint, self._asking("GET", "get"))

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until it is over, then give its result.

        Raises:
            TimeoutError: If it is not over within so many seconds.
            BentoMLException: What the call has failed with.
        """
        return self._client._given(self._endpoint, self._awaiting(timeout))

    def cancel(self) -> None:
        """Stop it."""
        self._client._run(self._asking("PUT", "cancel"))

    def retry(self) -> "Task":
        """Ask the same again, as a new task."""
        again = self._client._run(self._repeating())
        return Task(self._client, self._endpoint, again)
