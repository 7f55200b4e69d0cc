"""From a Python file to the object in it that answers, and to what it declares of itself."""

import enum
import inspect
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from modelport.errors import LoadFailed
from modelport.runtimes.base import Host, ModelSource, as_model_failure
from modelport.runtimes.model_code import Home, import_model
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
    "load_failure",
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
        target, signature = _find(source, module, file.name)
        _check_arguments(target, signature)
    except LoadFailed:
        home.forget()
        raise
    return target, signature, home


def _find(source: ModelSource, module: ModuleType, filename: str) -> tuple[Any, ModelSignature]:
    """The object that the operator named; else the only one declared, or that of its name."""
    if source.attribute:
        target = getattr(module, source.attribute, None)
        signature = signature_of(target)
        if signature is None:
            raise LoadFailed(f"'{filename}' declares no model '{source.attribute}'; {_HOW}")
        return target, signature
    # By identity: a module may know one object by two names.
    declared_by_id = {
        id(target): (target, signature)
        for target in vars(module).values()
        if (signature := signature_of(target)) is not None
    }
    declared = list(declared_by_id.values())
    if not declared:
        raise LoadFailed(f"'{filename}' declares no model; {_HOW}")
    fitting = [each for each in declared if len(declared) == 1 or each[1].name == source.name]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(signature.name for _, signature in declared)
    raise LoadFailed(
        f"'{filename}' declares several models ({names}), and not exactly one by the name "
        f"'{source.name}'"
    )


def callable_of(target: Any) -> Callable[..., Any]:
    """A function itself; of a class or its object the method that answers."""
    if inspect.isroutine(target):
        return target
    owner = target if inspect.isclass(target) else type(target)
    for method in ("__call__", "predict"):
        # hasattr would find the __call__ of every class's own class, which makes objects.
        if any(method in vars(base) for base in owner.__mro__):
            call: Callable[..., Any] = getattr(target, method)
            return call
    raise LoadFailed(f"class '{owner.__name__}' has neither __call__ nor predict")


def style_of(call: Callable[..., Any]) -> Style:
    """Tell how a callable answers."""
    if inspect.isasyncgenfunction(call):
        return Style.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(call):
        return Style.GENERATOR
    if inspect.iscoroutinefunction(call):
        return Style.COROUTINE
    return Style.FUNCTION


def wants_parameters(target: Any, signature: ModelSignature) -> bool:
    """Whether it is to be given the parameters of requests."""
    is_input = any(tensor.name == PARAMETERS for tensor in signature.inputs)
    return not is_input and PARAMETERS in _arguments(target)


def _arguments(target: Any) -> dict[str, inspect.Parameter]:
    """What a call takes; of a class that is not made yet, without ``self``."""
    arguments = dict(inspect.signature(callable_of(target)).parameters)
    if inspect.isclass(target):
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
    is_stream = style_of(callable_of(target)).is_stream
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


def load_failure(
    source: ModelSource, what: str, exc: BaseException, host: Host | None
) -> LoadFailed:
    """Tell the log where in the model's code it happened, and the operator what."""
    if host is not None:
        text = "".join(traceback.format_exception(exc)).rstrip()
        host.log("error", f"{what} failed: {text}", model=source.name)
    failure = as_model_failure(exc).text if isinstance(exc, Exception) else f"SystemExit: {exc}"
    for directory in (source.version_directory, source.directory):
        failure = failure.replace(f"{directory}/", "")
    return LoadFailed(f"model '{source.name}' version {source.version}: {what} failed: {failure}")


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_HOW = "put @modelport.model(inputs=..., outputs=...) above a function or class"
