"""The object of a service in one process: made, started, asked how it is, and ended."""

import asyncio
import inspect
import logging
import os
from collections.abc import Sequence
from typing import Any

from modelport.errors import LoadFailed
from modelport.services.context import WORKER_INDEX, BackgroundTasks, current_service
from modelport.services.declaration import Service
from modelport.services.dependencies import LocalProxy, RemoteProxy
from modelport.services.loop import ServiceLoop

__all__ = ["LiveService", "in_order"]

log = logging.getLogger("modelport.services")


class LiveService:
    """One service and the object that answers for it in this process.

    Args:
        service: As declared.
        worker_index: Of this process among those of the service, from 1.

    Attributes:
        instance: The object; ``None`` before ``open`` and after ``close``.
        loop: On which its coroutines run.
        state: Of :class:`~modelport.services.context.Context`, shared by all its calls here.
    """

    def __init__(self, service: Service[Any], *, worker_index: int = 1) -> None:
        self.service = service
        self._worker_index = worker_index
        self.instance: Any = None
        self.loop = ServiceLoop(f"modelport-{service.name}-loop")
        self.state: dict[str, Any] = {}
        self._proxies: list[Any] = []

    def __repr__(self) -> str:
        return f"<LiveService {self.service.name} {'up' if self.instance is not None else 'down'}>"

    # Life; all of it blocks.

    def deploy(self) -> None:
        """Set its environment and run what is to be run once, before any object is made.

        Raises:
            LoadFailed: With what its author's code raised.
        """
        for env in self.service.options.envs:
            if env.get("value") is not None and env.get("stage", "all") != "build":
                os.environ.setdefault(env["name"], str(env["value"]))
        try:
            for name in self.service.hooks("deployment"):
                self.run(getattr(self.service.inner, name))
        except BaseException as exc:
            raise self._failed(exc) from exc

    def open(self, others: "dict[int, LiveService]") -> None:
        """Make the object and run its hooks.

        Args:
            others: Those that it depends on, open, by the identity of their declaration.

        Raises:
            LoadFailed: With what its author's code raised.
        """
        service = self.service
        try:
            instance: Any = object.__new__(service.inner)
            proxies = {
                name: _proxy(dependency, others)
                for name, dependency in service.dependencies.items()
            }
            vars(instance).update(proxies)
            vars(instance)[WORKER_INDEX] = self._worker_index
            self._proxies = list(proxies.values())
            current_service.set(instance)
            instance.__init__()
            self.instance = instance
            for name in service.hooks("startup"):
                self.run(getattr(instance, name))
        except BaseException as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: BaseException) -> LoadFailed:
        name = self.service.name
        log.error("service %s could not be started", name, exc_info=exc)
        return LoadFailed(f"service '{name}' could not be started: {type(exc).__name__}: {exc}")

    def close(self) -> None:
        """Run the hooks of its end, and end its loop."""
        instance, self.instance = self.instance, None
        if instance is not None:
            current_service.set(instance)
            for name in self.service.hooks("shutdown"):
                try:
                    self.run(getattr(instance, name))
                except BaseException:
                    log.exception("%s of service %s failed", name, self.service.name)
        for proxy in self._proxies:
            if isinstance(proxy, RemoteProxy):
                proxy.close()
        self.loop.close()

    def run(self, hook: Any) -> Any:
        """Call a function, or a coroutine function on the loop, and wait."""
        result = hook()
        return self.loop.run(result) if inspect.iscoroutine(result) else result

    # While it lives.

    @property
    def servers(self) -> "Sequence[RemoteProxy]":
        """The other servers that it depends on."""
        return [each for each in self._proxies if isinstance(each, RemoteProxy)]

    def says(self, check: str) -> bool:
        """Ask it for ``__is_ready__`` or ``__is_alive__``; a yes where it has none. Blocks."""
        method = getattr(self.instance, check, None)
        if method is None:
            return True
        current_service.set(self.instance)
        try:
            return bool(self.run(method))
        except BaseException:
            # Whoever asks does so on the server's own loop, which SystemExit would end.
            log.exception("%s of service %s failed", check, self.service.name)
            return False

    def run_later(self, tasks: BackgroundTasks) -> None:
        """Do what a method left to be done after the answer."""
        self.loop.spawn(self._finish(tasks))

    async def _finish(self, tasks: BackgroundTasks) -> None:
        for each in tasks.tasks:
            try:
                function = getattr(each, "func", each)
                if inspect.iscoroutinefunction(function):
                    await each()
                else:
                    await asyncio.to_thread(each)
            except (Exception, SystemExit, KeyboardInterrupt):
                log.exception("what service %s does after an answer failed", self.service.name)


def in_order(services: Sequence[Service[Any]]) -> list[Service[Any]]:
    """Give services and all that they depend on, each behind those that it needs.

    Raises:
        LoadFailed: Some depend on each other in a circle.
    """
    found: dict[int, Service[Any]] = {}

    def add(service: Service[Any], above: tuple[Service[Any], ...]) -> None:
        if service in above:
            names = " → ".join(each.name for each in (*above, service))
            raise LoadFailed(f"services depend on each other in a circle: {names}")
        if id(service) in found:
            return
        for dependency in service.dependencies.values():
            if dependency.on is not None:
                add(dependency.on, (*above, service))
        found[id(service)] = service

    for service in services:
        add(service, ())
    return list(found.values())


def _proxy(dependency: Any, others: dict[int, LiveService]) -> Any:
    if dependency.on is None:
        return dependency.make()
    other = others[id(dependency.on)]
    return LocalProxy(other.service, other.instance, other.loop)
