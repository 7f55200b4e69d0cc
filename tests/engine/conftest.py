"""An engine under test: time by hand, models written as functions, sinks that remember.

The loop's time is a ``ManualClock``: a timer rings as soon as nothing else can happen, so that
seconds pass in no time. What waits for a thread waits for real, and is given up after 10 s.
"""

import asyncio
import inspect
import selectors
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest

from modelport.dtypes import FP32
from modelport.engine.deployment import Deployment
from modelport.engine.executor import Completions
from modelport.engine.options import EngineOptions
from modelport.errors import ModelportError
from modelport.messages import Request, Response, Tensors
from modelport.repository.loading import ModelVersion
from modelport.runtimes.base import Batch, LoadContext, ModelSource, Outcome, Work
from modelport.specs import (
    DynamicBatching,
    Execution,
    ModelConfig,
    ModelInput,
    ModelOutput,
    QueuePolicy,
    TransactionPolicy,
)
from modelport.tensors import Tensor
from modelport.testing.clock import ManualClock

_T = TypeVar("_T")
_LIMIT_S = 10.0

Execute = Callable[[Batch], "Sequence[Outcome] | Awaitable[Sequence[Outcome] | None] | None"]


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for no timer, but moves the clock to it.

    Attributes:
        patience_s: How long threads may take before a timer rings, where a test is about both.
    """

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.patience_s = 0.0
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(_LIMIT_S)
        ready = super().select(min(timeout, self.patience_s))
        if not ready and timeout > 0:
            # Rounded up: a timer that rings a moment early would be set anew.
            self._clock.advance(timeout + 1e-9)
        return ready


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop that lives by a manual clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.complaints: list[dict[str, Any]] = []
        self.selector = _JumpingSelector(clock)
        super().__init__(self.selector)
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self) -> float:
        return self.clock.now_ns() / 1e9


class FakeSink:
    """Remembers what it heard, and complains if it hears anything after the end.

    Attributes:
        welcome: What ``push`` answers; set it to ``False`` to stop reading.
        on_end: Called when the end is heard.
    """

    def __init__(self, name: str = "", log: list[str] | None = None) -> None:
        self.name = name
        self.heard: list[Response] = []
        self.error: ModelportError | None = None
        self.is_over = False
        self.over = asyncio.Event()
        self.something = asyncio.Event()
        self.welcome = True
        self.on_end: Callable[[], None] = lambda: None
        self._log = log

    def push(self, response: Response, final: bool) -> bool:
        assert not self.is_over, "pushed after the end"
        self.heard.append(response)
        self.something.set()
        if final:
            self._finish()
        return self.welcome

    def end(self) -> None:
        assert not self.is_over, "ended twice"
        self._finish()

    def fail(self, error: ModelportError) -> None:
        assert not self.is_over, "failed after the end"
        self.error = error
        self._finish()

    def _finish(self) -> None:
        self.is_over = True
        if self._log is not None:
            self._log.append(self.name)
        self.over.set()
        self.something.set()
        self.on_end()

    @property
    def values(self) -> list[list[float]]:
        """The first output of each response, flat."""
        return [response.outputs[0].array.ravel().tolist() for response in self.heard]

    async def error_text(self) -> str:
        await self.over.wait()
        assert self.error is not None, f"heard {self.heard}"
        return str(self.error)


@dataclass(eq=False)
class FakeRuntime:
    """An instance whose ``execute`` is a function; remembers its batches."""

    default_filename: ClassVar[str] = "model.fake"
    run: Execute
    batches: list[list[float]] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    is_up: bool = True
    executing: int = 0
    is_unloaded: bool = False

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        return config

    def load(self, context: LoadContext) -> None:
        pass

    def execute(
        self, batch: Batch
    ) -> Sequence[Outcome] | Awaitable[Sequence[Outcome] | None] | None:
        assert not self.is_unloaded, "executes after it was unloaded"
        self.batches.append([first_of(work) for work in batch.works])
        self.threads.append(threading.current_thread().name)
        self.executing += 1
        try:
            outcomes = self.run(batch)
            if inspect.isawaitable(outcomes):
                return self._awaited(outcomes)
            return outcomes
        finally:
            self.executing -= 1

    async def _awaited(
        self, running: Awaitable[Sequence[Outcome] | None]
    ) -> Sequence[Outcome] | None:
        self.executing += 1
        try:
            return await running
        finally:
            self.executing -= 1

    def is_ready(self) -> bool:
        return self.is_up

    def unload(self) -> None:
        assert not self.executing, "unloaded while it executes"
        self.is_unloaded = True


def first_of(work: Work) -> float:
    """What a request is known by in these tests: the first number of its first input."""
    tensors = work.request.payload.tensors
    return float(tensors[0].array.flat[0]) if tensors and tensors[0].array.size else -1.0


def answer(work: Work, times: float = 1.0) -> Response:
    """The response of a model that multiplies ``x`` into ``y``."""
    array = work.request.payload.tensors[0].array * np.float32(times)
    return Response([Tensor("y", FP32, array)])


def doubling(batch: Batch) -> Sequence[Outcome]:
    """The usual model."""
    return [answer(work, 2.0) for work in batch.works]


class Gate:
    """A model that stops in ``execute`` until it is let go, once for each batch."""

    def __init__(self, run: Execute = doubling) -> None:
        self._run = run
        self.entered = threading.Semaphore(0)
        self._open = threading.Semaphore(0)
        self._is_open_for_ever = False

    def __call__(
        self, batch: Batch
    ) -> Sequence[Outcome] | Awaitable[Sequence[Outcome] | None] | None:
        self.entered.release()
        if not self._is_open_for_ever:
            assert self._open.acquire(timeout=_LIMIT_S), "never let go"
        return self._run(batch)

    def let_go(self, count: int = 1) -> None:
        self._open.release(count)

    def open(self) -> None:
        self._is_open_for_ever = True
        self._open.release(1000)

    async def reached(self) -> None:
        """Wait until a batch has come."""
        while not self.entered.acquire(blocking=False):
            await a_moment()


class Later:
    """An asynchronous model that answers a request when it is told to."""

    def __init__(self) -> None:
        self.waiting: dict[float, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self.most_at_once = 0

    def __call__(self, batch: Batch) -> Awaitable[Sequence[Outcome]]:
        return self._outcomes(batch)

    async def _outcomes(self, batch: Batch) -> Sequence[Outcome]:
        value = first_of(batch.works[0])
        event = asyncio.Event()
        self.waiting[value] = (asyncio.get_running_loop(), event)
        self.most_at_once = max(self.most_at_once, len(self.waiting))
        await event.wait()
        del self.waiting[value]
        if value < 0:
            raise ValueError("negative")
        return doubling(batch)

    def finish(self, value: float) -> None:
        loop, event = self.waiting[value]
        loop.call_soon_threadsafe(event.set)


async def a_moment() -> None:
    """Let the loop, and other threads, do what they can; no time passes on the clock."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Timer(0.0002, lambda: loop.call_soon_threadsafe(event.set)).start()
    await event.wait()


async def until(fact: Callable[[], bool]) -> None:
    """Wait for something that a thread brings about."""
    while not fact():
        await a_moment()


def config_of(
    *,
    max_batch_size: int = 8,
    dims: tuple[int, ...] = (1,),
    decoupled: bool = False,
    dynamic: DynamicBatching | None = None,
    name: str = "tried",
    **more: Any,
) -> ModelConfig:
    """A model with one input ``x`` and one output ``y``."""
    return ModelConfig(
        name=name,
        max_batch_size=max_batch_size,
        input=(ModelInput(name="x", data_type="TYPE_FP32", dims=dims),),
        output=(ModelOutput(name="y", data_type="TYPE_FP32", dims=dims),),
        dynamic_batching=dynamic,
        model_transaction_policy=TransactionPolicy(decoupled=True) if decoupled else None,
        **more,
    )


def batching(
    *,
    delay_us: int = 0,
    preferred: tuple[int, ...] = (),
    ordered: bool = False,
    **queue: Any,
) -> DynamicBatching:
    return DynamicBatching(
        max_queue_delay_microseconds=delay_us,
        preferred_batch_size=preferred,
        preserve_ordering=ordered,
        default_queue_policy=QueuePolicy(**queue) if queue else None,
    )


def request(value: float = 0.0, rows: int = 1, **attributes: Any) -> Request:
    """A request that is known by its value."""
    array = np.full((rows, 1), value, np.float32)
    made = Request(Tensors([Tensor("x", FP32, array)]), id=str(value))
    for name, attribute in attributes.items():
        setattr(made, name, attribute)
    return made


class Bench:
    """Deployments under test, on one loop with one clock."""

    def __init__(self) -> None:
        self.clock = ManualClock(10**9)
        self.loop = ManualLoop(self.clock)
        self.ends: list[str] = []
        self._deployments: list[Deployment] = []
        self._completions: Completions | None = None

    @property
    def completions(self) -> Completions:
        if self._completions is None:
            self._completions = Completions(asyncio.get_running_loop())
        return self._completions

    def version(
        self, *runs: Execute, config: ModelConfig | None = None, version: int = 1
    ) -> ModelVersion:
        config = config or config_of()
        instances = [FakeRuntime(run) for run in runs]
        return ModelVersion(
            config.name,
            version,
            config,
            "{}",
            {},
            list(instances),
            [f"{config.name}_{index}" for index in range(len(instances))],
        )

    def deploy(
        self,
        *runs: Execute,
        config: ModelConfig | None = None,
        execution: Execution = "thread",
        max_queue_size: int = 100,
    ) -> tuple[Deployment, list[FakeRuntime]]:
        """Serve a model with one instance for each function."""
        version = self.version(*(runs or (doubling,)), config=config)
        runtimes: list[Any] = list(version.instances)
        options = EngineOptions(execution=execution, max_queue_size=max_queue_size)
        deployment = Deployment(
            version, options=options, completions=self.completions, clock=self.clock
        )
        self._deployments.append(deployment)
        return deployment, runtimes

    def closes(self, deployment: Deployment) -> None:
        """Close it when the test is over."""
        self._deployments.append(deployment)

    def sink(self, name: object = "") -> FakeSink:
        return FakeSink(str(name), self.ends)

    def submit(
        self, deployment: Any, value: float = 0.0, rows: int = 1, **attributes: Any
    ) -> tuple[FakeSink, Any]:
        """Send a request that is known by its value; gives its sink and its ticket."""
        sink = self.sink(value)
        made = request(value, rows, **attributes)
        made.received_ns = self.clock.now_ns()
        return sink, deployment.submit(made, sink)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run to the end; what hangs fails, and so does what the loop complains about."""
        main = self.loop.create_task(self._closing(work))
        guard = threading.Timer(_LIMIT_S, self._give_up, (main,))
        guard.daemon = True
        guard.start()
        asyncio.set_event_loop(self.loop)
        try:
            return self.loop.run_until_complete(main)
        finally:
            guard.cancel()
            asyncio.set_event_loop(None)
            assert self.loop.complaints == []

    async def _closing(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            return await work
        finally:
            for deployment in self._deployments:
                deployment.close()
                await deployment.wait_closed()

    def _give_up(self, main: "asyncio.Task[Any]") -> None:
        self.loop.call_soon_threadsafe(main.cancel, "the test hangs")


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.loop.close()


def sinks_are_over(sinks: Sequence[FakeSink]) -> bool:
    return all(sink.is_over for sink in sinks)
