"""Methods of a client that look as those of the service do."""

import keyword
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.wire.bentoml import MISSING, EndpointSchema

if TYPE_CHECKING:
    import inspect

__all__ = ["method"]


def method(
    endpoint: EndpointSchema,
    call: Callable[[EndpointSchema, Sequence[Any], Mapping[str, Any]], Any],
    verbs: Mapping[str, Callable[..., Any]],
) -> Callable[..., Any]:
    """Make the method of an endpoint: what calling it does, and what hangs on it.

    Args:
        endpoint: What is called.
        call: Calls it, with the arguments by position and by name.
        verbs: Of a task: what becomes attributes of the method.
    """

    def called(*args: Any, **kwargs: Any) -> Any:
        return call(endpoint, args, kwargs)

    called.__name__ = method.__qualname__ = endpoint.name
    called.__doc__ = endpoint.doc or f"Call {endpoint.route}."
    called.__signature__ = _signature(endpoint)  # type: ignore[attr-defined]
    for name, verb in verbs.items():
        setattr(called, name, verb)
    return called


def _signature(endpoint: EndpointSchema) -> "inspect.Signature":
    import inspect

    kinds = inspect.Parameter
    kind = kinds.POSITIONAL_ONLY if endpoint.is_root else kinds.POSITIONAL_OR_KEYWORD
    parameters = []
    for parameter in endpoint.parameters.values():
        name = parameter.name
        if not name.isidentifier() or keyword.iskeyword(name):
            continue
        default = inspect.Parameter.empty if parameter.default is MISSING else parameter.default
        annotation = _annotation(parameter.schema)
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    # Those without a default first, as the language wants it.
    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    if endpoint.takes_more:
        parameters.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters, return_annotation=_annotation(endpoint.output))


def _annotation(schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if kind == "string" and schema.get("format") == "binary":
        return bytes
    if kind == "file":
        return "PIL.Image.Image" if schema.get("pil") else Path
    known: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": float,
        "boolean": bool,
        "array": list,
        "object": dict,
        "null": None,
        "tensor": "numpy.ndarray",
        "dataframe": "pandas.DataFrame",
    }
    return known.get(kind, Any) if isinstance(kind, str) else Any
