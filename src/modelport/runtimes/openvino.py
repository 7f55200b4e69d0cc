"""Models that OpenVINO executes: its own IR (``.xml`` beside ``.bin``), ONNX, TensorFlow Lite.

Inputs and outputs are read from the model. One whose batch is fixed in the file is reshaped where
the configuration has a ``max_batch_size``, as OpenVINO Model Server and Triton do it.

OpenVINO chooses the precision that it computes in by the machine, bfloat16 where the processor has
it: that is its own default, and ``INFERENCE_PRECISION_HINT`` = ``f32`` changes it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openvino

from modelport import dtypes
from modelport.dtypes import BF16, BYTES, DataType
from modelport.errors import InvalidRequest, LoadFailed, ModelFailed, ModelportError
from modelport.runtimes.arrays import Arrays, TensorRuntime
from modelport.runtimes.base import Gpus, LoadContext, ModelSource
from modelport.runtimes.graphs import GraphTensor, check_names, complete_from
from modelport.runtimes.openvino_options import device_of, known_parameters, properties_of
from modelport.runtimes.parameters import tell_of_unknown
from modelport.specs import ModelConfig
from modelport.tensors import Array

__all__ = ["OpenvinoRuntime"]


class OpenvinoRuntime(TensorRuntime):
    """One compiled model and its one request."""

    default_filename: ClassVar[str] = "model.xml"

    def __init__(self) -> None:
        self._request: Any = None
        self._index_by_input: dict[str, int] = {}
        self._index_by_output: dict[str, int] = {}
        self._datatype_by_input: dict[str, DataType] = {}
        self._shares_outputs = True

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Read inputs and outputs from the model, and whether it can batch."""
        model = _read(openvino.Core(), source, config)
        inputs, outputs = _described(model)
        return complete_from(config, inputs, outputs, source.default_max_batch_size)

    @classmethod
    def gpus(cls) -> Gpus:
        """Count those that OpenVINO has drivers for; it is asked for them by name only."""
        devices = openvino.Core().available_devices
        count = sum(device.partition(".")[0] == "GPU" for device in devices)
        return Gpus(count=count, why_none=f"OpenVINO sees {', '.join(devices)} alone")

    def load(self, context: LoadContext) -> None:
        """Compile the model with the properties that the configuration's ``parameters`` give."""
        config = context.config
        core = openvino.Core()
        model = _read(core, context.source, config)
        inputs, outputs = _described(model)
        check_names(config, {tensor.name for tensor in (*inputs, *outputs)})
        device = device_of(core, config, context.kind, context.device_id)
        tell_of_unknown(context, f"OpenVINO on {device}", known_parameters(core, device))
        try:
            compiled = core.compile_model(model, device, properties_of(core, device, config))
        except RuntimeError as exc:
            raise LoadFailed(f"OpenVINO cannot compile the model: {reason(exc)}") from exc
        self.prepare(config)
        self._index_by_input = {tensor.name: index for index, tensor in enumerate(inputs)}
        self._index_by_output = {tensor.name: index for index, tensor in enumerate(outputs)}
        self._datatype_by_input = {tensor.name: tensor.datatype for tensor in inputs}
        # Text cannot be shared, and OpenVINO warns of that at every run.
        self._shares_outputs = all(tensor.datatype is not BYTES for tensor in outputs)
        self._request = compiled.create_infer_request()

    def compute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run the whole graph, and copy what is wanted out of the request's memory."""
        given = {
            self._index_by_input[name]: _given(name, self._datatype_by_input[name], array)
            for name, array in inputs.items()
        }
        try:
            self._request.infer(given, share_inputs=True, share_outputs=self._shares_outputs)
        except RuntimeError as exc:
            raise _translated(exc) from exc
        return {name: self._output(name) for name in outputs}

    def is_ready(self) -> bool:
        """Whether the model is compiled."""
        return self._request is not None

    def unload(self) -> None:
        """Let the compiled model go."""
        self._request = None

    def _output(self, name: str) -> Array:
        tensor = self._request.get_output_tensor(self._index_by_output[name])
        if tensor.element_type == openvino.Type.string:
            # Of no text at all it raises an error of its bindings.
            texts = tensor.bytes_data if tensor.size else np.empty(tuple(tensor.shape))
            return np.asarray(texts).astype(object)
        array: Array = np.array(tensor.data)
        # numpy has no bfloat16, and is shown the bits as those of another half.
        return array.view(np.uint16) if tensor.element_type == openvino.Type.bf16 else array


def _read(core: Any, source: ModelSource, config: ModelConfig) -> Any:
    file = source.file(config, OpenvinoRuntime.default_filename)
    if not file.is_file():
        raise LoadFailed(f"there is no '{file.name}' in version directory {file.parent.name}")
    if file.suffix == ".xml":
        _check_ir(file)
    try:
        model = core.read_model(file)
    except RuntimeError as exc:
        text = reason(exc).replace(f"{file.parent}/", "")
        raise LoadFailed(f"OpenVINO cannot read '{file.name}': {text}") from exc
    if config.max_batch_size > 0:
        _make_batch_dynamic(model)
    return model


def _check_ir(file: Path) -> None:
    """Refuse what is no IR before OpenVINO tries all its other readers, which say a lot."""
    with file.open("rb") as opened:
        if b"<net" not in opened.read(4096):
            raise LoadFailed(f"OpenVINO cannot read '{file.name}': it is no OpenVINO IR")
    if not file.with_suffix(".bin").is_file():
        raise LoadFailed(
            f"'{file.name}' needs its weights beside it, and there is no "
            f"'{file.with_suffix('.bin').name}'"
        )


def _make_batch_dynamic(model: Any) -> None:
    """Let the first dimension of every input be of any size, where the graph can stand that."""
    shapes = {}
    for index, port in enumerate(model.inputs):
        shape = port.partial_shape
        if shape.rank.is_dynamic or not len(shape):
            return
        shapes[index] = openvino.PartialShape([-1, *list(shape)[1:]])
    if all(port.partial_shape[0].is_dynamic for port in model.inputs):
        return
    before = {index: port.partial_shape for index, port in enumerate(model.inputs)}
    try:
        model.reshape(shapes)
    except RuntimeError:
        # The graph has its batch written into it. That is told with the shapes, by whoever asks.
        model.reshape(before)


def _described(model: Any) -> tuple[list[GraphTensor], list[GraphTensor]]:
    return [_graph_tensor(port) for port in model.inputs], [
        _graph_tensor(port) for port in model.outputs
    ]


def _graph_tensor(port: Any) -> GraphTensor:
    name = _name(port)
    kind = port.element_type.get_type_name()
    datatype = _DATATYPE_BY_TYPE.get(kind)
    if datatype is None:
        raise LoadFailed(f"'{name}' is of type {kind}, which the protocol has no datatype for")
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        raise LoadFailed(
            f"'{name}' has any number of dimensions; give it a shape before saving the model "
            "(openvino.Model.reshape)"
        )
    return GraphTensor(
        name, datatype, tuple(-1 if dim.is_dynamic else dim.get_length() for dim in shape)
    )


def _name(port: Any) -> str:
    """One tensor may have several names; where its node has the same one, that is meant."""
    name: str = port.node.friendly_name
    names = port.get_names()
    return name if name in names or not names else min(names)


def _given(name: str, datatype: DataType, array: Array) -> Any:
    if datatype is BYTES:
        return _text(name, array)
    array = np.ascontiguousarray(array)
    if datatype is BF16:
        return openvino.Tensor(array, list(array.shape), openvino.Type.bf16)
    return array


def _text(name: str, array: Array) -> Any:
    tensor = openvino.Tensor(openvino.Type.string, list(array.shape))
    if not array.size:
        return tensor
    try:
        texts = [element.decode() for element in array.flat]
    except UnicodeDecodeError as exc:
        raise InvalidRequest(
            f"input '{name}' holds bytes that are no UTF-8, which OpenVINO takes alone"
        ) from exc
    if any(text.endswith("\0") for text in texts):
        raise InvalidRequest(
            f"input '{name}' holds text that ends with a zero byte, which would be lost"
        )
    tensor.str_data = np.array(texts).reshape(array.shape)
    return tensor


def _translated(exc: RuntimeError) -> ModelportError:
    text = reason(exc)
    if "are incompatible" in text:
        return InvalidRequest(f"OpenVINO: {text}")
    return ModelFailed(f"OpenVINO: {text}")


def reason(exc: Exception) -> str:
    r"""What is worth telling of an error of OpenVINO, which begins with places in its sources.

    >>> reason(RuntimeError("Exception from src/a.cpp:8:\nCheck failed at src/b.cpp:5:\nNo.\n"))
    'No.'
    """
    lines = [line.strip() for line in str(exc).splitlines()]
    telling = [
        line
        for line in lines
        if line and not line.startswith("Exception from ") and " failed at src/" not in line
    ]
    return telling[0] if telling else "no reason given"


_DATATYPE_BY_TYPE: Mapping[str, DataType] = {
    "boolean": dtypes.BOOL,
    "u8": dtypes.UINT8,
    "u16": dtypes.UINT16,
    "u32": dtypes.UINT32,
    "u64": dtypes.UINT64,
    "i8": dtypes.INT8,
    "i16": dtypes.INT16,
    "i32": dtypes.INT32,
    "i64": dtypes.INT64,
    "f16": dtypes.FP16,
    "f32": dtypes.FP32,
    "f64": dtypes.FP64,
    "bf16": dtypes.BF16,
    "string": dtypes.BYTES,
}
