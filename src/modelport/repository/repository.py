"""Which models exist, and which of their versions are live.

Lives on the event loop; whatever reads disks or wakes frameworks is handed to ``run_blocking``.
What is known of each model stands in :mod:`.model`, how its versions come and go in
:mod:`.rollout`; this file says which models that is done to, and in what order.

Loads of one model come one after another, those of different models run side by side, but for
ensembles: what they are made of comes first.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from modelport.errors import LoadFailed, ModelportError, PollFailed, Unavailable
from modelport.repository.ensembles import complete_ensemble, levels, member_names
from modelport.repository.layout import check_name
from modelport.repository.lifecycle import UNLOADED, Phase, Retired
from modelport.repository.loading import ModelVersion, Served
from modelport.repository.model import IndexRow, Model, absent_text
from modelport.repository.options import ControlMode, RepositoryOptions
from modelport.repository.polling import Stamps, find_changes
from modelport.repository.reading import (
    NotThere,
    Override,
    Reading,
    expect_reading,
    read_models,
)
from modelport.repository.rollout import Listener, Rollout, RunBlocking
from modelport.repository.sources import Source, has_model, list_names, look_at
from modelport.repository.uploads import Upload, check_paths, refuse_code
from modelport.runtimes.base import Host

__all__ = ["Repository"]

_T = TypeVar("_T")


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
        self._run_blocking = run_blocking
        self._models: dict[str, Model] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._rollout = Rollout(options, host, listener, run_blocking, self._spawn, self._drained)
        self._is_open = False
        self._is_closed = False
        self._polling: asyncio.Task[None] | None = None
        # What the files were like when they were looked at for the last load.
        self._known: Stamps = {}
        # Held by who follows changes on disk: who asks for that meanwhile hears when it is done.
        self._following = asyncio.Lock()

    def __repr__(self) -> str:
        live = sum(len(model.live) for model in self._models.values())
        return f"<Repository models={len(self._models)} live={live} tasks={len(self._tasks)}>"

    # What is there.

    def index(self) -> list[IndexRow]:
        """List all models, loaded or not, and all versions that were ever loaded.

        Lists the repository directories on the spot, so that new models are seen.
        """
        rows = {name: model.rows_with_absent() for name, model in self._models.items()}
        for source in self._sources:
            for name in source.names(self._models):
                if name not in rows:
                    fault = source.fault(name)
                    rows[name] = [IndexRow(name, None, Phase.UNAVAILABLE if fault else None, fault)]
        return [row for name in sorted(rows) for row in rows[name]]

    def rows(self, name: str) -> list[IndexRow]:
        """Give the index's lines for one model, without looking whether it is there."""
        model = self._models.get(name)
        return [IndexRow(name)] if model is None else model.rows()

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
            asked |= dict.fromkeys(await self._run_blocking(list_names, self._sources))
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
        elif is_new and isinstance(error, NotThere):
            self._forget(name)
        return error

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
        async with self._following:
            return await self._follow_now()

    async def _follow_now(self) -> bool:
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
        told = ""
        while True:
            await asyncio.sleep(wait_s)
            try:
                async with self._following:
                    now = await self._look()
                    changes = find_changes(self._known, before, now)
                    # Not to be cut off half way when the server stops.
                    await self._finish(self._follow(changes.loads, changes.unloads, now))
            except Exception as exc:
                # A disk that is away for a moment must not end polling for good.
                why = exc.text if isinstance(exc, ModelportError) else repr(exc)
                if why != told:
                    text = f"the look for changed models failed, and is tried again: {why}"
                    self._host.log("error", text, model="")
                told = why
                continue
            told = ""
            before = now
            wait_s = settle_s if changes.is_unsettled else options.poll_s

    async def _look(self) -> Stamps:
        stamps: Stamps = await self._run_blocking(look_at, self._sources)
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
                read_models, self._sources, asked, self._options.config_name
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
                    read_models, self._sources, asked, self._options.config_name
                )
                reading = read[name]
            try:
                if self._is_closed:
                    raise Unavailable("Server exiting")
                found = expect_reading(name, reading)
                model.needs = frozenset(member_names(found.config))
                if found.directory_by_version:
                    self._note_absent(model, found.absent)
                await self._rollout.replace(model, found, self._served(model.needs))
                if override is not None:
                    model.replace_override(override)
            except ModelportError as exc:
                return self._failed(name, exc)
        model.failure = ""
        return None

    def _note_absent(self, model: Model, absent: tuple[int, ...]) -> None:
        """Say once which versions are asked for and not there; they are served when they come."""
        for version in sorted(set(absent).difference(model.absent)):
            self._host.log("error", absent_text(model.name, version), model=model.name)
        model.absent = absent

    # Ensembles.

    def _served(self, names: Iterable[str]) -> Served:
        return {
            name: {version: live.version.config for version, live in model.live.items()}
            for name in names
            if (model := self._models.get(name)) is not None
        }

    def _dependents(self, name: str) -> list[Model]:
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
                            self._rollout.retire(model, version, exc.text)

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

    async def _take_down(self, model: Model) -> None:
        async with model.held():
            for version, state in model.states.items():
                if version in model.live:
                    self._rollout.retire(model, version, UNLOADED)
                elif state.reason:
                    model.tell(version, Retired())
            model.replace_override(None)
            model.failure = ""
            model.is_named = False
            model.went_with = ""

    def _forget(self, name: str) -> None:
        """Keep nothing of a name that somebody made up, unless it has come true meanwhile."""
        model = self._models.get(name)
        if model is not None and not model.states and not model.holders:
            del self._models[name]

    async def _drained(self, model: Model) -> None:
        """A version that was retired has given everything back."""
        if not self._is_closed:
            await self._forget_if_gone(model)

    async def _forget_if_gone(self, model: Model) -> None:
        """Keep nothing of a model that is over and that no source has any more.

        Triton's index lists what its directories hold; and whoever loads models from files under
        ever new names must not fill our memory with their names.
        """
        if not model.is_over():
            return
        is_there = await self._run_blocking(has_model, self._sources, model.name)
        if not is_there and model.is_over() and self._models.get(model.name) is model:
            del self._models[model.name]

    # Small things.

    def _model(self, name: str) -> Model:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = Model(name)
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


_NO_CONTROL = (
    "explicit model load / unload is not allowed if polling is enabled; start the "
    "server with --model-control-mode explicit to allow it"
)
