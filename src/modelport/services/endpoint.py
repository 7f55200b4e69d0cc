"""One method as an endpoint: what its signature says, read once when the service is made.

From then on a request is two calls: ``bind_*`` makes arguments of what was sent, with a validator
that was compiled for exactly these parameters, and ``encode`` makes an answer of the result.
"""

import inspect
import types
import typing
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import cached_property
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
import pydantic
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import SchemaValidator

from modelport.errors import InvalidArguments, LoadFailed
from modelport.services.context import Context
from modelport.services.declaration import Api
from modelport.services.files import Upload
from modelport.services.results import Encoded, ResultKind
from modelport.services.schema import Lenient, inlined
from modelport.services.values import Kind, kind_of, rewrite
from modelport.validators import ContentType

__all__ = ["Endpoint", "Field"]

Field = pydantic.Field

Values = dict[str, Any]


class Endpoint:
    """A method of a service, ready to be called with what comes over the wire.

    Args:
        api: As declared.
        owner: The class, for its name in texts.

    Raises:
        LoadFailed: If the signature cannot be served; the text says which part of it and why.

    Attributes:
        api: As declared.
        is_stream: Whether it gives any number of items.
        is_async: Whether it is a coroutine function or an async generator.
        is_root: Whether the body itself is its one argument.
        file_fields: Parameters that are files or lists of files.
        context_name: The parameter that is given a :class:`Context`, if any.
        result: Makes answers of results.
    """

    def __init__(self, api: Api, owner: str) -> None:
        self.api = api
        self.owner = owner
        function = api.function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(
            function
        )
        hints = self._hints()
        parameters = list(inspect.signature(function).parameters.values())[1:]
        context = [each for each in parameters if _is_context(each, hints)]
        self.context_name = context[0].name if context else None
        self._positional_context = bool(context) and context[0].kind is _POSITIONAL_ONLY
        data = [each for each in parameters if each not in context]
        if api.input_spec is not None:
            data = _parameters_of(api.input_spec)
        self._parameters = data
        self.is_root = self._check_root(data)
        self._var_keyword = next((p.name for p in data if p.kind is _VAR_KEYWORD), None)
        self._var_positional = next((p.name for p in data if p.kind is _VAR_POSITIONAL), None)
        self._annotations = {p.name: hints.get(p.name, Any) for p in data}
        self._kinds = {name: kind_of(hint) for name, hint in self._annotations.items()}
        self.file_fields = {
            name: is_list
            for name, hint in self._annotations.items()
            if (is_list := _takes_files(hint)) is not None
        }
        returned = hints.get("return", inspect.Parameter.empty)
        if api.output_spec is not None:
            returned = api.output_spec
        self.is_stream, returned = _stream_item(function, returned)
        self._returned = returned
        self.result = ResultKind.of(returned, self.is_stream)
        self._check_batchable(data)
        self._compile()

    def __repr__(self) -> str:
        return f"<Endpoint {self.owner}.{self.api.name}>"

    @property
    def name(self) -> str:
        """By which clients know it."""
        return self.api.name

    @property
    def doc(self) -> str:
        """What its author wrote of it."""
        return inspect.getdoc(self.api.function) or ""

    @property
    def has_files(self) -> bool:
        """Whether any argument is a file."""
        return bool(self.file_fields)

    @property
    def root_kind(self) -> str:
        """For a root input: ``file``, ``text``, ``bytes`` or ``json``."""
        name = self._parameters[0].name
        if name in self.file_fields:
            return "file"
        base = _bare(self._annotations[name])
        return {str: "text", bytes: "bytes"}.get(base, "json")

    @property
    def annotations(self) -> Mapping[str, Any]:
        """Types by the names of its data parameters, in their order."""
        return self._annotations

    @property
    def returned(self) -> Any:
        """Type of its result, or of one item of its stream; ``Any`` where it is not said."""
        return self._returned

    @property
    def optional(self) -> frozenset[str]:
        """Parameters that may be left out."""
        return frozenset(
            p.name for p in self._parameters if p.default is not _EMPTY or p.kind in _VARIADIC
        )

    # Arguments.

    def bind_json(self, body: bytes | bytearray | memoryview) -> Values:
        """Make arguments of a JSON body; an empty one is an empty object.

        Raises:
            InvalidArguments: It does not fit.
        """
        try:
            made = self._validate_json(bytes(body) if body else b"{}")
        except ValidationError as exc:
            raise invalid(exc) from None
        if self.is_root:
            return {self._parameters[0].name: made}
        return self._values_of(made)

    def bind_values(self, values: Mapping[str, Any]) -> Values:
        """Make arguments of values by name: of a form, with :class:`Upload` for files.

        Raises:
            InvalidArguments: They do not fit.
        """
        try:
            if self.is_root:
                name = self._parameters[0].name
                return {name: self._adapter.validate_python(values[name])}
            return self._values_of(self._model.model_validate(values))
        except ValidationError as exc:
            raise invalid(exc) from None

    def bind_root(self, value: str | bytes | Upload) -> Values:
        """Make the one argument of a body that is text, bytes or a file.

        Raises:
            InvalidArguments: It does not fit.
        """
        return self.bind_values({self._parameters[0].name: value})

    def _values_of(self, made: BaseModel) -> Values:
        values = made.__dict__
        if self._var_keyword is not None and made.__pydantic_extra__:
            return {**values, **made.__pydantic_extra__}
        return values

    def caller(self, instance: Any) -> Callable[[Values, Context | None], Any]:
        """Give what calls the method of an object with bound arguments."""
        method = getattr(instance, self.api.function.__name__)
        name = self.context_name
        positional = [
            p.name for p in self._parameters if p.kind in (_POSITIONAL_ONLY, _VAR_POSITIONAL)
        ]
        if not positional and name is None:
            return lambda values, context: method(**values)

        def call(values: Values, context: Context | None) -> Any:
            named = dict(values)
            if name is not None and not self._positional_context:
                named[name] = context
            arguments = [context] if self._positional_context else []
            if self._var_positional is not None:
                # What stands before *args has to be given by its place.
                for parameter in self._parameters:
                    if parameter.kind is _VAR_POSITIONAL:
                        arguments += named.pop(parameter.name)
                        break
                    arguments.append(named.pop(parameter.name))
            else:
                arguments += [named.pop(each) for each in positional if each in named]
            return method(*arguments, **named)

        return call

    # Batches.

    def batch_of(self, values: Values) -> tuple[int, Hashable]:
        """Count the rows of a batchable call, and say what others must have to share its batch."""
        value = values[self._parameters[0].name]
        dim = self.api.batch_dim[0]
        shape = getattr(value, "shape", None)
        if shape is None:
            return len(value), None
        if len(shape) <= dim:
            raise InvalidArguments(
                f"'{self._parameters[0].name}' has the shape {list(shape)}; it is joined with "
                f"others along dimension {dim}"
            )
        others = (*shape[:dim], *shape[dim + 1 :])
        return int(shape[dim]), (others, getattr(value, "dtype", type(value)))

    def rows_of(self, values: Values) -> int:
        """Count the rows of a batchable call."""
        value = values[self._parameters[0].name]
        if self.api.batch_dim[0] == 0 and value.__class__ is np.ndarray and value.ndim:
            return len(value)
        return self.batch_of(values)[0]

    def join(self, parts: Sequence[Values]) -> Values:
        """Put the arguments of several calls into those of one."""
        name = self._parameters[0].name
        return {name: _joined([part[name] for part in parts], self.api.batch_dim[0])}

    def split(self, result: Any, rows: Sequence[int]) -> list[Any]:
        """Cut the result of a joined call.

        Raises:
            LoadFailed: It has not as many rows as were given; the text is for the author.
        """
        dim = self.api.batch_dim[1]
        shape = getattr(result, "shape", None)
        try:
            given = int(shape[dim]) if shape is not None else len(result)
        except (TypeError, IndexError):
            given = -1
        if given != sum(rows):
            said = f"{given} rows" if given >= 0 else f"a {type(result).__name__}"
            raise LoadFailed(
                f"batchable endpoint '{self.name}' was given {sum(rows)} rows and answered {said}; "
                "it has to give one result for each row"
            )
        parts, start = [], 0
        is_plain = dim == 0 and result.__class__ is np.ndarray
        for count in rows:
            end = start + count
            parts.append(result[start:end] if is_plain else _slice(result, start, end, dim))
            start = end
        return parts

    def encode_rows(self, result: Any, calls: int) -> list[Encoded] | None:
        """Make the answers to calls of one row each, at once.

        Returns:
            ``None`` if this result has to be split and encoded part by part.
        """
        if result.__class__ is not np.ndarray or result.shape[:1] != (calls,):
            return None
        return None if self.api.batch_dim[1] else self.result.encode_rows(result)

    def cut(self, values: Values, most: int) -> list[Values]:
        """Cut the arguments of a call with more rows than one batch may have."""
        name = self._parameters[0].name
        value = values[name]
        rows, _ = self.batch_of(values)
        dim = self.api.batch_dim[0]
        return [
            {name: _slice(value, start, min(start + most, rows), dim)}
            for start in range(0, max(rows, 1), most)
        ]

    def rejoin(self, results: Sequence[Any]) -> Any:
        """Put the results of a call that was cut together again."""
        return _joined(results, self.api.batch_dim[1])

    @staticmethod
    def failure_in(part: Any) -> Exception | None:
        """Give the first exception that stands in a list of results in place of one."""
        if not isinstance(part, list | tuple):
            return None
        return next((each for each in part if isinstance(each, Exception)), None)

    # Results.

    def encode(self, value: Any) -> Encoded:
        """Make an answer of a result, or of one item of a stream.

        Raises:
            ValueError: It cannot be written; the text is for the author.
        """
        encoded: Encoded = self.result.encode(value)
        return encoded

    # Schemas.

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """What may be sent, in the form of ``/schema.json``."""
        if self.is_root:
            schema = inlined(self._adapter.json_schema(schema_generator=Lenient))
            return {**schema, "root_input": True}
        schema = inlined(self._model.model_json_schema(schema_generator=Lenient))
        if self._var_keyword is None:
            schema.pop("additionalProperties", None)
        schema.setdefault("properties", {})
        # Documentation of pydantic's base class.
        schema.pop("description", None)
        return schema

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """What comes back, in the form of ``/schema.json``."""
        return self.result.schema

    # What is read once.

    def _hints(self) -> dict[str, Any]:
        function = self.api.function
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception as exc:
            raise self._unusable(f"its annotations cannot be read: {exc}") from exc
        spec = self.api.input_spec
        if spec is not None:
            fields = spec.model_fields
            hints.update({name: _annotation_of(each) for name, each in fields.items()})
        return hints

    def _check_root(self, data: Sequence[inspect.Parameter]) -> bool:
        positional = [each for each in data if each.kind is _POSITIONAL_ONLY]
        if not positional:
            return False
        if len(data) > 1:
            raise self._unusable(
                "a positional-only parameter is the whole body, so it stands alone"
            )
        return True

    def _check_batchable(self, data: Sequence[inspect.Parameter]) -> None:
        if not self.api.batchable:
            return
        if len(data) != 1 or data[0].kind in _VARIADIC:
            raise self._unusable("a batchable endpoint takes exactly one argument")
        if self.is_stream:
            raise self._unusable("a batchable endpoint cannot be a generator")

    def _unusable(self, why: str) -> LoadFailed:
        return LoadFailed(f"endpoint '{self.owner}.{self.api.name}': {why}")

    def _compile(self) -> None:
        try:
            with warnings.catch_warnings():
                # Parameters may be called like methods of pydantic's classes.
                warnings.simplefilter("ignore", UserWarning)
                if self.is_root:
                    self._compile_root()
                else:
                    self._compile_fields()
        except LoadFailed:
            raise
        except Exception as exc:
            raise self._unusable(f"its signature cannot be served: {exc}") from exc

    def _compile_root(self) -> None:
        (parameter,) = self._parameters
        # A root has no name to be missing under: its default is the method's own business.
        annotation = rewrite(self._annotations[parameter.name])
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=_config(annotation))
        self._validate_json = self._adapter.validator.validate_json

    def _compile_fields(self) -> None:
        fields: dict[str, Any] = {}
        for parameter in self._parameters:
            annotation: Any = rewrite(self._annotations[parameter.name])
            if parameter.kind is _VAR_KEYWORD:
                continue
            if parameter.kind is _VAR_POSITIONAL:
                fields[parameter.name] = (list[annotation], FieldInfo(default_factory=list))
                continue
            default = ... if parameter.default is _EMPTY else parameter.default
            fields[parameter.name] = (annotation, default)
        config = ConfigDict(
            arbitrary_types_allowed=True,
            extra="allow" if self._var_keyword is not None else "ignore",
            protected_namespaces=(),
            json_schema_extra=None,
        )
        spec = self.api.input_spec
        if spec is not None:
            # With the validators and the configuration of the author's own model.
            changed: dict[str, Any] = {
                name: (each[0], spec.model_fields[name])
                for name, each in fields.items()
                if each[0] != self._annotations[name]
            }
            self._model = create_model("Input", __base__=spec, **changed)
        else:
            self._model = create_model("Input", __config__=config, **fields)
        validator = self._model.__pydantic_validator__
        assert isinstance(validator, SchemaValidator) or hasattr(validator, "validate_json")
        self._validate_json = validator.validate_json


def invalid(exc: ValidationError) -> InvalidArguments:
    """Say what pydantic found, in the form that clients of BentoML know."""
    detail: list[dict[str, object]] = []
    for found in exc.errors(include_url=True, include_context=False, include_input=False):
        each: dict[str, object] = {key: found[key] for key in ("type", "loc", "msg")}
        each["loc"] = list(found["loc"])
        if "url" in found:
            each["url"] = found["url"]
        detail.append(each)
    count = len(detail)
    text = f"{count} validation error{'s' if count != 1 else ''} for Input"
    return InvalidArguments(text, detail)


def _config(annotation: Any) -> ConfigDict | None:
    # A model brings its own, and pydantic refuses a second one.
    base = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    has_own = isinstance(base, type) and (
        issubclass(base, BaseModel) or hasattr(base, "__dataclass_fields__")
    )
    is_typed_dict = typing.is_typeddict(base)
    return None if has_own or is_typed_dict else ConfigDict(arbitrary_types_allowed=True)


def _parameters_of(spec: type[BaseModel]) -> list[inspect.Parameter]:
    """Give the fields of a model as the parameters that a method is called with."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_EMPTY if field.is_required() else field.get_default(call_default_factory=True),
        )
        for name, field in spec.model_fields.items()
    ]


def _annotation_of(field: FieldInfo) -> Any:
    if not field.metadata:
        return field.annotation
    return Annotated[(field.annotation, *field.metadata)]


def _is_context(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> bool:
    hint = hints.get(parameter.name)
    return hint is Context or (hint is None and parameter.name in ("ctx", "context"))


def _takes_files(annotation: Any) -> bool | None:
    """Whether a parameter is a list of files; ``None`` if it is no file at all."""
    kind: Kind | None = kind_of(annotation)
    if kind is not None:
        return False if kind.is_file else None
    for base in _branches(annotation):
        if get_origin(base) in (list, tuple, set, Sequence, Iterable):
            inner = [kind_of(argument) for argument in get_args(base) if argument is not Ellipsis]
            if any(kind is not None and kind.is_file for kind in inner):
                return True
    return None


def _branches(annotation: Any) -> tuple[Any, ...]:
    base = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return get_args(base) if get_origin(base) in (Union, types.UnionType) else (base,)


def _bare(annotation: Any) -> Any:
    others = [branch for branch in _branches(annotation) if branch is not type(None)]
    return others[0] if len(others) == 1 else None


def _stream_item(function: Callable[..., Any], returned: Any) -> tuple[bool, Any]:
    """Whether a method streams, and what; a content type of the stream stays with its item."""
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    base: Any = returned
    metadata: list[Any] = []
    if get_origin(returned) is Annotated:
        base, *metadata = get_args(returned)
    origin = get_origin(base)
    if origin in _STREAMS or base in _STREAMS:
        item = get_args(base)[0] if get_args(base) else Any
        kept = tuple(each for each in metadata if isinstance(each, ContentType))
        return True, Annotated[(item, *kept)] if kept else item
    if is_generator:
        return True, Any
    return False, Any if returned is inspect.Parameter.empty else returned


def _joined(parts: Sequence[Any], dim: int) -> Any:
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, np.ndarray):
        return np.concatenate(parts, axis=dim)
    library = type(first).__module__.partition(".")[0]
    if library == "torch":
        import torch

        return torch.cat(list(parts), dim=dim)
    if library == "pandas":
        import pandas

        return pandas.concat(list(parts), ignore_index=True)
    if library == "tensorflow":
        import tensorflow

        return tensorflow.concat(list(parts), axis=dim)
    return [each for part in parts for each in part]


def _slice(value: Any, start: int, end: int, dim: int) -> Any:
    if hasattr(value, "iloc"):
        return value.iloc[start:end]
    if hasattr(value, "shape"):
        return value[(slice(None),) * dim + (slice(start, end),)]
    return value[start:end]


_EMPTY = inspect.Parameter.empty
_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VARIADIC = (_VAR_KEYWORD, _VAR_POSITIONAL)
_STREAMS = (Generator, AsyncGenerator, Iterator, AsyncIterator, AsyncIterable)
