"""What an annotation may say of arrays, tables and files beside their type."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["ContentType", "DType", "DataframeSchema", "Shape"]


class Shape:
    """The shape of an array; what is sent flat is brought into it.

    Args:
        dims: Sizes; -1 for at most one of any size.
    """

    def __init__(self, dims: Sequence[int] | int, *more: int) -> None:
        given = (dims, *more) if isinstance(dims, int) else tuple(dims)
        self.dims: tuple[int, ...] = given

    def __repr__(self) -> str:
        return f"Shape({self.dims})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and other.dims == self.dims

    def __hash__(self) -> int:
        return hash(self.dims)


@dataclass(frozen=True, slots=True)
class DType:
    """The type of an array's elements, by numpy's or torch's name: ``float32``."""

    dtype: str


@dataclass(frozen=True, slots=True)
class ContentType:
    """The media type of a file; ``audio/*`` is any of a kind."""

    content_type: str

    def accepts(self, given: str) -> bool:
        """Whether a file of this type will do.

        >>> ContentType("audio/wav").accepts("audio/x-wav; rate=16000")
        True
        """
        # What began as audio/x-wav was registered as audio/wav, and tables still say the former.
        plain = given.partition(";")[0].strip().lower().replace("/x-", "/")
        return fnmatchcase(plain, self.content_type.lower().replace("/x-", "/"))


@dataclass(frozen=True, slots=True)
class DataframeSchema:
    """How a table is written as JSON.

    Attributes:
        orient: ``records``, a list of rows, or ``columns``, an object of lists.
        columns: Their names; ``None`` for any.
    """

    orient: str = "records"
    columns: tuple[str, ...] | list[str] | None = None

    def __post_init__(self) -> None:
        if self.orient not in ("records", "columns"):
            raise ValueError(f"orient is '{self.orient}'; it has to be records or columns")
