"""Values of annotated types, made of what a request holds: pydantic knows how.

It is imported for the models that need it, because that takes a tenth of a second.
"""

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

from modelport.errors import InvalidRequest, LoadFailed
from modelport.signature import TensorSignature

__all__ = ["Reader", "check_readable", "reader_of"]

Reader = Callable[[Any], Any]
_MOST_TOLD = 3


def check_readable(
    model: str, inputs: Sequence[TensorSignature], outputs: Sequence[TensorSignature]
) -> None:
    """Refuse types that nothing can be read as, or that no JSON can be made of.

    Raises:
        LoadFailed: Naming the argument or the output.
    """
    for tensor in inputs:
        if tensor.annotation is not None and _adapter(tensor.annotation) is None:
            raise _unreadable(f"argument '{tensor.name}'", model, tensor.annotation)
    for tensor in outputs:
        # Results may hold what JSON can be made of and nothing can be read from: arrays, say.
        hint = tensor.annotation
        if tensor.form == "json" and inspect.isclass(hint) and _adapter(hint) is None:
            raise _unreadable(f"output '{tensor.name}'", model, hint)


def reader_of(tensor: TensorSignature) -> Reader | None:
    """What makes a value as annotated of the text of JSON, or of a plain value.

    The reader raises InvalidRequest for what does not fit. ``None`` where the plain value will do.
    """
    if tensor.annotation is None:
        return None
    adapter = _adapter(tensor.annotation)
    assert adapter is not None, tensor
    read: Reader = adapter.validate_json if tensor.form == "json" else adapter.validate_python
    return lambda value: _read(tensor.name, read, value)


def _read(name: str, read: Reader, value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return read(value)
    except ValidationError as exc:
        raise InvalidRequest(f"input '{name}' does not fit: {_told(exc)}") from exc


def _told(exc: Any) -> str:
    """What is wrong, and where in the value."""
    found = exc.errors(include_url=False, include_context=False, include_input=False)
    told = []
    for each in found[:_MOST_TOLD]:
        where = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in each["loc"])
        told.append(f"at ${where}: {each['msg']}" if where else each["msg"])
    more = len(found) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def _adapter(annotation: Any) -> Any:
    """What reads values of a type; ``None`` if nothing can."""
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        return None
    except PydanticUserError as exc:
        if exc.code != "typed-dict-version":
            return None
    # Before Python 3.12 pydantic cannot look into a TypedDict of ``typing``.
    return TypeAdapter(dict[str, Any] if typing.is_typeddict(annotation) else Any)


def _unreadable(what: str, model: str, annotation: Any) -> LoadFailed:
    shown = annotation.__name__ if inspect.isclass(annotation) else annotation
    return LoadFailed(
        f"{what} of model '{model}' is annotated as {shown}, which is no tensor and cannot be read "
        "from JSON; annotate it as an array, a number, text, a list, a dict, a dataclass or a "
        "model of pydantic's (a service, @modelport.service, takes images and files, too)"
    )
