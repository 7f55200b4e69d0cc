"""Services that use other services: in this process, or of another server."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from modelport.exceptions import RemoteException
from modelport.services.declaration import Service
from modelport.services.loop import ServiceLoop

__all__ = ["Dependency", "LocalProxy", "depends"]

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

    def make(self, client: Callable[[str], Any] | None = None) -> Any:
        """Make an object of the other service, or a client of the other server."""
        if self.on is not None:
            loop = ServiceLoop(f"modelport-{self.on.name}-loop")
            return LocalProxy(self.on, self.on(), loop)
        if client is None:
            import modelport

            make: Any = modelport.__getattr__("SyncHTTPClient")
            return make(self.url)
        return client(self.url or "")


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
    """Another service of this process, as the one that depends on it sees it."""

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
        return _AsyncProxy(self._service, self._instance)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._instance, name)
        if name not in self._service.apis:
            return method
        if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):
            return method

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                result = method(*args, **kwargs)
                return self._loop.run(result) if inspect.iscoroutine(result) else result
            except Exception as exc:
                raise _remote(self._service, name, exc) from exc

        return call


class _AsyncProxy:
    """The same, to be awaited: coroutines run where they are awaited, functions on a thread."""

    def __init__(self, service: Service[Any], instance: Any) -> None:
        self._service = service
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._instance, name)
        if name not in self._service.apis:
            return method
        if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):
            return method

        @functools.wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                if inspect.iscoroutinefunction(method):
                    return await method(*args, **kwargs)
                return await asyncio.to_thread(method, *args, **kwargs)
            except Exception as exc:
                raise _remote(self._service, name, exc) from exc

        return call


def _remote(service: Service[Any], name: str, exc: Exception) -> Exception:
    if isinstance(exc, RuntimeError) and "own event loop" in str(exc):
        return exc
    return RemoteException(f"{service.name}.{name} failed: {type(exc).__name__}: {exc}")
