"""What V1 asks of the engine."""

from typing import Protocol

from modelport.protocols.v2 import ports

__all__ = ["EnginePort"]


class EnginePort(ports.EnginePort, Protocol):
    """The whole, and that it can look for changed files."""

    async def refresh(self) -> bool:
        """Load what has changed on disk; gives whether anything had."""
        ...
