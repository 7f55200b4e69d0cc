"""Where tensors lie, and what a request is traced by: Triton's words, which change nothing here."""

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
    """What ties the log lines of a request together."""

    __slots__ = ("_context",)

    def __init__(self, context: str = "") -> None:
        self._context = context

    def get_context(self) -> str:
        """The trace's id; "" for none."""
        return self._context
