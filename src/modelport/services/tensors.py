"""Endpoints as tensor models: which tensors stand for their arguments and results, and how.

Text, truth values, numbers, lists of them, arrays of a known shape and images become tensors of
their own kind. Files and bytes are one element of BYTES; anything else is one element that holds
JSON. What a batchable endpoint takes has its rows as the first dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

import numpy as np

from modelport.dtypes import BOOL, BYTES, DATATYPE_BY_NUMPY, FP64, INT64, UINT8, DataType
from modelport.errors import InvalidRequest, ModelFailed
from modelport.messages import Response, Tensors
from modelport.services.endpoint import Endpoint
from modelport.services.files import Folder, Upload
from modelport.services.values import FileKind, ImageKind, TensorKind, dump_json, kind_of
from modelport.specs import (
    DynamicBatching,
    ModelConfig,
    ModelInput,
    ModelOutput,
    Parameter,
    QueuePolicy,
    TransactionPolicy,
)
from modelport.tensors import Array, Tensor

__all__ = ["EndpointView"]

OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class _Shown:
    """How one annotation is shown.

    Attributes:
        datatype: Of its tensor.
        dims: Without the batch.
        value_of: Makes what the endpoint's validator takes of an array.
        array_of: Makes an array of a result.
    """

    datatype: DataType
    dims: tuple[int, ...]
    value_of: Callable[[Array], Any]
    array_of: Callable[[Any], Array]


class EndpointView:
    """One endpoint as a tensor model.

    Attributes:
        config: Its model configuration.
    """

    def __init__(self, endpoint: Endpoint, name: str, execution: str) -> None:
        is_batching = endpoint.api.batchable
        self._endpoint = endpoint
        self._inputs = {
            each: _shown(annotation, is_batching)
            for each, annotation in endpoint.annotations.items()
        }
        self._output = _shown(endpoint.returned, is_batching)
        self.config = ModelConfig(
            name=name,
            backend="service",
            max_batch_size=endpoint.api.max_batch_size if is_batching else 0,
            input=tuple(
                ModelInput(
                    name=each,
                    data_type=shown.datatype.config_name,
                    dims=shown.dims,
                    optional=each in endpoint.optional,
                )
                for each, shown in self._inputs.items()
            ),
            output=(
                ModelOutput(
                    name=OUTPUT,
                    data_type=self._output.datatype.config_name,
                    dims=self._output.dims,
                ),
            ),
            dynamic_batching=_batching(endpoint) if is_batching else None,
            parameters={"execution": Parameter(string_value=execution)} if execution else {},
            model_transaction_policy=(
                TransactionPolicy(decoupled=True) if endpoint.is_stream else None
            ),
        )

    def arguments(self, payload: Tensors, folder: Folder) -> dict[str, Any]:
        """Make bound arguments of tensors; files are put into ``folder``.

        Raises:
            InvalidRequest: They do not fit the types of the endpoint.
        """
        endpoint = self._endpoint
        values: dict[str, Any] = {
            tensor.name: self._inputs[tensor.name].value_of(tensor.array)
            for tensor in payload.tensors
        }
        for name, is_list in endpoint.file_fields.items():
            given = values.get(name)
            if isinstance(given, bytes):
                values[name] = Upload(folder, data=given)
            elif is_list and isinstance(given, list):
                values[name] = [Upload(folder, data=each) for each in given]
        if endpoint.is_root and not values:
            return {}
        return endpoint.bind_values(values)

    def response(self, value: Any) -> Response:
        """Make a response of a result, or of an item of a stream.

        Raises:
            ModelFailed: It is not what the annotation of the endpoint says.
        """
        shown = self._output
        try:
            array = shown.array_of(value)
        except (ValueError, TypeError) as exc:
            raise ModelFailed(
                f"the result of '{self._endpoint.name}' is no {shown.datatype}: {exc}"
            ) from exc
        return Response([Tensor(OUTPUT, shown.datatype, array)])


def _batching(endpoint: Endpoint) -> DynamicBatching:
    longest_us = round(endpoint.api.max_latency_ms * 1000)
    return DynamicBatching(
        default_queue_policy=QueuePolicy(default_timeout_microseconds=longest_us)
    )


def _shown(annotation: Any, is_batching: bool) -> _Shown:
    kind = kind_of(annotation)
    if isinstance(kind, TensorKind):
        return _shown_array(kind, is_batching)
    if not is_batching:
        if isinstance(kind, ImageKind):
            return _Shown(UINT8, (-1, -1, -1), _image_of, _pixels_of)
        if isinstance(kind, FileKind):
            return _Shown(BYTES, (1,), _first_of, _bytes_array)
    base, rank = _element(annotation)
    scalar = _SCALARS.get(base)
    if scalar is None:
        # Whole values as JSON; of a batch each row by itself.
        if is_batching:
            return _Shown(BYTES, (), _json_rows_of, _json_rows_array)
        return _Shown(BYTES, (1,), _json_of, _json_array)
    dims = (-1,) * (rank - is_batching) if rank else (1,)
    dtype: Any = object if scalar is BYTES else scalar.numpy
    value_of = _texts_of if base is str else _list_of
    if rank == 0:
        return _Shown(
            scalar,
            (1,),
            lambda array: value_of(array.reshape(-1)[:1])[0],
            lambda value: _array([_bytes(value)], dtype),
        )
    return _Shown(scalar, dims, value_of, lambda value: _array(_nested_bytes(value), dtype))


def _shown_array(kind: TensorKind, is_batching: bool) -> _Shown:
    dtype = np.dtype(kind.dtype.removeprefix("torch.")) if kind.dtype else np.dtype(np.float64)
    datatype = DATATYPE_BY_NUMPY.get(dtype)
    shape = kind.shape
    if datatype is None or (shape is None and not is_batching):
        return _Shown(BYTES, (1,), _json_of, _json_array)
    dims = (-1,) if shape is None else shape[1:] if is_batching else shape
    return _Shown(datatype, dims, lambda array: array, lambda value: _array(_numpy(value), dtype))


def _element(annotation: Any) -> tuple[Any, int]:
    """Give the innermost element of nested lists, and how deep it lies."""
    rank = 0
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        inner = get_args(annotation)
        others = [each for each in inner if each is not type(None)]
        if len(inner) == 2 and len(others) == 1:
            annotation = others[0]
        elif get_origin(annotation) is list and inner:
            annotation = inner[0]
            rank += 1
        else:
            return annotation, rank


def _list_of(array: Array) -> Any:
    return array.tolist()


def _texts_of(array: Array) -> Any:
    try:
        return _decoded(array.tolist())
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"text that is not UTF-8: {exc.reason} at byte {exc.start}") from None


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


def _json_of(array: Array) -> Any:
    return _read_json(array.reshape(-1)[0]) if array.size else None


def _json_rows_of(array: Array) -> Any:
    return [_read_json(each) for each in array.reshape(-1)]


def _read_json(text: Any) -> Any:
    from pydantic_core import from_json

    try:
        return from_json(text)
    except ValueError as exc:
        raise InvalidRequest(f"an element of BYTES that should hold JSON: {exc}") from None


def _image_of(array: Array) -> Any:
    from PIL import Image

    return Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)


def _pixels_of(image: Any) -> Array:
    pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK") else image)
    return (pixels if pixels.ndim == 3 else pixels[..., np.newaxis]).astype(np.uint8, copy=False)


def _first_of(array: Array) -> Any:
    return array.reshape(-1)[0] if array.size else None


def _bytes_array(path: Any) -> Array:
    with open(path, "rb") as file:
        return _array([file.read()], object)


def _json_array(value: Any) -> Array:
    return _array([dump_json(value)], object)


def _json_rows_array(value: Any) -> Array:
    return _array([dump_json(each) for each in value], object)


def _array(value: Any, dtype: Any) -> Array:
    return np.asarray(value, dtype=dtype)


def _numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _bytes(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else b"" if value is None else value


def _nested_bytes(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_nested_bytes(each) for each in value]
    return value.encode() if isinstance(value, str) else value


_SCALARS: dict[Any, DataType] = {str: BYTES, bytes: BYTES, bool: BOOL, int: INT64, float: FP64}
