"""What serves of one model, made to be what was read of it: versions come up, take over and go.

The new version is up before the old one is let go, and whatever fails on the way leaves the old
one alone. Whoever has this done to a model holds its lock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

from modelport.errors import LoadFailed, ModelportError
from modelport.repository.lifecycle import UNLOADED, Drained, Failed, Loaded, Loading, Retired
from modelport.repository.loading import ModelVersion, Served, bring_up
from modelport.repository.model import Live, Model
from modelport.repository.options import RepositoryOptions
from modelport.repository.reading import Reading
from modelport.runtimes.base import Host, as_model_failure

__all__ = ["Listener", "Rollout", "RunBlocking", "Spawn"]


class Listener(Protocol):
    """Who serves what is live. Called on the event loop."""

    async def warm_up(self, version: ModelVersion) -> None:
        """Have a version execute its warm-up requests, before ``attach``.

        Raises:
            LoadFailed: If it fails one; ``abandon`` comes next.
        """
        ...

    async def abandon(self, version: ModelVersion) -> None:
        """Let go of a version that was never attached; for one never warmed up there is nothing."""
        ...

    def attach(self, versions: Sequence[ModelVersion]) -> None:
        """Serve these from now on, all of them or, if this raises, none.

        From here on each belongs to the listener. One that is live already under the same name
        and version is replaced: it gets no new requests, and the listener unloads it after its
        last one.
        """
        ...

    def detach(self, name: str, version: int) -> Awaitable[None]:
        """Give a version no new requests, as of this very call.

        Returns:
            Completes when its last request is done. Its instances are unloaded afterwards, and
            not by the listener.
        """
        ...


RunBlocking = Callable[..., Awaitable[Any]]
"""Calls its first argument with the others on a thread, and gives what that returns."""


Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Has something done in the background, to its end."""


class Rollout:
    """Brings versions up and down, and tells the listener.

    Args:
        options: How many come up at once, and how.
        host: What models see of the server; also takes the log.
        listener: Who serves them.
        run_blocking: Takes what loads and unloads.
        spawn: Takes what nobody waits for.
        drained: Told when a version that was retired has given everything back.
    """

    def __init__(
        self,
        options: RepositoryOptions,
        host: Host,
        listener: Listener,
        run_blocking: RunBlocking,
        spawn: Spawn,
        drained: Callable[[Model], Awaitable[None]],
    ) -> None:
        self._options = options.load
        self._host = host
        self._listener = listener
        self._run_blocking = run_blocking
        self._spawn = spawn
        self._drained = drained
        self._loading = asyncio.Semaphore(options.most_loading)

    async def replace(self, model: Model, reading: Reading, served: Served) -> None:
        """Make what serves be what was read.

        Args:
            model: Whose versions these are.
            reading: What was read of it.
            served: The models that it is made of.

        Raises:
            LoadFailed: A version did not come up. Those that served before still do.
        """
        if not reading.directory_by_version:
            raise LoadFailed(
                f"failed to load '{model.name}', no version is available; {_why_none(reading)}"
            )
        signatures = reading.signature_by_version
        changed = [
            version
            for version, signature in signatures.items()
            if version not in model.live or model.live[version].signature != signature
        ]
        dropped = [version for version in model.live if version not in signatures]
        if changed:
            loaded, failures = await self._bring_up_all(model, reading, changed, served)
            loaded, cold = await self._warm_up_all(loaded)
            failures |= cold
            if failures and model.live:
                # All or nothing, so that what served before is not half replaced.
                self._discard(loaded)
                loaded = []
            failures |= self._attach(loaded)
            for each in loaded:
                if each.version not in failures:
                    model.live[each.version] = Live(each, signatures[each.version])
            self._settle(model, changed, {each.version for each in loaded}, failures)
            if failures:
                raise LoadFailed(_load_failed_text(model.name, failures))
        for version in dropped:
            self.retire(model, version, UNLOADED)

    async def _bring_up_all(
        self, model: Model, reading: Reading, versions: Sequence[int], served: Served
    ) -> tuple[list[ModelVersion], dict[int, str]]:
        """Bring versions up side by side; gives those that are, and why the others are not."""
        for version in versions:
            model.tell(version, Loading())
        results = await asyncio.gather(
            *(self._bring_up(reading, version, served) for version in versions)
        )
        loaded = [result for result in results if isinstance(result, ModelVersion)]
        failures = {
            version: result.text
            for version, result in zip(versions, results, strict=True)
            if isinstance(result, ModelportError)
        }
        return loaded, failures

    async def _bring_up(
        self, reading: Reading, version: int, served: Served
    ) -> ModelVersion | ModelportError:
        async with self._loading:
            try:
                loaded: ModelVersion = await self._run_blocking(
                    bring_up, reading, version, served, self._host, self._options
                )
            except ModelportError as exc:
                return exc
        return loaded

    async def _warm_up_all(
        self, loaded: Sequence[ModelVersion]
    ) -> tuple[list[ModelVersion], dict[int, str]]:
        """Warm versions up; gives those that are, and why the others are not."""
        warm: list[ModelVersion] = []
        failures: dict[int, str] = {}
        for version in loaded:
            try:
                if version.samples:
                    await self._listener.warm_up(version)
            except Exception as exc:
                self._discard([version])
                failures[version.version] = as_model_failure(exc).text
            else:
                warm.append(version)
        return warm, failures

    def _attach(self, loaded: Sequence[ModelVersion]) -> dict[int, str]:
        """Hand versions over; gives why the listener does not want them, if so."""
        if not loaded:
            return {}
        try:
            self._listener.attach(loaded)
        except Exception as exc:
            self._discard(loaded)
            reason = as_model_failure(exc).text
            return {version.version: reason for version in loaded}
        for version in loaded:
            text = f"version {version.version} is ready after {version.load_s:.3f} s"
            self._host.log("info", text, model=version.name)
        return {}

    def _settle(
        self,
        model: Model,
        versions: Iterable[int],
        attached: Collection[int],
        failures: Mapping[int, str],
    ) -> None:
        """Note down how each version's load ended."""
        culprits = ", ".join(str(version) for version in failures)
        for version in versions:
            if version in failures:
                model.tell(version, Failed(failures[version]))
            elif version in attached:
                model.tell(version, Loaded())
            else:
                model.tell(version, Failed(f"not served, because version {culprits} failed"))

    def retire(self, model: Model, version: int, reason: str) -> None:
        """Give a version nothing new, and let it finish in the background what it has begun."""
        live = model.live.pop(version)
        model.tell(version, Retired(reason))
        drained = self._listener.detach(model.name, version)
        self._spawn(self._drain(model, live.version, drained))

    async def _drain(self, model: Model, version: ModelVersion, drained: Awaitable[None]) -> None:
        try:
            await drained
        except Exception as exc:
            text = f"version {version.version} did not drain: {exc!r}"
            self._host.log("error", text, model=model.name)
        await self._unload_version(version)
        model.tell(version.version, Drained())
        await self._drained(model)

    async def _unload_version(self, version: ModelVersion) -> None:
        try:
            await self._listener.abandon(version)
            await self._run_blocking(version.unload)
        except Exception as exc:
            text = f"version {version.version} raised while it was unloaded: {exc!r}"
            self._host.log("error", text, model=version.name)
        else:
            text = f"version {version.version} is unloaded"
            self._host.log("info", text, model=version.name)

    def _discard(self, versions: Iterable[ModelVersion]) -> None:
        """Unload in the background what was never attached."""
        for version in versions:
            self._spawn(self._unload_version(version))


def _why_none(reading: Reading) -> str:
    if reading.absent:
        asked = ", ".join(map(str, reading.absent))
        return f"its version_policy asks for {asked}, and there is no such version directory"
    return "the model has no version directory that its version policy picks, such as 1/"


def _load_failed_text(name: str, failures: Mapping[int, str]) -> str:
    versions = "\n".join(
        f"version {version} is at UNAVAILABLE state: {reason};"
        for version, reason in sorted(failures.items())
    )
    return f"load failed for model '{name}': {versions}"
