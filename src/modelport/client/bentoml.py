"""``SyncHTTPClient`` and ``AsyncHTTPClient``: the methods of a service as methods of an object.

The surface is that of bentoml's clients, which work against Modelport as well; these work against
both kinds of server.

Source: bentoml 1.4, ``SyncHTTPClient`` and ``AsyncHTTPClient``.
"""

import asyncio
import contextlib
import enum
import inspect
import json
import keyword
import ssl
import time
import weakref
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast
from urllib.parse import urlencode

from modelport.client.dialects.bentoml import (
    Dialect,
    encode_form,
    encode_json,
    failure,
    unreachable,
)
from modelport.client.flows import (
    Ask,
    Flow,
    Pause,
    Response,
    Retries,
    TransportFailed,
    followed,
)
from modelport.client.transports import asynchronous, blocking
from modelport.client.transports.address import Proxies
from modelport.client.values import File, bind, file_of, items_of, result_of
from modelport.errors import InvalidRequest, TooLarge
from modelport.exceptions import BentoMLException, NotFound
from modelport.wire.bentoml import MISSING, EndpointSchema, Parameter

__all__ = ["AsyncHTTPClient", "AsyncTask", "Reply", "SyncHTTPClient", "Task", "TaskStatus"]

T = TypeVar("T")
POLL_S = 0.1
MOST_POLL_S = 2.0


class TaskStatus(enum.StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self not in (TaskStatus.PENDING, TaskStatus.IN_PROGRESS)


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


class _Client:
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
    ) -> None:
        policy = Retries(count=retries) if isinstance(retries, int) else retries
        self.url = url
        self.timeout = timeout
        self.server_ready_timeout = (
            timeout if server_ready_timeout is None else server_ready_timeout
        )
        self._dialect = Dialect(url, token, policy)
        self._retries = policy
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
        try:
            return result_of(endpoint.output, response.headers, response.body, self._files)
        except (ValueError, TypeError, InvalidRequest, TooLarge) as exc:
            raise BentoMLException(
                f"the answer of {endpoint.name} is not what the schema says: {exc}"
            ) from exc

    def _files(self) -> Path:
        if self._folder is None:
            import shutil  # both cost a fifth of this module's import
            import tempfile

            self._folder = Path(tempfile.mkdtemp(prefix="modelport-client-"))
            self._remove_folder = weakref.finalize(
                self, shutil.rmtree, self._folder, ignore_errors=True
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


_OWN = frozenset({"url", "timeout", "server_ready_timeout", "endpoints"})


class SyncHTTPClient(_Client):
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

    Raises:
        InvalidRequest: If ``url`` is no address of a server, or ``proxy`` none of a proxy.
        ServiceUnavailable: If the server is not ready in time.
    """

    client_cls: ClassVar[type[blocking.Client]] = blocking.Client

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
    ) -> None:
        super().__init__(
            url,
            token=token,
            timeout=timeout,
            server_ready_timeout=server_ready_timeout,
            retries=retries,
        )
        self._transport = self.client_cls(timeout, _context(ssl_context), _proxies(proxy))
        try:
            self.endpoints = self._run(self._connecting())
        except BaseException:
            self.close()
            raise
        for name, endpoint in self._names():
            setattr(self, name, _method(endpoint, self._call, self._verbs(endpoint)))

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
                    answer = self._send(step)
                except TransportFailed as exc:
                    error = exc
        except StopIteration as end:
            return cast(T, end.value)
        except TransportFailed as exc:
            raise unreachable(exc) from exc

    def _send(self, step: Ask) -> Response:
        return self._transport.send(step.request, wants_stream=step.wants_stream)

    def _call(
        self, endpoint: EndpointSchema, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        flow = self._dialect.call(endpoint, args, kwargs)
        if endpoint.is_stream:
            # What is wrong with the arguments is said here and not at the first item.
            bind(endpoint, args, kwargs)
            return self._items(endpoint, flow)
        return self._result(endpoint, self._run(flow))

    def _items(self, endpoint: EndpointSchema, flow: Flow[Response]) -> Iterator[Any]:
        response = self._run(flow)
        stream = cast(blocking.BlockingStream, response.stream)
        items = items_of(endpoint.output, response.headers)
        try:
            for data in stream:
                yield from items.feed(data)
            yield from items.end()
        except TransportFailed as exc:
            raise unreachable(exc) from exc
        except InvalidRequest as exc:
            raise BentoMLException(f"the stream of {endpoint.name} is broken: {exc.text}") from exc
        finally:
            stream.close()

    def _verbs(self, endpoint: EndpointSchema) -> "Mapping[str, Callable[..., Any]]":
        if not endpoint.is_task:
            return {}

        def submit(*args: Any, **kwargs: Any) -> Task:
            response = self._run(self._dialect.call(endpoint, args, kwargs, "/submit"))
            return Task(self, endpoint, _task_id(response))

        def of(name: str) -> Callable[..., Any]:
            def ask(task_id: str) -> Any:
                return getattr(Task(self, endpoint, task_id), name)()

            return ask

        return {"submit": submit, **{name: of(name) for name in _TASK_VERBS}}


class _Task(Generic[T]):
    def __init__(self, client: T, endpoint: EndpointSchema, id: str) -> None:
        self._client = client
        self._endpoint = endpoint
        self.id = id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self._endpoint.name}>"


class Task(_Task[SyncHTTPClient]):
    """A call that is made later.

    Attributes:
        id: By which the server knows it.
    """

    def get_status(self) -> TaskStatus:
        """Where it stands."""
        return _status(self._ask("GET", "status"))

    def get(self) -> Any:
        """Give its result.

        Raises:
            InvalidArgument: If it is not over yet.
            BentoMLException: What the call has failed with.
        """
        return self._client._result(self._endpoint, self._ask("GET", "get"))

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until it is over, then give its result.

        Raises:
            TimeoutError: If it is not over within so many seconds.
            BentoMLException: What the call has failed with.
        """
        until_s = None if timeout is None else time.monotonic() + timeout
        poll_s = POLL_S
        while not self.get_status().is_over:
            _check_patience(until_s, self.id)
            time.sleep(poll_s)
            poll_s = min(poll_s * 1.5, MOST_POLL_S)
        return self.get()

    def cancel(self) -> None:
        """Stop it."""
        self._ask("PUT", "cancel")

    def retry(self) -> "Task":
        """Ask the same again, as a new task."""
        return Task(self._client, self._endpoint, _task_id(self._ask("POST", "retry")))

    def _ask(self, method: str, verb: str) -> Response:
        client = self._client
        return client._run(client._dialect.task(method, self._endpoint, verb, self.id))


class AsyncHTTPClient(_Client):
    """Calls a service without waiting for it.

    Works inside ``async with``, and without it: the first call connects then. The arguments are
    those of :class:`SyncHTTPClient`; the methods of the service are there once it has connected,
    and ``call`` connects by itself.
    """

    client_cls: ClassVar[type[asynchronous.AsyncClient]] = asynchronous.AsyncClient

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
    ) -> None:
        super().__init__(
            url,
            token=token,
            timeout=timeout,
            server_ready_timeout=server_ready_timeout,
            retries=retries,
        )
        self._transport = self.client_cls(timeout, _context(ssl_context), _proxies(proxy))
        self._connected: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Any:
        # Only for what is not there: a method of the service, before anybody has asked for them.
        if name.startswith("_") or self.__dict__.get("endpoints"):
            offered = ", ".join(sorted(self.__dict__.get("endpoints", ())))
            raise AttributeError(f"the service has no endpoint '{name}'; it has {offered}")
        return _Unconnected(self, name.removeprefix("api_"))

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the endpoint ``__call__``."""
        return await self.call("__call__", *args, **kwargs)

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an endpoint by its name; of a stream, this gives the async generator.

        Raises:
            NotFound: If there is none.
            TypeError: If the arguments are not what it takes, before anything is sent.
            BentoMLException: If there was no answer, or one that is no success.
        """
        await self._connect()
        called = self._call(self._find(name), args, kwargs)
        return called if inspect.isasyncgen(called) else await called

    async def request(
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
        timeout: float | None = None,  # noqa: ASYNC109 - bentoml's own name
    ) -> Reply:
        """Send any request; see :meth:`SyncHTTPClient.request`."""
        flow = self._asking(method, url, json, data, files, content, params, headers, timeout)
        return Reply(await self._run(flow))

    async def is_ready(self, timeout: int | None = None) -> bool:  # noqa: ASYNC109
        """Whether the server says within ``timeout`` seconds that it can answer."""
        return await self._run(self._dialect.is_ready(timeout))

    async def close(self) -> None:
        """Close the connections, and remove the files of results. Idempotent."""
        await self._transport.close()
        self._forget_files()

    async def _connect(self) -> None:
        if self.endpoints:
            return
        if self._connected is None or self._connected.done():
            self._connected = asyncio.ensure_future(self._discover())
        await asyncio.shield(self._connected)

    async def _discover(self) -> None:
        self.endpoints = await self._run(self._connecting())
        for name, endpoint in self._names():
            setattr(self, name, _method(endpoint, self._call, self._verbs(endpoint)))

    async def _run(self, flow: Flow[T]) -> T:
        answer: Response | None = None
        error: TransportFailed | None = None
        try:
            while True:
                step = flow.send(answer) if error is None else flow.throw(error)
                answer = error = None
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    continue
                try:
                    answer = await self._transport.send(
                        step.request, wants_stream=step.wants_stream
                    )
                except TransportFailed as exc:
                    error = exc
        except StopIteration as end:
            return cast(T, end.value)
        except TransportFailed as exc:
            raise unreachable(exc) from exc

    def _call(
        self, endpoint: EndpointSchema, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        flow = self._dialect.call(endpoint, args, kwargs)
        if endpoint.is_stream:
            # What is wrong with the arguments is said here and not at the first item.
            bind(endpoint, args, kwargs)
            return self._items(endpoint, flow)
        return self._await_result(endpoint, flow)

    async def _await_result(self, endpoint: EndpointSchema, flow: Flow[Response]) -> Any:
        return self._result(endpoint, await self._run(flow))

    async def _items(self, endpoint: EndpointSchema, flow: Flow[Response]) -> AsyncGenerator[Any]:
        response = await self._run(flow)
        stream = cast(asynchronous.AsyncStream, response.stream)
        items = items_of(endpoint.output, response.headers)
        try:
            async with contextlib.aclosing(stream.pieces()) as pieces:
                async for data in pieces:
                    for item in items.feed(data):
                        yield item
            for item in items.end():
                yield item
        except TransportFailed as exc:
            raise unreachable(exc) from exc
        except InvalidRequest as exc:
            raise BentoMLException(f"the stream of {endpoint.name} is broken: {exc.text}") from exc
        finally:
            stream.close()

    def _verbs(self, endpoint: EndpointSchema) -> "Mapping[str, Callable[..., Any]]":
        if not endpoint.is_task:
            return {}

        async def submit(*args: Any, **kwargs: Any) -> AsyncTask:
            response = await self._run(self._dialect.call(endpoint, args, kwargs, "/submit"))
            return AsyncTask(self, endpoint, _task_id(response))

        def of(name: str) -> Callable[..., Any]:
            async def ask(task_id: str) -> Any:
                return await getattr(AsyncTask(self, endpoint, task_id), name)()

            return ask

        return {"submit": submit, **{name: of(name) for name in _TASK_VERBS}}


class AsyncTask(_Task[AsyncHTTPClient]):
    """A call that is made later; see :class:`Task`."""

    async def get_status(self) -> TaskStatus:
        """Where it stands."""
        return _status(await self._ask("GET", "status"))

    async def get(self) -> Any:
        """Give its result; see :meth:`Task.get`."""
        return self._client._result(self._endpoint, await self._ask("GET", "get"))

    async def wait(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """Wait until it is over, then give its result; see :meth:`Task.wait`."""
        until_s = None if timeout is None else time.monotonic() + timeout
        poll_s = POLL_S
        while not (await self.get_status()).is_over:
            _check_patience(until_s, self.id)
            await asyncio.sleep(poll_s)
            poll_s = min(poll_s * 1.5, MOST_POLL_S)
        return await self.get()

    async def cancel(self) -> None:
        """Stop it."""
        await self._ask("PUT", "cancel")

    async def retry(self) -> "AsyncTask":
        """Ask the same again, as a new task."""
        return AsyncTask(self._client, self._endpoint, _task_id(await self._ask("POST", "retry")))

    async def _ask(self, method: str, verb: str) -> Response:
        client = self._client
        return await client._run(client._dialect.task(method, self._endpoint, verb, self.id))


_TASK_VERBS = ("get", "get_status", "cancel", "retry")


class _Unconnected:
    """A method of a service that has not been asked yet which methods it has."""

    def __init__(self, client: AsyncHTTPClient, name: str) -> None:
        self._client = client
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> "_Later":
        return _Later(self._client.call(self._name, *args, **kwargs))

    async def submit(self, *args: Any, **kwargs: Any) -> AsyncTask:
        return cast(AsyncTask, await (await self._verb("submit"))(*args, **kwargs))

    async def _verb(self, verb: str) -> Callable[..., Any]:
        await self._client._connect()
        endpoint = self._client._find(self._name)
        found = self._client._verbs(endpoint).get(verb)
        if found is None:
            raise AttributeError(f"'{self._name}' is not a task")
        return found


class _Later:
    """A call that connects first: to be awaited, or iterated over if it is a stream."""

    def __init__(self, called: Coroutine[Any, Any, Any]) -> None:
        self._called = called

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._called.__await__()

    async def __aiter__(self) -> AsyncGenerator[Any]:
        items = await self._called
        if not inspect.isasyncgen(items):
            raise TypeError("this endpoint gives one result; await it")
        async with contextlib.aclosing(items):
            async for item in items:
                yield item


def _method(
    endpoint: EndpointSchema,
    call: Callable[[EndpointSchema, Sequence[Any], Mapping[str, Any]], Any],
    verbs: Mapping[str, Callable[..., Any]],
) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        return call(endpoint, args, kwargs)

    method.__name__ = method.__qualname__ = endpoint.name
    method.__doc__ = endpoint.doc or f"Call {endpoint.route}."
    method.__signature__ = _signature(endpoint)  # type: ignore[attr-defined]
    for name, verb in verbs.items():
        setattr(method, name, verb)
    return method


def _signature(endpoint: EndpointSchema) -> inspect.Signature:
    kinds = inspect.Parameter
    kind = kinds.POSITIONAL_ONLY if endpoint.is_root else kinds.POSITIONAL_OR_KEYWORD
    parameters = []
    for parameter in endpoint.parameters.values():
        name = parameter.name
        if not name.isidentifier() or keyword.iskeyword(name):
            continue
        default = inspect.Parameter.empty if parameter.default is MISSING else parameter.default
        annotation = _annotation(parameter.schema)
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    # Those without a default first, as the language wants it.
    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    if endpoint.takes_more:
        parameters.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters, return_annotation=_annotation(endpoint.output))


def _annotation(schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if kind == "string" and schema.get("format") == "binary":
        return bytes
    if kind == "file":
        return "PIL.Image.Image" if schema.get("pil") else Path
    known: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": float,
        "boolean": bool,
        "array": list,
        "object": dict,
        "null": None,
        "tensor": "numpy.ndarray",
        "dataframe": "pandas.DataFrame",
    }
    return known.get(kind, Any) if isinstance(kind, str) else Any


def _context(given: ssl.SSLContext | None) -> Callable[[], ssl.SSLContext]:
    return ssl.create_default_context if given is None else lambda: given


def _proxies(proxy: str | Literal[False] | None) -> Proxies | None:
    if proxy is None:
        return None
    return Proxies({}, proxy or None)


def _task_id(response: Response) -> str:
    return str(_object(response)["task_id"])


def _status(response: Response) -> TaskStatus:
    status = str(_object(response)["status"])
    try:
        return TaskStatus(status)
    except ValueError:
        raise BentoMLException(f"the server gave a task the unknown status '{status}'") from None


def _object(response: Response) -> dict[str, Any]:
    try:
        found = json.loads(response.body)
        if not isinstance(found, dict) or "task_id" not in found:
            raise ValueError
    except ValueError:
        raise BentoMLException("the server's answer is not about a task") from None
    return found


def _check_patience(until_s: float | None, task_id: str) -> None:
    if until_s is not None and time.monotonic() >= until_s:
        raise TimeoutError(f"task {task_id} is not over yet")


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
