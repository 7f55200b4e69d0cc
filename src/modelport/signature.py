"""What a Python function or class declares of itself, so that it can be served as a model.

Plain data: nothing here knows how models are run. The declaration is kept on the object that was
decorated, which stays what it was and can be called and tested as before.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from modelport.dtypes import DATATYPE_BY_CONFIG_NAME, DATATYPE_BY_NAME, DataType

__all__ = [
    "Form",
    "ModelSignature",
    "Stream",
    "TensorSignature",
    "model",
    "parse_tensor",
    "signature_of",
]

Form = Literal["array", "value", "list", "json"]
"""What a tensor is in Python: itself, its one element, lists of elements, or what its JSON says."""

Stream = Literal["iterator", "async iterator"]
"""What gives the responses to one request, one by one."""

T = TypeVar("T", bound=Callable[..., Any])
_ATTRIBUTE = "__modelport_signature__"


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """One input or output.

    Attributes:
        name: Of the argument, or of the output.
        datatype: On the wire.
        dims: Without the batch; -1 is any size.
        form: What it is in Python.
        is_text: Whether its elements are ``str`` there; else BYTES are ``bytes``.
        annotation: The type that its value is to be read as, where its form does not say all of
            it; ``None`` where it does.
    """

    name: str
    datatype: DataType
    dims: tuple[int, ...]
    form: Form = "array"
    is_text: bool = False
    annotation: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    """A declared model; :func:`model` says what the attributes mean."""

    name: str
    inputs: tuple[TensorSignature, ...] = ()
    outputs: tuple[TensorSignature, ...] = ()
    is_annotated: bool = False
    """Whether inputs and outputs are still to be read from the annotations."""
    stream: Stream | None = None
    """How the annotation of the result says that it is a stream, if it does."""
    max_batch_size: int = 0
    max_delay: float = 0.0
    instances: int = 1
    execution: str = ""


@overload
def model(target: T, /) -> T: ...


@overload
def model(
    *,
    inputs: Mapping[str, str] | None = ...,
    outputs: Mapping[str, str] | None = ...,
    name: str = ...,
    max_batch_size: int = ...,
    max_delay: float = ...,
    instances: int = ...,
    execution: str = ...,
) -> Callable[[T], T]: ...


def model(
    target: T | None = None,
    /,
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    name: str = "",
    max_batch_size: int = 0,
    max_delay: float = 0.0,
    instances: int = 1,
    execution: str = "",
) -> T | Callable[[T], T]:
    """Declare a function, class or method to be a model.

    Without ``inputs`` and ``outputs`` the annotations tell them, see :mod:`modelport.annotations`.

    A function takes its inputs as arguments of their names and returns its output, a tuple of
    outputs in their order, or a dict of them. A class is made once when the model is loaded and
    then called (``__call__``, else ``predict``); its ``close``, if any, is called on unload.
    Coroutine functions run beside one another. A generator makes a decoupled model: every item that
    it yields is a response, and it is closed when the caller has gone.

    Arrays may be read-only, being views on what came; text is an object array of ``bytes``; BF16 is
    given as float32. An input whose argument has a default is optional. An argument ``parameters``
    that is no input gets the request's parameters.

    >>> @model(inputs={"x": "FP32[-1, 10]"}, outputs={"y": "FP32[-1, 10]"}, max_batch_size=32)
    ... def affine(x):
    ...     return 2.5 * x + 0.5

    >>> @model
    ... def shout(text: str, times: int = 1) -> str:
    ...     return text.upper() * times

    Args:
        target: The function, class or method, where this is used as ``@model`` alone.
        inputs: Datatype and shape by name: ``FP32[-1, 10]``; -1 is any size. With a
            ``max_batch_size`` the first dimension is the batch, and has to be -1.
        outputs: The same; both are given, or none of them.
        name: What it is served as; by default the name of the function or class.
        max_batch_size: Most rows of one call. Above 0, concurrent requests are put together, and
            what fails together is called again one by one; 0 means one request for one call.
        max_delay: How long a request may wait for others to share its batch, in seconds.
        instances: How many of it are loaded, each from a module of its own.
        execution: ``inline``, ``thread``, ``process`` or ``auto``; by default what the server is
            set to.

    Raises:
        ValueError: If the declaration makes no sense; the text says which part.
    """
    if max_batch_size < 0 or instances < 1 or max_delay < 0:
        raise ValueError(
            "max_batch_size and max_delay have to be at least 0, and instances at least 1"
        )
    if (inputs is None) != (outputs is None):
        raise ValueError("inputs and outputs are declared together, or both by annotations")
    if outputs is not None and not outputs:
        raise ValueError("a model has at least one output")
    if execution not in ("", "inline", "thread", "process", "auto"):
        raise ValueError(
            f"execution is '{execution}'; it has to be inline, thread, process or auto"
        )
    is_batching = max_batch_size > 0
    parsed_inputs = tuple(
        parse_tensor(each, text, is_batching) for each, text in (inputs or {}).items()
    )
    parsed_outputs = tuple(
        parse_tensor(each, text, is_batching) for each, text in (outputs or {}).items()
    )

    def declare(target: T) -> T:
        signature = ModelSignature(
            name=name or target.__name__,
            inputs=parsed_inputs,
            outputs=parsed_outputs,
            is_annotated=inputs is None,
            max_batch_size=max_batch_size,
            max_delay=max_delay,
            instances=instances,
            execution=execution,
        )
        setattr(target, _ATTRIBUTE, signature)
        return target

    return declare if target is None else declare(target)


def signature_of(target: object) -> ModelSignature | None:
    """What an object was declared to be; a class does not inherit the declaration of its base."""
    try:
        signature = vars(target).get(_ATTRIBUTE)
    except TypeError:
        return None
    return signature if isinstance(signature, ModelSignature) else None


def parse_tensor(name: str, text: str, is_batching: bool) -> TensorSignature:
    """Read ``FP32[-1, 10]``; with batching the first dimension is left out.

    Raises:
        ValueError: If it is not written so, or its shape makes no sense.
    """
    match = _TENSOR.fullmatch(text)
    if match is None:
        raise ValueError(f"'{name}' is declared as '{text}'; write it like FP32[-1, 10]")
    datatype = DATATYPE_BY_NAME.get(match["datatype"]) or DATATYPE_BY_CONFIG_NAME.get(
        match["datatype"]
    )
    if datatype is None:
        known = ", ".join(DATATYPE_BY_NAME)
        raise ValueError(f"'{name}' has the datatype '{match['datatype']}'; there are {known}")
    shape = tuple(int(dim) for dim in match["dims"].split(","))
    if any(dim < 1 and dim != -1 for dim in shape):
        raise ValueError(f"'{name}' has the shape {list(shape)}; sizes are at least 1, or -1")
    if is_batching and (shape[0] != -1 or len(shape) < 2):
        raise ValueError(
            f"'{name}' has the shape {list(shape)}; with max_batch_size its first dimension is the "
            "batch: write -1 and then at least one dimension of a row, as in FP32[-1, 1]"
        )
    return TensorSignature(name, datatype, shape[1:] if is_batching else shape)


_TENSOR = re.compile(r"\s*(?P<datatype>\w+)\s*\[(?P<dims>\s*-?\d+\s*(,\s*-?\d+\s*)*)\]\s*")
