"""The contract between the engine and what executes a batch.

A runtime is a class in a file of its own, which is the only one that imports its framework. One
object is one instance of one version of one model. Its five methods: ``complete`` says what the
model file tells of itself, ``load`` and ``unload`` bring it up and down, ``execute`` answers a
batch, ``is_ready`` tells whether it still can.

Runtimes of plain arrays need not write ``execute``: see :mod:`modelport.runtimes.arrays`. Every
runtime runs the shipped suite, :mod:`modelport.testing.runtime_suite`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from msgspec import Struct, field

from modelport.custom_metrics import Labels, Measure
from modelport.errors import ModelFailed, ModelportError
from modelport.messages import Request, Response, Sink, Ticket
from modelport.specs import ModelConfig

__all__ = [
    "Batch",
    "Gpus",
    "Host",
    "LoadContext",
    "ModelSource",
    "Outcome",
    "Question",
    "RemoteDone",
    "RemoteRuntime",
    "Runtime",
    "StoppableWork",
    "Work",
    "as_model_failure",
    "gpus_of",
    "text_of_failure",
]

Outcome = Response | ModelportError | None
"""What a request of a batch came to; ``None`` where it is answered through ``Work.send``."""


class Question(Struct, frozen=True, kw_only=True):
    """What a model asks about models.

    Attributes:
        verb: ``load``, ``unload`` or ``is_ready``.
        model: The one it is about.
        version: Decimal digits, or "" for the one that the server chooses; of ``is_ready``.
        config: JSON to load it with instead of its own configuration; ``None`` for its own.
        files: Contents by path, to load it with.
        unload_dependents: Whether members of an ensemble are unloaded with it.
    """

    verb: Literal["load", "unload", "is_ready"]
    model: str
    version: str = ""
    config: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    unload_dependents: bool = False


class Host(Protocol):
    """What a model may ask of the server that runs it. Safe to call from any thread."""

    def log(self, level: str, message: str, *, model: str) -> None:
        """Write a line to the server's log; ``level`` is error, warning, info or verbose."""
        ...

    def infer(self, model: str, version: str, request: Request, sink: Sink) -> Ticket:
        """Send a request to another model.

        Args:
            model: Its name.
            version: Decimal digits; "" for the one that the server chooses.
            request: Belongs to the host from here on.
            sink: Called on a thread of the host's, which it must not hold up; also told if the
                request is refused.
        """
        ...

    def ask(self, question: Question, done: Callable[[bool | ModelportError], object]) -> None:
        """Answer a question, later, on a thread of the host's: ``True``, ``False``, or why not."""
        ...

    def may_wait(self, *, model: str) -> bool:
        """Whether the calling thread may wait for an answer; not if everybody would wait with it.

        A model that gets a no runs elsewhere from then on, if its configuration allows.
        """
        ...

    def measure(self, measure: Measure) -> None:
        """Count what a model has measured.

        Raises:
            InvalidRequest: A name or a value that cannot be.
            Conflict: The name means something else already.
        """
        ...

    def measured(self, family: str, labels: Labels) -> float:
        """What a metric of a model stands at."""
        ...


class Work(Protocol):
    """One request, as the instance that answers it sees it.

    Where the configuration has a ``reshape``, inputs come in the model's own shapes, and outputs
    are given in them: the engine changes them on both ways.
    """

    request: Request
    rows: int

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        ...

    def send(self, response: Response | ModelportError | None, *, final: bool) -> None:
        """Give one response, from any thread. ``None`` with ``final`` ends the stream.

        Blocks a plain thread while the caller does not read fast enough. On a thread that runs an
        event loop, where blocking would hold up all the others, it raises in the end: await
        ``drained`` there.

        Raises:
            ModelFailed: If the stream has ended already.
            Cancelled: If nobody waits any more, or the caller has not read for too long.
        """
        ...

    async def drained(self) -> None:
        """Wait until the caller has read enough to take more; for async producers."""
        ...

    def reschedule(self) -> None:
        """Have the request executed once more, after this execution, which gives no outcome for it.

        Called before ``execute`` is over, from the thread that it runs on.

        Raises:
            ModelFailed: If the model's configuration has no ``iterative_sequence``.
        """
        ...


class StoppableWork(Work, Protocol):
    """A work whose model runs in the server's own process and can end what it has begun.

    Attributes:
        on_stop: Called once, on the server's loop, when nobody waits for the answer any more while
            the model is still at it.
    """

    on_stop: Callable[[], object] | None

    def offer(self, response: Response) -> bool:
        """Give one response from a thread that runs no event loop, without waiting.

        Returns:
            Whether the next one may come at once; if not, await ``drained`` first.

        Raises:
            ModelFailed: If the stream has ended already.
            Cancelled: If nobody waits any more.
        """
        ...


class Batch(Struct, eq=False):
    """What an instance executes at once.

    Attributes:
        works: At least one; the order is theirs in the queue.
        rows: Rows of all of them together; the number of works for a model without batching.
        inputs_ready_ns: When the runtime began to compute, by ``time.perf_counter_ns``; 0 if it
            does not tell.
        computed_ns: When the runtime had computed; 0 if it does not tell.
    """

    works: Sequence[Work]
    rows: int
    inputs_ready_ns: int = 0
    computed_ns: int = 0


class ModelSource(Struct, frozen=True, kw_only=True):
    """Where a version of a model lies.

    Attributes:
        name: Of the model.
        directory: Of the model: configuration, labels and versions lie here.
        version_directory: Of this version.
        version: A positive integer.
        allow_pickle: Whether the operator lets model files run code while they are read.
        attribute: ``object`` of a ``module:object`` target; "" for none.
        default_max_batch_size: What a model that can batch gets where its configuration is silent.
    """

    name: str
    directory: Path
    version_directory: Path
    version: int
    allow_pickle: bool = False
    attribute: str = ""
    default_max_batch_size: int = 4

    def file(self, config: ModelConfig, default: str) -> Path:
        """The model file: as configured, or by the runtime's usual name."""
        return self.version_directory / (config.default_model_filename or default)


class LoadContext(Struct, frozen=True, kw_only=True):
    """All that an instance needs to come up.

    Attributes:
        source: Where the model lies.
        config: Complete and checked.
        config_json: The same in Triton's JSON form, for models that want to read it.
        instance_name: ``<model>_<group>_<index>``.
        kind: ``CPU``, ``GPU`` or ``MODEL``, which leaves the device to the model.
        device_id: Of the GPU; 0 on a CPU.
        host: What the model may ask of us.
        hang_timeout_s: How long a process that it runs in may not be heard of before it is killed,
            in seconds; 0 for ever. Of no concern to what runs in this one.
    """

    source: ModelSource
    config: ModelConfig
    config_json: str
    instance_name: str
    host: Host
    kind: str = "CPU"
    device_id: int = 0
    hang_timeout_s: float = 0.0


class Gpus(Struct, frozen=True, kw_only=True):
    """What a runtime can use of this machine beside its CPU.

    Attributes:
        count: How many; they are numbered from 0.
        are_preferred: Whether a model goes there that says nothing of devices.
        why_none: What to tell whoever asks for one where there is none.
    """

    count: int = 0
    are_preferred: bool = False
    why_none: str = "this backend executes on the CPU alone"


class Runtime(Protocol):
    """One instance of one model.

    A runtime that can use GPUs has a class method ``gpus() -> Gpus`` as well, and loads to the
    ``device_id`` of its context where the ``kind`` there is GPU.

    ``load``, ``execute`` and ``unload`` are called one after another, never two at once on one
    object, and not always on the same thread.
    """

    default_filename: ClassVar[str]
    """What the model file is called where the configuration does not say.

    A runtime whose model may wait for other models has an attribute ``may_wait`` that is true: it
    is never run on the event loop, unless its configuration says so.
    """

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Say what the model file tells of inputs, outputs and batching.

        Returns:
            A configuration with what was found; nothing of ``config`` needs to be repeated. The
            caller merges, and refuses contradictions.

        Raises:
            LoadFailed: If the file cannot be read.
        """
        ...

    def load(self, context: LoadContext) -> None:
        """Bring the instance up. May take long; runs on a thread of its own.

        Raises:
            LoadFailed: With a text for the operator.
        """
        ...

    def execute(
        self, batch: Batch
    ) -> Sequence[Outcome] | Awaitable[Sequence[Outcome] | None] | None:
        """Answer a batch.

        Returns:
            One outcome per work in their order; ``None`` where all answer through ``send``. An
            awaitable runs on a loop that outlives the call, and others may be started beside it.

        Raises:
            ModelportError: The whole batch failed. Any other exception is taken for the model's
                own, and its type and text are told to the caller.
        """
        ...

    def is_ready(self) -> bool:
        """Whether the instance can still answer."""
        ...

    def unload(self) -> None:
        """Give everything back."""
        ...


RemoteDone = Callable[
    [Batch, tuple[int, int, int, int], Sequence[Outcome] | None, Exception | None], None
]
"""Told how a batch went: when it began, had its inputs, had computed and ended, by
``time.perf_counter_ns``; and its outcomes, or what failed it as a whole."""


class RemoteRuntime(ABC):
    """A :class:`Runtime` whose model runs elsewhere, so that nothing here waits for it.

    Once attached it is used on the event loop only, but for ``unload``. It takes several batches at
    once, which it answers in any order, and it may come and go.
    """

    default_filename: ClassVar[str]

    capacity: int
    """Batches that it takes now, beside one another; 0 while it is down."""
    failure: str
    """Why it is down for longer than a moment; "" if it is not."""
    restarts: int
    """How often it had to be started again."""
    is_shared: ClassVar[bool] = False
    """Whether its process does other things as well, and is told of elsewhere."""

    @classmethod
    @abstractmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """See :class:`Runtime`."""

    @abstractmethod
    def load(self, context: LoadContext) -> None:
        """See :class:`Runtime`."""

    @abstractmethod
    def attach(self, changed: Callable[[], object]) -> None:
        """Live on the running loop; ``changed`` is called when ``capacity`` or ``failure`` has."""

    @abstractmethod
    def start(self, batch: Batch, done: RemoteDone) -> None:
        """Have a batch executed, of which there are less than ``capacity`` under way."""

    async def execute(self, batch: Batch) -> Sequence[Outcome] | None:
        """See :class:`Runtime`; ``start`` for those who have nobody to call."""
        future: asyncio.Future[Sequence[Outcome] | None] = (
            asyncio.get_running_loop().create_future()
        )

        def done(
            _batch: Batch,
            _times: tuple[int, int, int, int],
            outcomes: Sequence[Outcome] | None,
            error: Exception | None,
        ) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(outcomes)

        self.start(batch, done)
        return await future

    @abstractmethod
    def cancel(self, work: Work) -> None:
        """Tell the model that nobody waits for a request any more."""

    @abstractmethod
    def is_ready(self) -> bool:
        """See :class:`Runtime`."""

    @abstractmethod
    def is_live(self) -> bool:
        """Whether it does not hang."""

    @abstractmethod
    def resident_bytes(self) -> int:
        """Memory that it takes elsewhere, in RAM; 0 if that is not known."""

    @abstractmethod
    def unload(self) -> None:
        """See :class:`Runtime`."""


def gpus_of(runtime: type[Runtime]) -> Gpus:
    """Ask a runtime what it can use of this machine's GPUs."""
    gpus: Callable[[], Gpus] = getattr(runtime, "gpus", Gpus)
    return gpus()


def as_model_failure(exc: Exception) -> ModelportError:
    """Take an exception for the model's own, unless it is already one of ours.

    Type and text are the model author's to show; a traceback holds paths and is not, and of a
    path in an ``OSError`` only the last part is shown.
    """
    if isinstance(exc, ModelportError):
        return exc
    text = text_of_failure(exc)
    return ModelFailed(f"{type(exc).__name__}: {text}" if text else type(exc).__name__)


def text_of_failure(exc: BaseException) -> str:
    """What an exception of a model says, without the path that an ``OSError`` has.

    Also of one that cannot say it: whoever waits for an answer is told at least that it failed.
    """
    try:
        if isinstance(exc, OSError) and exc.filename is not None:
            name = str(exc.filename).replace("\\", "/").rpartition("/")[2]
            return f"{exc.strerror}: '{name}'"
        return str(exc)
    except BaseException:
        return "its text could not be made"
