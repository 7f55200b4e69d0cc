"""Which models exist, and which of their versions are live.

Lives on the event loop; whatever reads disks or wakes frameworks is handed to ``run_blocking``.
What is decided here without waiting stands in :mod:`.lifecycle`, :mod:`.versions` and
:mod:`.ensembles`; this file does what they say, and tells the :class:`Listener`.

Loads of one model come one after another, those of different models run side by side. The new
version is up before the old one is let go, and whatever fails on the way leaves the old one alone.
"""

import asyncio
import enum
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from msgspec import Struct, field

from modelport.errors import LoadFailed, ModelportError, PollFailed, Unavailable
from modelport.repository.ensembles import complete_ensemble, levels, member_names
from modelport.repository.layout import check_name
from modelport.repository.lifecycle import (
    UNLOADED,
    Drained,
    Event,
    Failed,
    Loaded,
    Loading,
    Phase,
    Retired,
    VersionState,
    advance,
)
from modelport.repository.loading import LoadOptions, ModelVersion, Served, bring_up
from modelport.repository.polling import Stamps, find_changes
from modelport.repository.reading import Override, Reading, read_model
from modelport.repository.sources import Source
from modelport.repository.uploads import Upload, check_paths, refuse_code
from modelport.runtimes.base import Host, as_model_failure

__all__ = [
    "ControlMode",
    "IndexRow",
    "Listener",
    "LoadOptions",
    "ModelVersion",
    "Repository",
    "RepositoryOptions",
]


class ControlMode(enum.StrEnum):
    """Who decides what is loaded."""

    NONE = "none"
    """The repository: all of it is loaded at start, and nothing changes afterwards."""

    POLL = "poll"
    """The repository, also afterwards: what comes, changes or goes there does so here."""

    EXPLICIT = "explicit"
    """The operator: names at start, load and unload requests afterwards."""


class RepositoryOptions(Struct, frozen=True, kw_only=True):
    """What the operator decides.

    Attributes:
        control_mode: Who decides what is loaded.
        load_models: In explicit mode, what is loaded at start; ``*`` is everything.
        config_name: Picks one of several configurations of each model; "" for the usual one.
        load: How models are loaded.
        most_loading: Versions that may come up at once. Triton's default is 4 too: loading is
            half reading files, half work that frameworks spread over cores themselves.
        poll_s: In poll mode, seconds between two looks at the disk.
        settle_s: Seconds for which files must have stood still before they are loaded; longer
            ones are cut to ``poll_s``.
    """

    control_mode: ControlMode = ControlMode.NONE
    load_models: tuple[str, ...] = ()
    config_name: str = ""
    load: LoadOptions = field(default_factory=LoadOptions)
    most_loading: int = 4
    poll_s: float = 15.0
    settle_s: float = 2.0


class IndexRow(Struct, frozen=True):
    """One line of the index.

    Attributes:
        name: Of the model.
        version: ``None`` where nothing is known but the model's name.
        state: ``None`` for a model that nobody has loaded yet.
        reason: Why it does not serve; "" where there is nothing to say.
    """

    name: str
    version: str | None = None
    state: Phase | None = None
    reason: str = ""


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


_T = TypeVar("_T")

RunBlocking = Callable[..., Awaitable[Any]]
"""Calls its first argument with the others on a thread, and gives what that returns."""


class _Live(Struct, eq=False):
    version: ModelVersion
    signature: tuple[object, ...]


class _Model(Struct, eq=False):
    """What is known of one model.

    Attributes:
        name: Of the model.
        lock: Held by who loads or unloads it; see ``held``.
        holders: How many hold the lock, or wait for it.
        states: Of every version that was ever loaded, or was to be.
        live: The versions that serve.
        override: What the last load request replaced, and no later one has taken back.
        needs: The models that it is made of, as it was read last.
        failure: What the last load failed with; "" if it did not.
        is_named: Whether somebody asked for it by name, and not only for an ensemble of it.
        went_with: The member that was unloaded, and took this ensemble along; "" if none was.
    """

    name: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    states: dict[int, VersionState] = field(default_factory=dict)
    live: dict[int, _Live] = field(default_factory=dict)
    override: Override | None = None
    needs: frozenset[str] = frozenset()
    failure: str = ""
    is_named: bool = False
    went_with: str = ""
    holders: int = 0

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait for the lock and hold it; who does either way is not forgotten meanwhile."""
        self.holders += 1
        try:
            async with self.lock:
                yield
        finally:
            self.holders -= 1

    def replace_override(self, override: Override | None) -> None:
        if override is not None:
            override.hold()
        if self.override is not None:
            self.override.release()
        self.override = override

    def tell(self, version: int, event: Event) -> None:
        self.states[version] = advance(self.states.get(version, VersionState()), event)

    @property
    def members(self) -> set[str]:
        """The models that its live versions are made of."""
        return {name for live in self.live.values() for name in member_names(live.version.config)}

    def is_over(self) -> bool:
        """Whether nothing of it is left, and nobody is about to change that."""
        is_down = all(state.phase is Phase.UNAVAILABLE for state in self.states.values())
        return is_down and not self.live and not self.failure and not self.holders

    @property
    def is_unready(self) -> bool:
        """Whether it, or a version of it, does not serve although it should."""
        return bool(self.failure and not self.live) or any(
            state.has_failed or state.phase is Phase.LOADING for state in self.states.values()
        )


class Repository:
    """The models of all sources. Construct, ``open``, and ``close`` on one event loop."""

    def __init__(
        self,
        sources: Sequence[Source],
        options: RepositoryOptions,
        host: Host,
        listener: Listener,
        run_blocking: RunBlocking,
    ) -> None:
        self._sources = sources
        self._options = options
        self._host = host
        self._listener = listener
        self._run_blocking = run_blocking
        self._models: dict[str, _Model] = {}
        self._loading = asyncio.Semaphore(options.most_loading)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_open = False
        self._is_closed = False
        self._polling: asyncio.Task[None] | None = None
        # What the files were like when they were looked at for the last load.
        self._known: Stamps = {}

    def __repr__(self) -> str:
        live = sum(len(model.live) for model in self._models.values())
        return f"<Repository models={len(self._models)} live={live} tasks={len(self._tasks)}>"

    # What is there.

    def index(self) -> list[IndexRow]:
        """List all models, loaded or not, and all versions that were ever loaded.

        Lists the repository directories on the spot, so that new models are seen.
        """
        names = set(self._models)
        for source in self._sources:
            names.update(source.names(self._models))
        return [row for name in sorted(names) for row in self.rows(name)]

    def rows(self, name: str) -> list[IndexRow]:
        """Give the index's lines for one model, without looking whether it is there."""
        model = self._models.get(name)
        if model is None:
            return [IndexRow(name)]
        if not model.states:
            failed = Phase.UNAVAILABLE if model.failure else None
            return [IndexRow(name, None, failed, model.failure)]
        return [
            IndexRow(name, str(version), state.phase, _reason(model, state))
            for version, state in sorted(model.states.items())
        ]

    def unfinished(self) -> set[str]:
        """Name the models of which something is being loaded or unloaded now."""
        return {
            name
            for name, model in self._models.items()
            if any(state.is_loading or state.draining for state in model.states.values())
        }

    def is_ready(self, *, strict: bool) -> bool:
        """Whether the start is over and, if ``strict``, nothing failed that should be served."""
        if not self._is_open or self._is_closed:
            return False
        return not strict or not any(model.is_unready for model in self._models.values())

    @property
    def failures(self) -> dict[str, str]:
        """What the last load of each model failed with, for those whose last load failed."""
        return {name: model.failure for name, model in self._models.items() if model.failure}

    # What is asked for.

    async def open(self) -> None:
        """Load what is to be there from the start.

        What fails does not stop the others; see ``failures``.
        """
        await self._finish(self._open())

    async def _open(self) -> None:
        is_explicit = self._options.control_mode is ControlMode.EXPLICIT
        if self._options.control_mode is ControlMode.POLL:
            # Before anything is read: what changes while it loads is seen by the next look.
            self._known = await self._look()
        asked = dict.fromkeys(self._options.load_models if is_explicit else ("*",))
        if "*" in asked:
            del asked["*"]
            asked |= dict.fromkeys(await self._run_blocking(_list_names, self._sources))
        for name in asked:
            self._model(name).is_named = True
        await self._load_all(dict.fromkeys(asked))
        self._is_open = True
        if self._options.control_mode is ControlMode.POLL and not self._is_closed:
            self._polling = asyncio.ensure_future(self._poll())

    async def load(
        self,
        name: str,
        *,
        config: str | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Load a model, or load what has changed of it. Goes on if the caller is cancelled.

        Args:
            name: Of the model. The models that an ensemble is made of are loaded before it.
            config: JSON whose fields replace those of the configuration on disk, until the next
                ``config`` or unload.
            files: By path below the model's directory, which they replace as a whole, for as long
                as ``config``; that must be given too, if only as ``{}``.

        Raises:
            Unavailable: If the control mode is not explicit, or the server is going down.
            InvalidRequest: If the name could not be a model's, or a path leads out of it.
            LoadFailed: With what served before still serving. Also for files that are code, where
                the operator does not allow that.
        """
        self._check_control(name)
        if files:
            if config is None:
                raise PollFailed(
                    f"failed to load '{name}', failed to poll from model repository; override "
                    "model files need the parameter 'config' too, '{}' for nothing special"
                )
            check_paths(name, files)
            if not self._options.load.allow_code_overrides:
                refuse_code(name, files)
        error = await self._finish(self._load(name, config, files))
        if error is not None:
            raise error

    async def _load(
        self, name: str, config: str | None, files: Mapping[str, bytes] | None
    ) -> ModelportError | None:
        override: Override | None = None
        if config is not None:
            try:
                upload = await self._run_blocking(Upload, files) if files else None
            except OSError as exc:
                return LoadFailed(
                    f"failed to load '{name}', its files cannot be kept: {exc.strerror}"
                )
            override = Override(config, upload)
        is_new = name not in self._models
        outcomes = await self._load_all({name: override})
        if override is not None:
            override.release()
        error = outcomes[name] or next((each for each in outcomes.values() if each), None)
        if error is None:
            self._model(name).is_named = True
        elif is_new and isinstance(error, _NotThere):
            self._forget(name)
        return error

    def _forget(self, name: str) -> None:
        """Keep nothing of a name that somebody made up, unless it has come true meanwhile."""
        model = self._models.get(name)
        if model is not None and not model.states and not model.holders:
            del self._models[name]

    async def _forget_if_gone(self, model: _Model) -> None:
        """Keep nothing of a model that is over and that no source has any more.

        Triton's index lists what its directories hold; and whoever loads models from files under
        ever new names must not fill our memory with their names.
        """
        if not model.is_over():
            return
        is_there = await self._run_blocking(_is_there, self._sources, model.name)
        if not is_there and model.is_over() and self._models.get(model.name) is model:
            del self._models[model.name]

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Take a model out of service; ensembles that need it go with it.

        Returns as soon as it gets no new requests; those in flight finish in the background. A
        model that nobody knows is fine.

        Args:
            name: Of the model.
            unload_dependents: For an ensemble, whether to unload also the models that were loaded
                only for it.

        Raises:
            Unavailable: If the control mode is not explicit, or the server is going down.
            InvalidRequest: If the name could not be a model's.
        """
        self._check_control(name)
        await self._finish(self._unload(name, unload_dependents))
        # One that was loaded meanwhile may have counted on it.
        await self._recheck_ensembles()

    async def refresh(self) -> bool:
        """Load what has changed on disk and unload what is gone, without waiting for the next look.

        In explicit mode only of models that were loaded before.

        Returns:
            Whether there was anything to do.

        Raises:
            Unavailable: If the control mode is none, or the server is going down.
            LoadFailed: If something did not load; the rest did.
        """
        if self._options.control_mode is ControlMode.NONE:
            raise Unavailable(_NO_CONTROL)
        if self._is_closed:
            raise Unavailable("Server exiting")
        return await self._finish(self._refresh())

    async def _refresh(self) -> bool:
        before = self._generations()
        now = await self._look()
        if self._options.control_mode is ControlMode.EXPLICIT:
            asked = [name for name, model in self._models.items() if model.live or model.failure]
            errors = await self._follow([name for name in asked if name in now], (), now)
        else:
            changes = find_changes(self._known, now, now)
            errors = await self._follow(changes.loads, changes.unloads, now)
        if errors:
            raise LoadFailed("; ".join(error.text for error in errors))
        return before != self._generations()

    def _generations(self) -> dict[tuple[str, int], ModelVersion]:
        return {
            (name, version): live.version
            for name, model in self._models.items()
            for version, live in model.live.items()
        }

    async def close(self) -> None:
        """Take everything out of service and wait until it is all given back."""
        self._is_closed = True
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait((self._polling,))
        while True:
            # Side by side: one that hangs while it loads must not keep the others up.
            await asyncio.gather(*(self._take_down(model) for model in self._models.values()))
            if not self._tasks:
                return
            # Loads that were under way end by themselves; what they left goes in the next round.
            await asyncio.wait(self._tasks)

    def _check_control(self, name: str) -> None:
        if self._options.control_mode is not ControlMode.EXPLICIT:
            raise Unavailable(_NO_CONTROL)
        if self._is_closed:
            raise Unavailable("Server exiting")
        check_name(name)

    # Polling.

    async def _poll(self) -> None:
        options = self._options
        settle_s = min(options.settle_s, options.poll_s)
        before: Stamps = self._known
        wait_s = options.poll_s
        while True:
            await asyncio.sleep(wait_s)
            try:
                now = await self._look()
                changes = find_changes(self._known, before, now)
                # Not to be cut off half way when the server stops.
                await self._finish(self._follow(changes.loads, changes.unloads, now))
            except Exception as exc:
                # A disk that is away for a moment must not end polling for good.
                self._host.log("error", f"the look for changed models failed: {exc!r}", model="")
                continue
            before = now
            wait_s = settle_s if changes.is_unsettled else options.poll_s

    async def _look(self) -> Stamps:
        stamps: Stamps = await self._run_blocking(_look, self._sources)
        return stamps

    async def _follow(
        self, loads: Sequence[str], unloads: Sequence[str], now: Stamps
    ) -> list[ModelportError]:
        """Do what changes on disk ask for; gives what went wrong."""
        known = {name: stamp for name, stamp in self._known.items() if name not in unloads}
        self._known = known | {name: now[name] for name in loads}
        for name in unloads:
            self._host.log("info", "the model is gone from the repository", model=name)
            await self._unload(name, unload_dependents=False)
        if not loads:
            return []
        # An ensemble may fit its members now, or never have had them all.
        waiting = [
            name
            for name, model in self._models.items()
            if name in self._known and model.needs.intersection(loads)
        ]
        for name in loads:
            self._model(name).is_named = True
        outcomes = await self._load_all(dict.fromkeys([*loads, *waiting]))
        return [error for error in outcomes.values() if error is not None]

    # Loading.

    async def _load_all(
        self, override_by_name: Mapping[str, Override | None]
    ) -> dict[str, ModelportError | None]:
        """Load models and what they are made of, members first.

        Returns:
            For each of them the error, or ``None``.
        """
        readings = await self._read_closure(override_by_name)
        groups, stuck = levels(
            {
                name: member_names(reading.config) if isinstance(reading, Reading) else ()
                for name, reading in readings.items()
            }
        )
        outcomes: dict[str, ModelportError | None] = {}
        for name in stuck:
            circle = LoadFailed(
                f"failed to load '{name}', its ensemble is made of itself, in the end; these "
                f"models need one another in a circle: {', '.join(stuck)}"
            )
            outcomes[name] = self._failed(name, circle)
        for group in groups:
            results = await asyncio.gather(
                *(
                    self._load_one(name, override_by_name.get(name), readings[name])
                    for name in group
                )
            )
            outcomes.update(zip(group, results, strict=True))
        await self._recheck_ensembles()
        return outcomes

    async def _read_closure(
        self, override_by_name: Mapping[str, Override | None]
    ) -> dict[str, Reading | ModelportError | None]:
        """Read models, the models they are made of, and so on."""
        readings: dict[str, Reading | ModelportError | None] = {}
        wanted = list(override_by_name)
        while wanted:
            asked = {
                name: override_by_name.get(name) or self._override_in_force(name) for name in wanted
            }
            read = await self._run_blocking(
                _read_all, self._sources, asked, self._options.config_name
            )
            readings.update(read)
            members = dict.fromkeys(
                member
                for reading in read.values()
                if isinstance(reading, Reading)
                for member in member_names(reading.config)
            )
            wanted = [member for member in members if member not in readings]
        # A member that is nowhere to be found is the ensemble's fault, and told as such.
        return {
            name: reading
            for name, reading in readings.items()
            if reading is not None or name in override_by_name
        }

    async def _load_one(
        self, name: str, override: Override | None, reading: Reading | ModelportError | None
    ) -> ModelportError | None:
        model = self._model(name)
        has_waited = model.lock.locked()
        async with model.held():
            if has_waited:
                # The load before may have changed the configuration that is in force.
                asked = {name: override or model.override}
                read = await self._run_blocking(
                    _read_all, self._sources, asked, self._options.config_name
                )
                reading = read[name]
            try:
                if self._is_closed:
                    raise Unavailable("Server exiting")
                await self._load_reading(model, _readable(name, reading), override)
            except ModelportError as exc:
                return self._failed(name, exc)
        model.failure = ""
        return None

    async def _load_reading(
        self, model: _Model, reading: Reading, override: Override | None
    ) -> None:
        """Make what serves be what was read."""
        model.needs = frozenset(member_names(reading.config))
        if not reading.directory_by_version:
            raise LoadFailed(
                f"failed to load '{model.name}', no version is available; the model has no version "
                "directory that its version policy picks, such as 1/"
            )
        signatures = reading.signature_by_version
        changed = [
            version
            for version, signature in signatures.items()
            if version not in model.live or model.live[version].signature != signature
        ]
        dropped = [version for version in model.live if version not in signatures]
        if changed:
            loaded, failures = await self._bring_up_all(model, reading, changed)
            loaded, cold = await self._warm_up_all(loaded)
            failures |= cold
            if failures and model.live:
                # All or nothing, so that what served before is not half replaced.
                self._discard(loaded)
                loaded = []
            failures |= self._attach(loaded)
            for each in loaded:
                if each.version not in failures:
                    model.live[each.version] = _Live(each, signatures[each.version])
            self._settle(model, changed, {each.version for each in loaded}, failures)
            if failures:
                raise LoadFailed(_load_failed_text(model.name, failures))
        for version in dropped:
            self._retire(model, version, UNLOADED)
        if override is not None:
            model.replace_override(override)

    async def _bring_up_all(
        self, model: _Model, reading: Reading, versions: Sequence[int]
    ) -> tuple[list[ModelVersion], dict[int, str]]:
        """Bring versions up side by side; gives those that are, and why the others are not."""
        served = self._served(member_names(reading.config))
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
                    bring_up, reading, version, served, self._host, self._options.load
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
        model: _Model,
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

    # Ensembles.

    def _served(self, names: Iterable[str]) -> Served:
        return {
            name: {version: live.version.config for version, live in model.live.items()}
            for name in names
            if (model := self._models.get(name)) is not None
        }

    def _dependents(self, name: str) -> list[_Model]:
        return [model for model in self._models.values() if name in model.members]

    async def _recheck_ensembles(self) -> None:
        """Take down the ensembles that members which have changed do not fit any more."""
        for model in list(self._models.values()):
            for version, live in list(model.live.items()):
                members = member_names(live.version.config)
                if not members:
                    continue
                try:
                    complete_ensemble(live.version.config, self._served(members))
                except LoadFailed as exc:
                    async with model.held():
                        if model.live.get(version) is live:
                            self._retire(model, version, exc.text)

    # Unloading.

    async def _unload(self, name: str, unload_dependents: bool) -> None:
        model = self._models.get(name)
        if model is None:
            return
        for ensemble in self._dependents(name):
            await self._unload(ensemble.name, unload_dependents=False)
            ensemble.went_with = name
        members = model.members
        await self._take_down(model)
        await self._forget_if_gone(model)
        if not unload_dependents:
            return
        for member in sorted(members):
            known = self._models.get(member)
            if known is not None and not known.is_named and not self._dependents(member):
                await self._unload(member, unload_dependents=True)

    async def _take_down(self, model: _Model) -> None:
        async with model.held():
            for version, state in model.states.items():
                if version in model.live:
                    self._retire(model, version, UNLOADED)
                elif state.reason:
                    model.tell(version, Retired())
            model.replace_override(None)
            model.failure = ""
            model.is_named = False
            model.went_with = ""

    def _retire(self, model: _Model, version: int, reason: str) -> None:
        """Let a version finish what it has begun, in the background."""
        live = model.live.pop(version)
        model.tell(version, Retired(reason))
        drained = self._listener.detach(model.name, version)
        self._spawn(self._drain(model, live.version, drained))

    async def _drain(self, model: _Model, version: ModelVersion, drained: Awaitable[None]) -> None:
        try:
            await drained
        except Exception as exc:
            text = f"version {version.version} did not drain: {exc!r}"
            self._host.log("error", text, model=model.name)
        await self._unload_version(version)
        model.tell(version.version, Drained())
        if not self._is_closed:
            await self._forget_if_gone(model)

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

    # Small things.

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = _Model(name)
        return model

    def _override_in_force(self, name: str) -> Override | None:
        model = self._models.get(name)
        return model.override if model is not None else None

    def _failed(self, name: str, error: ModelportError) -> ModelportError:
        self._model(name).failure = error.text
        self._host.log("error", error.text, model=name)
        return error

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do something to its end, even if who waits for it is cancelled."""
        task: asyncio.Task[_T] = self._spawn(work)
        return await asyncio.shield(task)


def _reason(model: _Model, state: VersionState) -> str:
    if state.phase is Phase.READY:
        # A version that failed tells of it itself.
        has_told = any(each.has_failed for each in model.states.values())
        is_told = not model.failure or has_told
        return "" if is_told else f"serves as it was, and could not be loaded anew: {model.failure}"
    if state.phase is not Phase.UNAVAILABLE:
        return ""
    if state.reason == UNLOADED and model.went_with:
        return f"{UNLOADED}, because model '{model.went_with}', which it needs, was unloaded"
    # A load that did not get as far as any version says more than how the last one ended.
    return state.reason if state.has_failed or model.live else model.failure or state.reason


class _NotThere(PollFailed):
    """No source has a model of this name."""


_NO_CONTROL = (
    "explicit model load / unload is not allowed if polling is enabled; start the "
    "server with --model-control-mode explicit to allow it"
)


def _look(sources: Sequence[Source]) -> dict[str, object]:
    """Stamp every model that is there; an :class:`OSError` says that nobody can tell."""
    stamps: dict[str, list[object]] = {}
    for source in sources:
        for name, stamp in source.stamps().items():
            stamps.setdefault(name, []).append(stamp)
    return dict(stamps)


def _is_there(sources: Sequence[Source], name: str) -> bool:
    return any(source.find(name) is not None for source in sources)


def _list_names(sources: Sequence[Source]) -> list[str]:
    return sorted({name for source in sources for name in source.names()})


def _read_all(
    sources: Sequence[Source], override_by_name: Mapping[str, Override | None], config_name: str
) -> dict[str, Reading | ModelportError | None]:
    """Read several models; what cannot be read is told in its place."""
    read: dict[str, Reading | ModelportError | None] = {}
    for name, override in override_by_name.items():
        try:
            read[name] = read_model(sources, name, config_name=config_name, override=override)
        except ModelportError as exc:
            read[name] = exc
        except OSError as exc:
            read[name] = LoadFailed(f"the model directory cannot be read: {exc.strerror}")
    return read


def _readable(name: str, reading: Reading | ModelportError | None) -> Reading:
    text = f"failed to load '{name}', failed to poll from model repository"
    match reading:
        case Reading():
            return reading
        case None:
            raise _NotThere(f"{text}; there is no model directory of this name")
        case _:
            raise PollFailed(f"{text}; {reading.text}") from reading


def _load_failed_text(name: str, failures: Mapping[int, str]) -> str:
    versions = "\n".join(
        f"version {version} is at UNAVAILABLE state: {reason};"
        for version, reason in sorted(failures.items())
    )
    return f"load failed for model '{name}': {versions}"
