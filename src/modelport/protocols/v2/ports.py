"""What the V2 protocols ask of the engine; the engine fits it without knowing it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from modelport.messages import Request, Sink, Ticket
from modelport.specs import ModelConfig
from modelport.stats import ModelStatistics

__all__ = ["DeploymentPort", "EnginePort", "IndexRow"]


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

    def is_ready(self, *, strict: bool) -> bool:
        """Whether what should be served is; not strictly, whether requests are taken at all."""
        ...
