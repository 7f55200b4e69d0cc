"""Where tensors lie, which changes nothing here, and what a request is traced by."""

import enum

__all__ = ["InferenceTrace", "MemoryType", "PreferredMemory"]


class MemoryType(enum.IntEnum):
    """Kinds of memory."""

    TRITONSERVER_MEMORY_GPU = 0
    TRITONSERVER_MEMORY_CPU = 1


class PreferredMemory:
    """Where a model would like outputs to lie; they always lie in main memory here."""

    __slots__ = ("_device_id", "_memory_type")

    def __init__(
        self,
        preferred_memory_type: MemoryType = MemoryType.TRITONSERVER_MEMORY_CPU,
        preferred_device_id: int = 0,
    ) -> None:
        self._memory_type = preferred_memory_type
        self._device_id = preferred_device_id


class InferenceTrace:
    """The trace of a request, if it has one; a request of the model's own is traced as its child.

    Args:
        id: Of the trace; "" for none.
    """

    __slots__ = ("_id",)

    def __init__(self, id: str = "") -> None:
        self._id = id

    def get_context(self) -> str | None:
        """What OpenTelemetry goes on from; ``None``, because traces are Triton's own here."""
        return None
