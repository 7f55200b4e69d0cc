"""Services that use other services: in this process, or of another server."""

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar, cast, overload

from modelport.exceptions import RemoteException
from modelport.services.declaration import Service
from modelport.services.loop import ServiceLoop

__all__ = ["Dependency", "LocalProxy", "RemoteProxy", "depends"]

READY_TIMEOUT_S = 5
"""How long another server may take to say that it is ready, as in BentoML."""

T = TypeVar("T")


class Dependency(Generic[T]):
    """An attribute of a service that is another one.

    Attributes:
        on: The other service, where it is one of this process.
        url: Of another server's, in place of ``on``.
    """

    is_dependency = True

    def __init__(self, on: Service[T] | None, url: str | None) -> None:
        self.on = on
        self.url = url
        self._name = ""
        self._made: Any = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "Dependency[T]": ...

    @overload
    def __get__(self, instance: object, owner: type) -> Any: ...

    def __get__(self, instance: object | None, owner: type) -> Any:
        """Give what answers: as bound by the server, else made on first use, as in a unit test."""
        if instance is None:
            return self
        bound = vars(instance).get(self._name)
        if bound is not None:
            return bound
        if self._made is None:
            self._made = self.make()
        return self._made

    def make(self) -> Any:
        """Make an object of the other service, or a stand-in for the other server."""
        if self.on is not None:
            return LocalProxy(self.on, self.on(), ServiceLoop(f"modelport-{self.on.name}-loop"))
        return RemoteProxy(self.url or "")


@overload
def depends(on: Service[T] | type[T]) -> Dependency[T]: ...


@overload
def depends(*, url: str) -> Dependency[Any]: ...


def depends(
    on: Service[T] | type[T] | None = None, *, url: str | None = None, **cloud: Any
) -> Dependency[T]:
    """Use another service as an attribute of this one.

    ``self.inner.shout(text)`` calls and waits, ``await self.inner.to_async.shout(text=...)`` lets
    others run meanwhile. What it raises reaches callers of this service as a masked failure.

    Args:
        on: A service, which then runs in the same process.
        url: Of a server, in place of ``on``.
        cloud: Deployments and clusters of BentoML's cloud, which there is none of here.

    Raises:
        TypeError: If neither or both are given, or ``on`` is no service.
    """
    if cloud:
        raise TypeError(f"depends() knows no {', '.join(cloud)}; give a service or url=")
    if (on is None) == (url is None):
        raise TypeError("depends() takes a service, or url=")
    if on is not None and not isinstance(on, Service):
        raise TypeError(f"depends() takes a service, and {on!r} is none")
    return Dependency(on, url)


class LocalProxy:
    """Another service of this process, as the one that depends on it sees it.

    Its coroutines run on its own event loop, where its hooks ran, whoever waits for them.
    """

    def __init__(self, service: Service[Any], instance: Any, loop: ServiceLoop) -> None:
        self._service = service
        self._instance = instance
        self._loop = loop

    def __repr__(self) -> str:
        return f"<LocalProxy {self._service.name}>"

    @property
    def to_sync(self) -> "LocalProxy":
        """Methods that wait."""
        return self

    @property
    def to_async(self) -> "_AsyncProxy":
        """Methods to be awaited."""
        return _AsyncProxy(self._service, self._instance, self._loop)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._instance, name)
        if name not in self._service.apis:
            return method
        failing = partial(_remote, self._service, name)

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                result: Any = method(*args, **kwargs)
                if inspect.isasyncgen(result):
                    return _iterated(cast(Any, result), self._loop, failing)
                return self._loop.run(result) if inspect.iscoroutine(result) else result
            except Exception as exc:
                raise failing(exc) from exc

        return call


class _AsyncProxy:
    """The same, to be awaited: coroutines run on the loop of their service, functions on a thread.

    Generators of either kind are iterated with ``async for``.
    """

    def __init__(self, service: Service[Any], instance: Any, loop: ServiceLoop) -> None:
        self._service = service
        self._instance = instance
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._instance, name)
        if name not in self._service.apis:
            return method
        failing = partial(_remote, self._service, name)
        if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):

            @functools.wraps(method)
            def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                return _awaited(method(*args, **kwargs), self._loop, failing)

            return stream

        @functools.wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                if inspect.iscoroutinefunction(method):
                    return await self._loop.wait(method(*args, **kwargs))
                return await asyncio.to_thread(method, *args, **kwargs)
            except Exception as exc:
                raise failing(exc) from exc

        return call


class RemoteProxy:
    """A service of another server. It is asked what it has when it is first called."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Any = None
        self._async_client: Any = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<RemoteProxy {self.url}>"

    @property
    def to_sync(self) -> "RemoteProxy":
        """Methods that wait."""
        return self

    @property
    def to_async(self) -> Any:
        """Methods to be awaited, all of them on one event loop."""
        if self._async_client is None:
            self._async_client = _client_class("AsyncHTTPClient")(self.url)
        return self._async_client

    async def is_ready(self, timeout: int = READY_TIMEOUT_S) -> bool:  # noqa: ASYNC109
        """Whether the other server says that it is ready within this many seconds."""
        client = _client_class("AsyncHTTPClient")(self.url)
        try:
            is_ready: bool = await client.is_ready(timeout)
            return is_ready
        finally:
            await client.close()

    def close(self) -> None:
        """Give up its connections."""
        if self._client is not None:
            self._client.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        with self._lock:
            if self._client is None:
                make = _client_class("SyncHTTPClient")
                self._client = make(self.url, server_ready_timeout=READY_TIMEOUT_S)
        return getattr(self._client, name)


def _client_class(name: str) -> Any:
    # Clients are the other tower; services know them as users do.
    import modelport

    return modelport.__getattr__(name)


def _iterated(
    items: AsyncGenerator[Any], loop: ServiceLoop, failing: Callable[[Exception], Exception]
) -> Iterator[Any]:
    """Iterate from a thread over what runs on a loop."""
    try:
        while True:
            try:
                item = loop.run(_next_of(items))
            except Exception as exc:
                raise failing(exc) from exc
            if item is _END:
                return
            yield item
    finally:
        loop.run(items.aclose())


async def _awaited(
    items: Any, loop: ServiceLoop, failing: Callable[[Exception], Exception]
) -> AsyncIterator[Any]:
    """Iterate from one loop over what runs on another, or on threads."""
    is_async = inspect.isasyncgen(items)
    try:
        while True:
            try:
                if is_async:
                    item = await loop.wait(_next_of(items))
                else:
                    item = await asyncio.to_thread(next, items, _END)
            except Exception as exc:
                raise failing(exc) from exc
            if item is _END:
                return
            yield item
    finally:
        if is_async:
            await loop.wait(items.aclose())
        else:
            items.close()


async def _next_of(items: AsyncGenerator[Any]) -> Any:
    # StopAsyncIteration cannot be handed from one loop to another.
    return await anext(items, _END)


def _remote(service: Service[Any], name: str, exc: Exception) -> Exception:
    if isinstance(exc, RuntimeError) and "own event loop" in str(exc):
        return exc
    return RemoteException(f"{service.name}.{name} failed: {type(exc).__name__}: {exc}")


_END = object()
