"""What the annotations of a function tell of its inputs and outputs as tensors.

=============================================  ==================================================
annotation                                     tensor
=============================================  ==================================================
``Annotated[np.ndarray, "FP32[-1, 10]"]``      as written, like in ``inputs=``
``Annotated[NDArray[np.float32], (-1, 10)]``   the array's type with this shape
``np.ndarray[tuple[int, int], np.dtype[X]]``   of two dimensions of any size
``NDArray[np.float32]``                        of one dimension of any size; a batch of such rows
``bool``, ``int``, ``float``, ``np.float32``   one value: BOOL, INT64, FP64, FP32
``str``, ``bytes``                             one value: BYTES, in UTF-8 for ``str``
``Literal["fast", "exact"]``, an ``Enum``      one value, of the type of its values
``list[float]``, ``list[list[str]]``           of as many dimensions as there are lists
``dict``, a dataclass, ``int | str``, ...      one value: BYTES that hold JSON
=============================================  ==================================================

``X | None`` is what ``X`` is, for an input that may be left out. ``Annotated`` may say more of a
value than its type, as ``Annotated[float, pydantic.Field(ge=0)]`` does.

A result may be a tuple, of outputs ``output__0``, ``output__1``, ...; or a dataclass, NamedTuple,
TypedDict or model of pydantic's, of outputs that are called like its fields; anything else is one
output, ``output``. Of ``Iterator[X]`` and its kin every ``X`` is a response.
"""

import collections.abc
import dataclasses
import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import numpy as np

from modelport.dtypes import BOOL, BYTES, DATATYPE_BY_NUMPY, FP64, INT64, DataType
from modelport.signature import Form, Stream, TensorSignature, parse_tensor

__all__ = ["OUTPUT", "stream_of", "tensors_of"]

OUTPUT: Final = "output"
"""What an output is called that has no name of its own."""


def tensors_of(
    function: Callable[..., Any], *, without: frozenset[str], is_batching: bool
) -> tuple[tuple[TensorSignature, ...], tuple[TensorSignature, ...]]:
    """Read the inputs and outputs of a function from its annotations.

    Args:
        function: Whose arguments are the inputs; ``self`` does not count.
        without: Arguments that are no inputs.
        is_batching: Whether the first dimension of every tensor is the batch.

    Raises:
        ValueError: Naming the argument that has no annotation, or one that is no tensor.
    """
    hints = _hints(function)
    inputs = []
    for name, argument in inspect.signature(function).parameters.items():
        if name in without or argument.kind in _COLLECTING:
            continue
        if name not in hints:
            raise ValueError(
                f"argument '{name}' has no annotation; write one, such as "
                'x: Annotated[np.ndarray, "FP32[-1, 10]"], or declare inputs and outputs'
            )
        inputs.append(_tensor(name, _present(hints[name]), is_batching))
    if "return" not in hints:
        raise ValueError("its result has no annotation; write one, such as -> float")
    return tuple(inputs), _outputs(hints["return"], is_batching)


def stream_of(function: Callable[..., Any]) -> Stream | None:
    """Say whether the annotation of a function's result is that of a stream.

    Raises:
        ValueError: If its annotations cannot be read.
    """
    return _STREAMS.get(get_origin(_hints(function).get("return")))


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as exc:
        raise ValueError(f"its annotations cannot be read ({type(exc).__name__}: {exc})") from exc


def _outputs(hint: Any, is_batching: bool) -> tuple[TensorSignature, ...]:
    if get_origin(hint) in _STREAMS:
        hint = get_args(hint)[0]
    if hint is None or hint is type(None):
        raise ValueError("its result is None; a model gives at least one output")
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        if not parts or Ellipsis in parts:
            raise ValueError("its result is a tuple of any length; name each part, or give a list")
        return tuple(
            _tensor(f"output__{index}", part, is_batching) for index, part in enumerate(parts)
        )
    fields = _fields(hint)
    if fields:
        return tuple(_tensor(name, each, is_batching) for name, each in fields.items())
    return (_tensor(OUTPUT, hint, is_batching),)


def _fields(hint: Any) -> Mapping[str, Any]:
    """Names and annotations of the fields of a record; none of anything else."""
    # A model of pydantic's is told without importing pydantic, which takes its time.
    is_model = inspect.isclass(hint) and hasattr(hint, "__pydantic_fields__")
    is_record = inspect.isclass(hint) and (
        is_model
        or dataclasses.is_dataclass(hint)
        or typing.is_typeddict(hint)
        or (issubclass(hint, tuple) and hasattr(hint, "_fields"))
    )
    if not is_record:
        return {}
    hints = typing.get_type_hints(hint, include_extras=True)
    if dataclasses.is_dataclass(hint):
        return {field.name: hints[field.name] for field in dataclasses.fields(hint)}
    if is_model:
        return {name: hints[name] for name in hint.__pydantic_fields__}
    return {name: _without_marks(each) for name, each in hints.items()}


def _without_marks(hint: Any) -> Any:
    """What a key of a TypedDict is, if it is there."""
    while get_origin(hint) in (typing.Required, typing.NotRequired):
        (hint,) = get_args(hint)
    return hint


def _tensor(name: str, hint: Any, is_batching: bool) -> TensorSignature:
    shape: tuple[int, ...] | None = None
    whole, is_bound = hint, False
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            match note:
                case str() if _LOOKS_DECLARED.match(note):
                    declared = parse_tensor(name, note, is_batching)
                    return dataclasses.replace(
                        declared, form=_form_of(hint), is_text=_is_text(hint)
                    )
                case tuple() if all(isinstance(size, int) for size in note):
                    shape = note
                case _:
                    is_bound = True
    found = _array(name, hint) or _listed(hint) or _Found(BYTES, (1,), "json")
    if found.form == "json":
        annotation = None if hint in (Any, object) else whole
    else:
        annotation = whole if found.form != "array" and (is_bound or _is_choice(hint)) else None
    if shape is None:
        # Of an array without a shape every row has one dimension.
        is_open = is_batching and found.shape == (-1,)
        shape = (-1, -1) if is_open else found.shape
    if is_batching and found.form != "array":
        raise ValueError(
            f"'{name}' is no array, and with max_batch_size all inputs and outputs are batches; "
            "annotate it as one"
        )
    if is_batching and (len(shape) < 2 or shape[0] != -1):
        raise ValueError(
            f"'{name}' has the shape {list(shape)}; with max_batch_size its first dimension is "
            "the batch: write -1 and then at least one dimension of a row"
        )
    dims = shape[1:] if is_batching else shape
    return TensorSignature(
        name, found.datatype, dims, found.form, is_text=_is_text(hint), annotation=annotation
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    datatype: DataType
    shape: tuple[int, ...]
    form: Form


def _array(name: str, hint: Any) -> _Found | None:
    if hint is np.ndarray:
        raise ValueError(
            f"'{name}' is an array of anything; write Annotated[np.ndarray, \"FP32[-1, 10]\"] or "
            "NDArray[np.float32]"
        )
    if get_origin(hint) is not np.ndarray:
        return None
    shape, dtype = get_args(hint)
    (scalar,) = get_args(dtype) or (None,)
    datatype = _scalar(scalar)
    if datatype is None:
        raise ValueError(f"'{name}' is an array of {scalar}, which no datatype is for")
    sizes = get_args(shape)
    if get_origin(shape) is not tuple or not sizes or Ellipsis in sizes:
        return _Found(datatype, (-1,), "array")
    return _Found(datatype, tuple(_size(each) for each in sizes), "array")


def _size(hint: Any) -> int:
    return int(get_args(hint)[0]) if get_origin(hint) is Literal else -1


def _listed(hint: Any) -> _Found | None:
    """One value, or lists of values."""
    hint, depth = _element(hint)
    datatype = _scalar(hint)
    if datatype is None:
        return None
    return _Found(datatype, (-1,) * depth, "list") if depth else _Found(datatype, (1,), "value")


def _element(hint: Any) -> tuple[Any, int]:
    """What lists hold, and how many of them lie in one another."""
    depth = 0
    while get_origin(hint) in (list, collections.abc.Sequence):
        (hint,) = get_args(hint)
        depth += 1
    return hint, depth


def _is_choice(hint: Any) -> bool:
    return bool(_choices(_element(hint)[0]))


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values that a Literal or an Enum allows; none of anything else."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return tuple(each.value for each in hint)
    return ()


def _type_of_choices(hint: Any) -> Any:
    """The type that all of the values have which are allowed; else what was given."""
    kinds = {type(each) for each in _choices(hint)}
    return kinds.pop() if len(kinds) == 1 else hint


def _scalar(hint: Any) -> DataType | None:
    hint = _type_of_choices(hint)
    if not inspect.isclass(hint):
        return None
    if hint in _DATATYPE_BY_TYPE:
        return _DATATYPE_BY_TYPE[hint]
    is_number = issubclass(hint, np.generic) and hint not in (np.generic, np.number)
    return DATATYPE_BY_NUMPY.get(np.dtype(hint)) if is_number else None


def _form_of(hint: Any) -> Form:
    if hint is np.ndarray or get_origin(hint) is np.ndarray:
        return "array"
    found = _listed(hint)
    return "array" if found is None else found.form


def _is_text(hint: Any) -> bool:
    return _type_of_choices(_element(hint)[0]) is str


def _present(hint: Any) -> Any:
    """What an argument is when it is not None."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    return Union[tuple(each for each in get_args(hint) if each is not type(None))]  # noqa: UP007  # of as many as there are


_LOOKS_DECLARED: Final = re.compile(r"\s*\w+\s*\[")
_COLLECTING: Final = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_STREAMS: Final[Mapping[Any, Stream]] = {
    collections.abc.Iterator: "iterator",
    collections.abc.Iterable: "iterator",
    collections.abc.Generator: "iterator",
    collections.abc.AsyncIterator: "async iterator",
    collections.abc.AsyncIterable: "async iterator",
    collections.abc.AsyncGenerator: "async iterator",
}
_DATATYPE_BY_TYPE: Final[Mapping[Any, DataType]] = {
    bool: BOOL,
    int: INT64,
    float: FP64,
    str: BYTES,
    bytes: BYTES,
    np.str_: BYTES,
    np.bytes_: BYTES,
    np.object_: BYTES,
}
