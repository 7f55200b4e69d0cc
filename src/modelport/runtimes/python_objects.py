"""From a Python file to the object in it that answers, and to what it declares of itself."""

import enum
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from modelport.annotations import stream_of, tensors_of
from modelport.errors import LoadFailed
from modelport.runtimes.base import Host, ModelSource
from modelport.runtimes.model_code import Home, import_model, load_failure
from modelport.runtimes.python_files import typed_functions
from modelport.runtimes.python_readers import check_readable
from modelport.signature import ModelSignature, signature_of
from modelport.specs import (
    DynamicBatching,
    InstanceGroup,
    ModelConfig,
    ModelInput,
    ModelOutput,
    Parameter,
    TransactionPolicy,
)

__all__ = [
    "DEFAULT_FILENAME",
    "PARAMETERS",
    "Style",
    "callable_of",
    "config_of",
    "import_object",
    "made",
    "style_of",
    "wants_parameters",
]

DEFAULT_FILENAME = "model.py"
PARAMETERS = "parameters"
"""The argument that gets a request's parameters, if no input is called so."""


class Style(enum.Enum):
    """How a callable answers."""

    FUNCTION = enum.auto()
    COROUTINE = enum.auto()
    GENERATOR = enum.auto()
    ASYNC_GENERATOR = enum.auto()

    @property
    def is_stream(self) -> bool:
        """Whether a request has any number of responses."""
        return self in (Style.GENERATOR, Style.ASYNC_GENERATOR)


def import_object(
    source: ModelSource, config: ModelConfig, host: Host | None
) -> tuple[Any, ModelSignature, Home]:
    """Import the model file and find the declared object in it.

    Raises:
        LoadFailed: If there is none, or its declaration does not fit it. The file's modules are
            then forgotten; else that is the caller's to do.
    """
    file = source.file(config, DEFAULT_FILENAME)
    if not file.is_file():
        raise LoadFailed(f"model '{source.name}' version {source.version} has no '{file.name}'")
    home = Home(source.version_directory, model_name=source.name, host=host)
    try:
        module = import_model(home, file, source.directory)
    except (Exception, SystemExit) as exc:
        raise load_failure(source, f"importing '{file.name}'", exc, host) from exc
    try:
        target, signature = _find(source, module, file)
        signature = _with_annotations(target, signature)
        _check_arguments(target, signature)
    except LoadFailed:
        home.forget()
        raise
    return target, signature, home


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a class, which is made for it alone."""

    owner: type
    name: str


def made(target: Any) -> tuple[Any, Any]:
    """Make the object of a class.

    Returns:
        What answers, and the object that was made for it; ``None`` for a function.
    """
    match target:
        case Method(owner=owner, name=name):
            model = owner()
            return getattr(model, name), model
        case type():
            model = target()
            return model, model
    return target, None


def _with_annotations(target: Any, signature: ModelSignature) -> ModelSignature:
    """Read inputs and outputs from the annotations, where they were not declared otherwise."""
    if not signature.is_annotated:
        return signature
    call = callable_of(target)
    own = next(iter(inspect.signature(call).parameters), "") if _is_unbound(target) else ""
    try:
        inputs, outputs = tensors_of(
            call, without=frozenset({PARAMETERS, own}), is_batching=signature.max_batch_size > 0
        )
        stream = stream_of(call)
    except ValueError as exc:
        raise LoadFailed(f"model '{signature.name}' is not declared: {exc}") from exc
    check_readable(signature.name, inputs, outputs)
    return replace(signature, inputs=inputs, outputs=outputs, stream=stream, is_annotated=False)


def _find(source: ModelSource, module: ModuleType, file: Path) -> tuple[Any, ModelSignature]:
    """The object that the operator named; else the only one declared, or that of its name."""
    filename = file.name
    if source.attribute:
        target = _attribute(module, source.attribute)
        if not callable(target) and not isinstance(target, Method):
            raise LoadFailed(f"'{filename}' has no model '{source.attribute}'; {_HOW}")
        name = source.attribute.rpartition(".")[2]
        return target, _signature_of(target) or ModelSignature(name=name, is_annotated=True)
    # By identity: a module may know one object by two names.
    declared_by_id = {
        id(found): (target, signature)
        for target, found in _targets(module)
        if (signature := signature_of(found)) is not None
    }
    declared = list(declared_by_id.values())
    if not declared:
        # Annotations alone make a model of a function that the operator has named.
        named = "".join(
            f"; or name the function: modelport serve {filename}:{name}"
            for name in typed_functions(file)[:1]
        )
        raise LoadFailed(f"'{filename}' declares no model; {_HOW}{named}")
    fitting = [each for each in declared if len(declared) == 1 or each[1].name == source.name]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(signature.name for _, signature in declared)
    raise LoadFailed(
        f"'{filename}' declares several models ({names}), and not exactly one by the name "
        f"'{source.name}'"
    )


def _attribute(module: ModuleType, path: str) -> Any:
    """What ``name`` or ``Class.method`` stands for; ``None`` for nothing."""
    owner, dot, name = path.partition(".")
    found = getattr(module, owner, None)
    if not dot:
        return found
    if isinstance(found, type) and inspect.isfunction(getattr(found, name, None)):
        return Method(found, name)
    return None


def _targets(module: ModuleType) -> Iterator[tuple[Any, Any]]:
    """Give everything that a declaration may be on, with the object that keeps it."""
    for value in vars(module).values():
        yield value, value
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield from ((Method(value, name), method) for name, method in vars(value).items())


def _signature_of(target: Any) -> ModelSignature | None:
    if isinstance(target, Method):
        return signature_of(getattr(target.owner, target.name))
    return signature_of(target)


def _is_unbound(target: Any) -> bool:
    """Whether the first argument of the callable is the object, which is not made yet."""
    return inspect.isclass(target) or isinstance(target, Method)


def callable_of(target: Any) -> Callable[..., Any]:
    """A function itself; of a class or its object the method that answers."""
    if isinstance(target, Method):
        function: Callable[..., Any] = getattr(target.owner, target.name)
        return function
    if inspect.isroutine(target):
        return target
    owner = target if inspect.isclass(target) else type(target)
    for method in ("__call__", "predict"):
        # hasattr would find the __call__ of every class's own class, which makes objects.
        if any(method in vars(base) for base in owner.__mro__):
            call: Callable[..., Any] = getattr(target, method)
            return call
    raise LoadFailed(f"class '{owner.__name__}' has neither __call__ nor predict")


def style_of(call: Callable[..., Any], signature: ModelSignature) -> Style:
    """Tell how a callable answers."""
    if inspect.isasyncgenfunction(call):
        return Style.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(call):
        return Style.GENERATOR
    if inspect.iscoroutinefunction(call):
        return Style.COROUTINE
    # It may be wrapped, or hand on what another one gives: then only its annotation tells.
    match signature.stream:
        case "iterator":
            return Style.GENERATOR
        case "async iterator":
            return Style.ASYNC_GENERATOR
    return Style.FUNCTION


def wants_parameters(target: Any, signature: ModelSignature) -> bool:
    """Whether it is to be given the parameters of requests."""
    is_input = any(tensor.name == PARAMETERS for tensor in signature.inputs)
    return not is_input and PARAMETERS in _arguments(target)


def _arguments(target: Any) -> dict[str, inspect.Parameter]:
    """What a call takes; of a class that is not made yet, without ``self``."""
    arguments = dict(inspect.signature(callable_of(target)).parameters)
    if _is_unbound(target):
        del arguments[next(iter(arguments))]
    return arguments


def _check_arguments(target: Any, signature: ModelSignature) -> None:
    """Refuse what cannot be called with the declared inputs.

    Raises:
        LoadFailed: Naming the argument or the input.
    """
    arguments = _arguments(target)
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in arguments.values())
    inputs = [tensor.name for tensor in signature.inputs]
    for name in inputs:
        argument = arguments.get(name)
        if argument is None and takes_all:
            continue
        if argument is not None and argument.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise LoadFailed(
                f"argument '{name}' of model '{signature.name}' is positional-only, and inputs are "
                "given by their names; take the '/' out of its signature"
            )
        if argument is None or argument.kind not in _BY_NAME:
            raise LoadFailed(
                f"input '{name}' of model '{signature.name}' is no argument of its function, which "
                f"takes {', '.join(arguments) or 'none'}"
            )
    for name, argument in arguments.items():
        is_needed = argument.default is inspect.Parameter.empty and argument.kind in _BY_NAME
        if is_needed and name not in (*inputs, PARAMETERS):
            raise LoadFailed(
                f"argument '{name}' of model '{signature.name}' is not declared as an input; "
                "declare it, or give it a default"
            )


def config_of(target: Any, signature: ModelSignature) -> ModelConfig:
    """Put a declaration into the words of a model configuration."""
    arguments = _arguments(target)
    optional = {
        name
        for name, argument in arguments.items()
        if argument.default is not inspect.Parameter.empty
    }
    is_stream = style_of(callable_of(target), signature).is_stream
    return ModelConfig(
        max_batch_size=signature.max_batch_size,
        input=tuple(
            ModelInput(
                name=tensor.name,
                data_type=tensor.datatype.config_name,
                dims=tensor.dims,
                optional=tensor.name in optional,
            )
            for tensor in signature.inputs
        ),
        output=tuple(
            ModelOutput(name=tensor.name, data_type=tensor.datatype.config_name, dims=tensor.dims)
            for tensor in signature.outputs
        ),
        dynamic_batching=_batching(signature, is_stream),
        instance_group=_instances(signature),
        parameters=_execution(signature),
        model_transaction_policy=TransactionPolicy(decoupled=True) if is_stream else None,
    )


def _batching(signature: ModelSignature, is_stream: bool) -> DynamicBatching | None:
    if signature.max_batch_size < 2 or is_stream:
        return None
    return DynamicBatching(max_queue_delay_microseconds=round(signature.max_delay * 1e6))


def _instances(signature: ModelSignature) -> tuple[InstanceGroup, ...]:
    return (InstanceGroup(count=signature.instances),) if signature.instances > 1 else ()


def _execution(signature: ModelSignature) -> dict[str, Parameter]:
    if not signature.execution:
        return {}
    return {"execution": Parameter(string_value=signature.execution)}


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_HOW = (
    "put @modelport.model above a function, class or method with annotations, or "
    "@modelport.model(inputs=..., outputs=...); or define a class TritonPythonModel"
)
