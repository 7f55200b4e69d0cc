"""The client that does not wait."""

import asyncio
import contextlib
import inspect
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
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
from modelport.client.transports.asynchronous import AsyncClient, AsyncStream
from modelport.client.transports.common import MOST_BYTES
from modelport.client.values import bind
from modelport.errors import TooLarge
from modelport.exceptions import BentoMLException
from modelport.wire.bentoml import EndpointSchema

__all__ = ["AsyncHTTPClient", "AsyncTask"]

T = TypeVar("T")


class AsyncHTTPClient(Client):
    """Calls a service without waiting for it.

    Works inside ``async with``, and without it: the first call connects then. The arguments are
    those of :class:`SyncHTTPClient`; the methods of the service are there once it has connected,
    and ``call`` connects by itself.
    """

    client_cls: ClassVar[type[AsyncClient]] = AsyncClient

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
            setattr(self, name, method(endpoint, self._call, self._verbs(endpoint)))

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

    async def _given(self, endpoint: EndpointSchema, flow: Flow[Response]) -> Any:
        """The result of an endpoint; files go to disk as they come, on another thread."""
        response = await self._run(flow)
        stream = cast("AsyncStream | None", response.stream)
        if stream is None:
            return self._result(endpoint, response)
        with contextlib.closing(stream), self._receiving(endpoint, response) as result:
            async with contextlib.aclosing(stream.pieces()) as pieces:
                async for data in pieces:
                    await asyncio.to_thread(result.feed, data)
            return result.end()

    async def _items(self, endpoint: EndpointSchema, flow: Flow[Response]) -> AsyncGenerator[Any]:
        response = await self._run(flow)
        stream = cast(AsyncStream, response.stream)
        with contextlib.closing(stream), self._iterating(endpoint, response) as items:
            async with contextlib.aclosing(stream.pieces()) as pieces:
                async for data in pieces:
                    for item in items.feed(data):
                        yield item
            for item in items.end():
                yield item

    def _verbs(self, endpoint: EndpointSchema) -> "Mapping[str, Callable[..., Any]]":
        if not endpoint.is_task:
            return {}

        async def submit(*args: Any, **kwargs: Any) -> AsyncTask:
            flow = submitting(self._dialect, endpoint, args, kwargs)
            return AsyncTask(self, endpoint, await self._run(flow))

        async def list_tasks(
            status: TaskStatus | str | None = None, *, limit: int = 100, before: str | None = None
        ) -> list[TaskInfo]:
            return await self._run(listing(self._dialect, endpoint, status, limit, before))

        def of(name: str) -> Callable[..., Any]:
            async def ask(task_id: str) -> Any:
                return await getattr(AsyncTask(self, endpoint, task_id), name)()

            return ask

        return {"submit": submit, "list": list_tasks, **{name: of(name) for name in TASK_VERBS}}


class AsyncTask(TaskOf[AsyncHTTPClient]):
    """A call that is made later; see :class:`Task`."""

    async def get_status(self) -> TaskStatus:
        """Where it stands."""
        return (await self.info()).status

    async def info(self) -> TaskInfo:
        """All that the server says of it."""
        return await self._client._run(self._describing())

    async def get(self) -> Any:
        """Give its result; see :meth:`Task.get`."""
        return await self._client._given(self._endpoint, self._asking("GET", "get"))

    async def wait(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """Wait until it is over, then give its result; see :meth:`Task.wait`."""
        return await self._client._given(self._endpoint, self._awaiting(timeout))

    async def cancel(self) -> None:
        """Stop it."""
        await self._client._run(self._asking("PUT", "cancel"))

    async def retry(self) -> "AsyncTask":
        """Ask the same again, as a new task."""
        again = await self._client._run(self._repeating())
        return AsyncTask(self._client, self._endpoint, again)


class _Unconnected:
    """A method of a service that has not been asked yet which methods it has."""

    def __init__(self, client: AsyncHTTPClient, name: str) -> None:
        self._client = client
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> "_Later":
        return _Later(self._client.call(self._name, *args, **kwargs))

    async def submit(self, *args: Any, **kwargs: Any) -> AsyncTask:
        return cast(AsyncTask, await (await self._verb("submit"))(*args, **kwargs))

    async def list(self, *args: Any, **kwargs: Any) -> "list[TaskInfo]":
        return cast("list[TaskInfo]", await (await self._verb("list"))(*args, **kwargs))

    async def _verb(self, verb: str) -> Callable[..., Any]:
        await self._client._connect()
        endpoint = self._client._find(self._name)
        found = self._client._verbs(endpoint).get(verb)
        if found is None:
            raise AttributeError(f"'{self._name}' is not a task")
        return found


class _Later(Coroutine[Any, Any, Any]):
    """A call that connects first: to be awaited, or iterated over if it is a stream.

    A coroutine, as ``asyncio.run`` and ``create_task`` want one.
    """

    def __init__(self, called: Coroutine[Any, Any, Any]) -> None:
        self._called = called

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._called.__await__()

    def send(self, value: Any) -> Any:
        """Go on with the call."""
        return self._called.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        return self._called.throw(*error)

    def close(self) -> None:
        """End it."""
        self._called.close()

    async def __aiter__(self) -> AsyncGenerator[Any]:
        items = await self._called
        if not inspect.isasyncgen(items):
            raise TypeError("this endpoint gives one result; await it")
        async with contextlib.aclosing(items):
            async for item in items:
                yield item
