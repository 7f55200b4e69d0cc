"""A real repository in a temporary directory, with a runtime that only reads a small JSON file.

``model.fake`` holds an object: ``inputs`` and ``outputs`` (names and datatypes) and their ``dims``,
which the runtime finds in it; ``fail``, the instance that does not load, or ``all``; ``raise``, the
text of an exception that is not ours.
"""

import asyncio
import errno
import json
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from modelport.errors import LoadFailed
from modelport.repository.loading import Choice, LoadOptions, ModelVersion, bring_up
from modelport.repository.options import ControlMode, RepositoryOptions
from modelport.repository.repository import Repository
from modelport.repository.sources import OvmsSource, RepositorySource
from modelport.runtimes.base import Batch, LoadContext, ModelSource, Outcome
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.testing.fakes import FakeHost

_T = TypeVar("_T")
_LIMIT_S = 5.0


class FakeRuntime:
    default_filename: ClassVar[str] = "model.fake"
    loaded: ClassVar[list[str]] = []
    unloaded: ClassVar[list[str]] = []

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        found = _read(source, config)
        dims = tuple(found.get("dims", [1]))
        return ModelConfig(
            input=tuple(
                ModelInput(name=name, data_type=kind, dims=dims)
                for name, kind in found.get("inputs", {}).items()
            ),
            output=tuple(
                ModelOutput(name=name, data_type=kind, dims=dims)
                for name, kind in found.get("outputs", {}).items()
            ),
        )

    def load(self, context: LoadContext) -> None:
        found = _read(context.source, context.config)
        if found.get("raise"):
            raise ValueError(found["raise"])
        if found.get("fail") in ("all", context.instance_name):
            raise LoadFailed("the weights are torn")
        self.name = f"{context.instance_name} v{context.source.version}"
        self.loaded.append(self.name)

    def execute(self, batch: Batch) -> Sequence[Outcome]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        return True

    def unload(self) -> None:
        self.unloaded.append(self.name)


def _read(source: ModelSource, config: ModelConfig) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(source.file(config, "model.fake").read_text())
    return read


def choose_fake(config: ModelConfig, directory: Path) -> Choice:
    return Choice(FakeRuntime, "fake", config.default_model_filename or "model.fake")


class Host(FakeHost):
    """Keeps the log, in the order that the tests here want."""

    def log(self, level: str, message: str, *, model: str) -> None:
        self.lines.append((level, model, message))


class FakeListener:
    """Serves nothing, and remembers what it was told.

    Versions drain at once, except those of models in ``busy``: they wait for ``finish``.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.live: dict[tuple[str, int], ModelVersion] = {}
        self.busy: set[str] = set()
        self.refusal: Exception | None = None
        self._draining: dict[str, asyncio.Future[None]] = {}
        self.cold: dict[str, Exception] = {}

    async def warm_up(self, version: ModelVersion) -> None:
        self.told.append(f"~{version.name} v{version.version}")
        if version.name in self.cold:
            raise self.cold[version.name]

    async def abandon(self, version: ModelVersion) -> None:
        if version.samples and self.live.get((version.name, version.version)) is not version:
            self.told.append(f"!{version.name} v{version.version}")

    def attach(self, versions: Sequence[ModelVersion]) -> None:
        if self.refusal is not None:
            raise self.refusal
        for version in versions:
            self.told.append(f"+{version.name} v{version.version}")
            replaced = self.live.get((version.name, version.version))
            self.live[version.name, version.version] = version
            if replaced is not None:
                replaced.unload()

    def detach(self, name: str, version: int) -> Awaitable[None]:
        self.told.append(f"-{name} v{version}")
        del self.live[name, version]
        drained = asyncio.get_running_loop().create_future()
        if name in self.busy:
            self._draining[name] = drained
        else:
            drained.set_result(None)
        return drained

    def finish(self, name: str) -> None:
        self._draining[name].set_result(None)


class Bench:
    """A repository under test, and what surrounds it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ticks = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything but the files."""
        FakeRuntime.loaded, FakeRuntime.unloaded = [], []
        self.host = Host()
        self.listener = FakeListener()
        self.loaded, self.unloaded = FakeRuntime.loaded, FakeRuntime.unloaded
        self.calls: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.most_at_once = 0
        self._at_once = 0

    def write(self, path: str, content: object = "") -> Path:
        """Write a file; anything but text becomes JSON. Its time differs from all before it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        self._ticks += 1
        os.utime(file, ns=(self._ticks * 10**9, self._ticks * 10**9))
        return file

    def model(self, name: str, *versions: int, **content: object) -> None:
        """Write the model files of versions; they have an input X and an output Y."""
        told = {"inputs": {"X": "TYPE_FP32"}, "outputs": {"Y": "TYPE_FP32"}, **content}
        for version in versions or (1,):
            self.write(f"{name}/{version}/model.fake", told)

    def ensemble(self, name: str, *members: str) -> None:
        """Write an ensemble that sends X through the members one after another."""
        tensors = ["X", *(f"T{index}" for index in range(1, len(members))), "Y"]
        steps = [
            {
                "model_name": member,
                "input_map": {"X": tensors[index]},
                "output_map": {"Y": tensors[index + 1]},
            }
            for index, member in enumerate(members)
        ]
        tensor = {"data_type": "TYPE_FP32", "dims": [1]}
        config = {
            "platform": "ensemble",
            "input": [{"name": "X", **tensor}],
            "output": [{"name": "Y", **tensor}],
            "ensemble_scheduling": {"step": steps},
        }
        self.write(f"{name}/config.json", config)

    def repository(
        self, mode: ControlMode = ControlMode.EXPLICIT, *load_models: str, **options: Any
    ) -> Repository:
        """Make the repository, not yet opened."""
        return Repository(
            options.pop("sources", None) or [RepositorySource(self.root)],
            RepositoryOptions(
                control_mode=mode,
                load_models=load_models,
                load=LoadOptions(choose=choose_fake),
                **options,
            ),
            self.host,
            self.listener,
            self.run_blocking,
        )

    def ovms(self) -> OvmsSource:
        """The list of models in ``config.json``, as OVMS has it."""
        return OvmsSource(self.root / "config.json")

    async def run_blocking(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run on this thread, after the loop has turned once and a gate, if any, has opened."""
        title = function.__name__
        if function is bring_up:
            title = f"bring_up {arguments[0].name} v{arguments[1]}"
        self.calls.append(title)
        self._at_once += title.startswith("bring_up")
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(0)
            if title in self.gates:
                await self.gates[title].wait()
            return function(*arguments)
        finally:
            self._at_once -= title.startswith("bring_up")

    def gate(self, title: str) -> asyncio.Event:
        """Hold a call back until the event is set."""
        self.gates[title] = asyncio.Event()
        return self.gates[title]

    async def reach(self, title: str) -> None:
        """Let the loop turn until a call of this title has begun."""
        for _ in range(1000):
            if title in self.calls:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"nobody called {title}, only {self.calls}")


def lock(monkeypatch: pytest.MonkeyPatch, *directories: Path, may_list: bool = False) -> None:
    """Have nobody look into these: who runs the tests may be allowed everything."""

    def refusing(function: Callable[..., Any], is_locked: Callable[[str], bool]) -> Any:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int) and is_locked(os.fsdecode(path)):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return function(path, *arguments, **options)

        return call

    listed = set() if may_list else set(map(str, directories))
    below = tuple(f"{directory}/" for directory in directories)
    monkeypatch.setattr(os, "scandir", refusing(os.scandir, lambda path: path in listed))
    monkeypatch.setattr(os, "stat", refusing(os.stat, lambda path: path.startswith(below)))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, _T]], _T]:
    """Run a coroutine to its end on a loop of its own; what hangs fails."""

    def run_it(work: Coroutine[Any, Any, _T]) -> _T:
        async def limited() -> _T:
            async with asyncio.timeout(_LIMIT_S):
                return await work

        return asyncio.run(limited())

    return run_it
