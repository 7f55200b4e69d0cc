"""What the V2 protocols ask of the engine; the engine fits it without knowing it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from modelport.messages import Request, Sink, Ticket
from modelport.protocols.base import Buffer
from modelport.specs import ModelConfig
from modelport.stats import ModelStatistics

__all__ = [
    "DeploymentPort",
    "EnginePort",
    "HoldPort",
    "IndexRow",
    "LogsPort",
    "RegionsPort",
    "TracesPort",
]


class DeploymentPort(Protocol):
    """One version that takes requests."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> int:
        """A positive integer."""
        ...

    @property
    def config(self) -> ModelConfig:
        """Complete."""
        ...

    @property
    def config_json(self) -> str:
        """The same in Triton's JSON form."""
        ...

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """Class labels by output."""
        ...

    @property
    def statistics(self) -> ModelStatistics:
        """What it has done."""
        ...

    @property
    def memo(self) -> dict[str, Any]:
        """Free for protocols to keep what follows from the configuration alone."""
        ...

    @property
    def is_decoupled(self) -> bool:
        """Whether a request may have no response, or many."""
        ...

    def is_ready(self) -> bool:
        """Whether it can still answer."""
        ...

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Take a request, or raise."""
        ...


class IndexRow(Protocol):
    """One line of the repository's index."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> str | None:
        """``None`` for a model that was never loaded."""
        ...

    @property
    def state(self) -> str | None:
        """READY, LOADING, UNLOADING, UNAVAILABLE or UNKNOWN; ``None`` as above."""
        ...

    @property
    def reason(self) -> str | None:
        """Why it is in this state, where there is something to say."""
        ...


class EnginePort(Protocol):
    """The whole."""

    def resolve(self, model: str, version: str | None) -> DeploymentPort:
        """Give the version asked for, or the highest ready one.

        Raises:
            InvalidRequest: If ``version`` is no version at all.
            NotFound: If there is no such model or version.
            Unavailable: If there is and it is not ready.
        """
        ...

    def deployments(self, model: str | None = None) -> Sequence[DeploymentPort]:
        """All that are ready, or those of one model."""
        ...

    def index(self) -> Sequence[IndexRow]:
        """All models and versions that are known, by name and version."""
        ...

    async def load(
        self, model: str, *, config: str | None, files: Mapping[str, bytes] | None
    ) -> None:
        """Load a model, or load it again."""
        ...

    async def unload(self, model: str, *, unload_dependents: bool) -> None:
        """Take a model out of service; what is in flight finishes."""
        ...

    @property
    def is_exiting(self) -> bool:
        """Whether no new requests are taken because the process is going down."""
        ...

    def is_live(self) -> bool:
        """Whether the server can answer at all, and no part of it hangs."""
        ...

    def is_ready(self, *, strict: bool) -> bool:
        """Whether what should be served is; not strictly, whether requests are taken at all."""
        ...


class HoldPort(Protocol):
    """Some regions of shared memory, for as long as one request needs them."""

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """Copy a part of a region; read-only."""
        ...

    def write(self, name: str, offset: int, byte_size: int, data: Buffer) -> None:
        """Copy data to the beginning of a part of a region."""
        ...

    def check(self, name: str, offset: int, byte_size: int) -> None:
        """Refuse a part of a region that is not inside it."""
        ...

    def release(self) -> None:
        """Need them no longer. Idempotent."""
        ...


class RegionsPort(Protocol):
    """Regions of shared memory that clients have registered."""

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make a part of an object of shared memory known by a name."""
        ...

    def unregister(self, name: str | None = None) -> None:
        """Forget a region, known or not, or all."""
        ...

    def status(self, name: str | None = None) -> list[dict[str, str | int]]:
        """Say what is registered, or what one region is."""
        ...

    def hold(self, names: Iterable[str]) -> HoldPort:
        """Keep some regions for a request, until its ``release``."""
        ...


class LogsPort(Protocol):
    """The log of the server."""

    def settings(self) -> Mapping[str, bool | int | str]:
        """Say what is logged, where to and how."""
        ...

    def change(self, changes: Mapping[str, bool | int | str]) -> None:
        """Log otherwise from now on."""
        ...


class TracesPort(Protocol):
    """What is traced."""

    def settings(self, model: str | None = None) -> Mapping[str, str | list[str]]:
        """Say what is traced, of all models or of one."""
        ...

    def change(self, model: str | None, changes: Mapping[str, Sequence[str] | None]) -> None:
        """Trace otherwise from now on."""
        ...
