"""Arrays, tables, images and files as arguments and results: what pydantic does not know.

Each kind is a class that reads what was sent, says its JSON schema, and writes a result. It stands
in an ``Annotated`` in place of the type, so that pydantic meets it wherever it meets the type: in
lists, optionals and defaults as well. Frameworks are imported only by the kind that needs them.
"""

import io
import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Protocol, Union, cast, get_args, get_origin

import numpy as np
import orjson
from pydantic import BaseModel, create_model
from pydantic_core import PydanticCustomError, core_schema, to_json

from modelport.services.files import Upload
from modelport.validators import ContentType, DataframeSchema, DType, Shape

__all__ = [
    "FileKind",
    "ImageKind",
    "Kind",
    "TableKind",
    "TensorKind",
    "dump_json",
    "dump_rows",
    "kind_of",
    "rewrite",
]

JsonSchema = dict[str, Any]


class Kind(Protocol):
    """One of the kinds below."""

    is_file: bool

    def decode(self, value: Any) -> Any:
        """Make an argument of what was sent. Raises ValueError."""
        ...

    def schema(self) -> JsonSchema:
        """Say what it looks like."""
        ...


class _Pydantic:
    """Has pydantic read and describe a kind."""

    is_file = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(cast(Kind, self).decode)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        return cast(Kind, self).schema()


class TensorKind(_Pydantic):
    """``numpy.ndarray``, ``torch.Tensor`` or ``tf.Tensor``.

    Args:
        library: ``numpy``, ``torch`` or ``tf``.
        dtype: Of the elements; "" leaves it to the library.
        shape: ``None`` for any.
    """

    def __init__(self, library: str, dtype: str = "", shape: tuple[int, ...] | None = None) -> None:
        self.library = library
        self.dtype = dtype
        self.shape = shape

    def decode(self, value: Any) -> Any:
        """Make an array of nested lists; one that is an array already is taken as it is."""
        if isinstance(value, np.ndarray):
            return value if self.library == "numpy" else self._of(value)
        if type(value).__module__.partition(".")[0] in ("torch", "tensorflow"):
            return value
        try:
            array = np.array(value, dtype=self._numpy_dtype())
        except (ValueError, TypeError, OverflowError) as exc:
            raise ValueError(f"cannot be read as an array: {exc}") from None
        if array.dtype == object:
            raise ValueError("cannot be read as an array: its elements have no common type")
        if self.shape is not None:
            try:
                array = array.reshape(self.shape)
            except ValueError:
                raise ValueError(
                    f"has {array.size} elements in the shape {list(array.shape)}, which cannot be "
                    f"brought into {list(self.shape)}"
                ) from None
        return self._of(array)

    def schema(self) -> JsonSchema:
        """Say library, element type and shape."""
        said: JsonSchema = {"type": "tensor", "format": f"{self.library}-{_NOUN[self.library]}"}
        if self.dtype:
            said["dtype"] = self.dtype
        if self.shape is not None:
            said["shape"] = list(self.shape)
            # BentoML calls the number of elements so.
            said["dim"] = abs(math.prod(self.shape))
        return said

    def _numpy_dtype(self) -> Any:
        return np.dtype(self.dtype.removeprefix("torch.")) if self.dtype else None

    def _of(self, array: Any) -> Any:
        if self.library == "torch":
            import torch

            return torch.from_numpy(np.ascontiguousarray(array))
        if self.library == "tf":
            import tensorflow

            return tensorflow.convert_to_tensor(array)
        return array


class TableKind(_Pydantic):
    """``pandas.DataFrame``."""

    def __init__(self, schema: DataframeSchema) -> None:
        self.orient = schema.orient
        self.columns = list(schema.columns) if schema.columns else None

    def decode(self, value: Any) -> Any:
        """Make a table of rows or of columns, whichever was sent."""
        import pandas

        if isinstance(value, pandas.DataFrame):
            return value
        is_rows = isinstance(value, list) and all(isinstance(row, Mapping) for row in value)
        if not is_rows and not isinstance(value, Mapping):
            raise ValueError(
                "should be a list of objects, one for each row, or an object of lists, one for "
                "each column"
            )
        try:
            return pandas.DataFrame(value, columns=self.columns)
        except (ValueError, TypeError) as exc:
            raise ValueError(f"cannot be read as a table: {exc}") from None

    def schema(self) -> JsonSchema:
        """Say its form and columns."""
        said: JsonSchema = {"type": "dataframe", "orient": self.orient}
        if self.columns is not None:
            said["columns"] = self.columns
        return said

    def plain(self, table: Any) -> Any:
        """Give rows or columns; what is missing in the table is ``None``."""
        if self.orient == "records":
            return table.to_dict(orient="records")
        return table.to_dict(orient="list")


class ImageKind(_Pydantic):
    """``PIL.Image.Image``."""

    is_file = True

    def __init__(self, accepted: ContentType | None = None) -> None:
        self.accepted = accepted

    def decode(self, value: Any) -> Any:
        """Open an upload; pixels are read when they are looked at."""
        from PIL import Image, UnidentifiedImageError

        if isinstance(value, Image.Image):
            return value
        upload = _upload(value, self.accepted)
        try:
            return Image.open(upload.open())
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError):
            raise ValueError("cannot be read as an image") from None

    def schema(self) -> JsonSchema:
        """Say that it is an image."""
        said: JsonSchema = {"type": "file", "format": "image", "pil": True}
        if self.accepted is not None:
            said["content_type"] = self.accepted.content_type
        return said

    def encode(self, image: Any) -> tuple[str, bytes]:
        """Give media type and bytes of an image, in its own format or as PNG."""
        buffer = io.BytesIO()
        kind = image.format or "PNG"
        image.save(buffer, format=kind)
        return f"image/{kind.lower()}", buffer.getvalue()


class FileKind(_Pydantic):
    """``pathlib.Path``: a file of the call, which is gone when the call ends."""

    is_file = True

    def __init__(self, accepted: ContentType | None = None) -> None:
        self.accepted = accepted

    def decode(self, value: Any) -> Any:
        """Give the path of an upload. What a client says is never taken for a path."""
        return _upload(value, self.accepted).path()

    def schema(self) -> JsonSchema:
        """Say what kind of file it is."""
        accepted = self.accepted
        if accepted is None:
            return {"type": "file", "format": "binary"}
        family = accepted.content_type.partition("/")[0]
        known = family if family in ("audio", "image", "video") else "binary"
        return {"type": "file", "format": known, "content_type": accepted.content_type}


def _upload(value: Any, accepted: ContentType | None) -> Upload:
    if not isinstance(value, Upload):
        # The words that clients of BentoML know.
        raise PydanticCustomError("path_type", "Invalid file type")
    if accepted is not None and not accepted.accepts(value.content_type):
        raise ValueError(
            f"Invalid content type {value.content_type}, expected {accepted.content_type}"
        )
    return value


# From annotations to kinds.


def kind_of(annotation: Any) -> Kind | None:
    """Give the kind that an annotation is, optional or not; ``None`` if pydantic knows it."""
    base, metadata = _split(_without_none(annotation))
    for each in metadata:
        if isinstance(each, _Pydantic):
            return cast(Kind, each)
    return _kind(base, metadata)


def rewrite(annotation: Any, within: frozenset[type] = frozenset()) -> Any:
    """Put kinds in place of the types that pydantic does not know, at any depth.

    Args:
        annotation: Of a parameter, a result, or a field of a model.
        within: The models that it stands in: one that contains itself stays as it is there.
    """
    base, metadata = _split(annotation)
    kind = _kind(base, metadata)
    if kind is not None:
        others = tuple(each for each in metadata if not isinstance(each, _OURS))
        return Annotated[(Any, kind, *others)]
    if isinstance(base, type) and get_origin(base) is None and issubclass(base, BaseModel):
        model: Any = _rewritten(base, within)
        if model is base:
            return annotation
        return Annotated[(model, *metadata)] if metadata else model
    arguments = get_args(base)
    origin = get_origin(base)
    if not arguments or origin is None or origin is Annotated or str(origin) == "typing.Literal":
        return annotation
    changed: Any = tuple(
        each if each is Ellipsis or isinstance(each, list) else rewrite(each, within)
        for each in arguments
    )
    if changed == arguments:
        return annotation
    rebuilt: Any
    if origin in (Union, types.UnionType):
        rebuilt = Union[changed]  # noqa: UP007
    else:
        rebuilt = origin[changed] if len(changed) > 1 else origin[changed[0]]
    if not metadata:
        return rebuilt
    return Annotated[(rebuilt, *metadata)]


def _rewritten(model: type[BaseModel], within: frozenset[type]) -> type[BaseModel]:
    """Give a subclass whose fields are kinds where they have to be; the model itself if none is."""
    if model in within:
        return model
    within |= {model}
    changed: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        declared: Any = field.annotation
        if field.metadata:
            declared = Annotated[(declared, *field.metadata)]
        annotation = rewrite(declared, within)
        if annotation is not declared:
            changed[name] = (annotation, field)
    if not changed:
        return model
    made: type[BaseModel] = create_model(
        model.__name__,
        __base__=model,
        __module__=model.__module__,
        __doc__=model.__doc__,
        **changed,
    )
    return made


def _kind(base: Any, metadata: Sequence[Any]) -> Kind | None:
    if not isinstance(base, type):
        return None
    accepted = _first(metadata, ContentType)
    if base in (Path, PurePath):
        return FileKind(accepted)
    found = _MAKER_BY_NAME.get(f"{base.__module__.partition('.')[0]}.{base.__name__}")
    return found(metadata) if found is not None else None


def _tensor(library: str) -> Callable[[Sequence[Any]], Kind]:
    def make(metadata: Sequence[Any]) -> Kind:
        dtype, shape = _first(metadata, DType), _first(metadata, Shape)
        return TensorKind(library, dtype.dtype if dtype else "", shape.dims if shape else None)

    return make


def _table(metadata: Sequence[Any]) -> Kind:
    return TableKind(_first(metadata, DataframeSchema) or DataframeSchema())


def _image(metadata: Sequence[Any]) -> Kind:
    return ImageKind(_first(metadata, ContentType))


def _first(metadata: Sequence[Any], wanted: type[Any]) -> Any:
    return next((each for each in metadata if isinstance(each, wanted)), None)


def _split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
        return base, tuple(metadata)
    return annotation, ()


def _without_none(annotation: Any) -> Any:
    base, metadata = _split(annotation)
    if get_origin(base) in (Union, types.UnionType):
        others = [each for each in get_args(base) if each is not type(None)]
        if len(others) == 1:
            inner, more = _split(others[0])
            return Annotated[(inner, *more, *metadata)] if more or metadata else inner
    return annotation


# JSON.


def dump_json(value: Any) -> bytes:
    """Write any result: pydantic's and numpy's values too; NaN and Infinity as bare words."""
    if value.__class__ is np.ndarray:
        return _dump_array(value)
    return to_json(value, by_alias=False, inf_nan_mode="constants", fallback=_plain)


def dump_rows(array: Any) -> list[bytes] | None:
    """Write each row of an array of numbers as an array of one row.

    Writing all together and cutting the text takes a tenth of the time of writing each alone.

    Args:
        array: [rows, ...].

    Returns:
        As :func:`dump_json` would write ``array[0:1]``, ``array[1:2]`` and so on; ``None`` if that
        has to be done for each alone.
    """
    depth = array.ndim
    text = _dump_numbers(array) if depth and array.size else None
    if text is None:
        return None
    opening, closing = b"[" * depth, b"]" * depth
    rows = text[depth:-depth].split(b"%b,%b" % (closing[1:], opening[1:]))
    return [b"%b%b%b" % (opening, row, closing) for row in rows]


def _dump_array(array: Any) -> bytes:
    text = _dump_numbers(array)
    if text is not None:
        return text
    return to_json(array.tolist(), inf_nan_mode="constants", fallback=_plain)


def _dump_numbers(array: Any) -> bytes | None:
    dtype = array.dtype
    is_known = dtype.kind in "iub" or (dtype.kind == "f" and dtype.itemsize in (4, 8))
    if not is_known or not dtype.isnative or not array.ndim:
        return None
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    # What is not finite comes as null.
    return None if b"null" in text else text


def _plain(value: Any) -> Any:
    """Take apart what the JSON writer does not know."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy().tolist()
    if hasattr(value, "to_dict"):
        return TableKind(DataframeSchema()).plain(value)
    if hasattr(value, "numpy"):
        return value.numpy().tolist()
    raise ValueError(f"a {type(value).__name__} cannot be written as JSON")


_OURS = (ContentType, DType, DataframeSchema, Shape)
_NOUN = {"numpy": "array", "torch": "tensor", "tf": "tensor"}
_MAKER_BY_NAME: dict[str, Callable[[Sequence[Any]], Kind]] = {
    "numpy.ndarray": _tensor("numpy"),
    "torch.Tensor": _tensor("torch"),
    "tensorflow.Tensor": _tensor("tf"),
    "pandas.DataFrame": _table,
    "PIL.Image": _image,
}
