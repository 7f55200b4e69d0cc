"""How a Triton Python model says that something went wrong, and how that reaches the caller."""

from typing import ClassVar

from modelport.errors import Kind

__all__ = ["KIND_BY_CODE", "TritonError", "TritonModelException"]


class TritonModelException(Exception):
    """What the functions of this backend raise, and models may raise."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def message(self) -> str:
        """The text."""
        return str(self)


class TritonError:
    """An error as an answer: given to ``InferenceResponse``, not raised.

    Args:
        message: For the caller.
        code: One of the class's codes.
    """

    UNKNOWN: ClassVar[int] = 0
    INTERNAL: ClassVar[int] = 1
    NOT_FOUND: ClassVar[int] = 2
    INVALID_ARG: ClassVar[int] = 3
    UNAVAILABLE: ClassVar[int] = 4
    UNSUPPORTED: ClassVar[int] = 5
    ALREADY_EXISTS: ClassVar[int] = 6
    CANCELLED: ClassVar[int] = 7

    __slots__ = ("_code", "_message")

    def __init__(self, message: str | bytes, code: int = INTERNAL) -> None:
        if code not in KIND_BY_CODE:
            raise TritonModelException(
                f"TritonError has no code {code!r}; use TritonError.INTERNAL"
            )
        self._message = message.decode(errors="replace") if isinstance(message, bytes) else message
        self._code = code

    def message(self) -> str:
        """The text."""
        return self._message

    def code(self) -> int:
        """One of the class's codes."""
        return self._code

    def __str__(self) -> str:
        return self._message


KIND_BY_CODE = {
    TritonError.UNKNOWN: Kind.UNKNOWN,
    TritonError.INTERNAL: Kind.MODEL_FAILED,
    TritonError.NOT_FOUND: Kind.NOT_FOUND,
    TritonError.INVALID_ARG: Kind.INVALID,
    TritonError.UNAVAILABLE: Kind.UNAVAILABLE,
    TritonError.UNSUPPORTED: Kind.UNSUPPORTED,
    TritonError.ALREADY_EXISTS: Kind.CONFLICT,
    TritonError.CANCELLED: Kind.CANCELLED,
}
