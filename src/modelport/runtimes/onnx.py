"""ONNX models, executed by ONNX Runtime.

The session releases the GIL while it computes, so instances run truly beside one another. Arrays
go in without a copy. Binding inputs and outputs was tried: it is slower on a CPU (27 µs instead of
21 µs for 600 KB; ONNX Runtime 1.31), because what it saves, memory of devices, is not there.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime

from modelport import dtypes
from modelport.dtypes import BF16, BYTES, DataType
from modelport.errors import InvalidRequest, LoadFailed, ModelFailed, ModelportError
from modelport.runtimes.arrays import Arrays, TensorRuntime
from modelport.runtimes.base import Gpus, LoadContext, ModelSource
from modelport.runtimes.graphs import GraphTensor, check_names, complete_from
from modelport.runtimes.nvidia import count_gpus
from modelport.runtimes.onnx_options import (
    CPU,
    KNOWN,
    SESSION_PREFIXES,
    Providers,
    providers_of,
    session_options,
    shrinks_arena,
)
from modelport.runtimes.parameters import tell_of_unknown
from modelport.specs import ModelConfig
from modelport.tensors import Array

__all__ = ["OnnxRuntime"]


class OnnxRuntime(TensorRuntime):
    """One session of ONNX Runtime."""

    default_filename: ClassVar[str] = "model.onnx"

    def __init__(self) -> None:
        self._session: Any = None
        self._run: Callable[[Arrays, Sequence[str]], Arrays] = self._run_arrays
        self._text_inputs: tuple[str, ...] = ()
        self._run_options: Any = None

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Read inputs and outputs from the graph, and whether it can batch.

        A graph can batch if the first dimension of every input and output is dynamic. Then the
        batch is left out of the dimensions, and the model gets the default ``max_batch_size``
        with dynamic batching; unless the configuration gives dimensions that include the batch.
        """
        file = model_file(source, config)
        # Nothing is computed here, so nothing is worth optimizing or starting threads for.
        session = _open(file, session_options(ModelConfig(), optimizes=False))
        return complete_from(
            config,
            [_graph_tensor(node) for node in session.get_inputs()],
            [_graph_tensor(node) for node in session.get_outputs()],
            source.default_max_batch_size,
        )

    @classmethod
    def gpus(cls) -> Gpus:
        """Count those that CUDA shows, where ONNX Runtime was installed with it."""
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return Gpus(
                why_none="ONNX Runtime was installed without CUDA (onnxruntime-gpu brings it)"
            )
        return Gpus(count=count_gpus(), are_preferred=True, why_none="the driver shows none")

    def load(self, context: LoadContext) -> None:
        """Open a session with the options that the configuration's ``parameters`` give."""
        config = context.config
        tell_of_unknown(context, "ONNX Runtime", KNOWN, prefixes=SESSION_PREFIXES)
        options = session_options(config, instances=_instances(config))
        providers = providers_of(config, context.kind, context.device_id)
        session = _open(model_file(context.source, config), options, providers)
        if session.get_providers()[0] != providers[0][0]:
            # It falls back to the CPU by itself where the libraries of CUDA are not found.
            raise LoadFailed(
                "ONNX Runtime cannot start its CUDA provider here; its log says why. Install the "
                "CUDA libraries that it was built for, or set instance_group kind to KIND_CPU"
            )
        tensors = [_graph_tensor(node) for node in (*session.get_inputs(), *session.get_outputs())]
        check_names(config, {tensor.name for tensor in tensors})
        self.prepare(config)
        self._text_inputs = tuple(entry.name for entry in config.input if entry.datatype is BYTES)
        if any(tensor.datatype is BF16 for tensor in tensors):
            self._run = self._run_values
        if shrinks_arena(config):
            self._run_options = onnxruntime.RunOptions()
            self._run_options.add_run_config_entry(
                "memory.enable_memory_arena_shrinkage",
                config.parameter("memory.enable_memory_arena_shrinkage"),
            )
        self._session = session

    def compute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run the graph as far as the outputs need it."""
        if self._text_inputs:
            inputs = {**inputs, **{name: _decoded(name, inputs) for name in self._text_inputs}}
        try:
            return self._run(inputs, outputs)
        except Exception as exc:
            raise _translated(exc) from exc

    def is_ready(self) -> bool:
        """Whether the session is open."""
        return self._session is not None

    def unload(self) -> None:
        """Close the session; its arena goes back to the system with it."""
        self._session = None

    def _run_arrays(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        computed = self._session.run(outputs, inputs, self._run_options)
        return dict(zip(outputs, computed, strict=True))

    def _run_values(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """The same for graphs with BF16, which numpy does not have: arrays become OrtValues."""
        bf16_inputs = {
            node.name for node in self._session.get_inputs() if node.type == "tensor(bfloat16)"
        }
        values = {
            name: _bf16_value(array)
            if name in bf16_inputs
            else onnxruntime.OrtValue.ortvalue_from_numpy(array)
            for name, array in inputs.items()
        }
        computed = self._session.run_with_ort_values(outputs, values, self._run_options)
        return {name: _array(value) for name, value in zip(outputs, computed, strict=True)}


def model_file(source: ModelSource, config: ModelConfig) -> Path:
    """The graph's file; a directory of that name holds the graph beside its external data."""
    file = source.file(config, OnnxRuntime.default_filename)
    return file / OnnxRuntime.default_filename if file.is_dir() else file


def _instances(config: ModelConfig) -> int:
    return sum(max(group.count, 1) for group in config.instance_group) or 1


def _graph_tensor(node: Any) -> GraphTensor:
    datatype = _DATATYPE_BY_TYPE.get(node.type)
    if datatype is None:
        raise LoadFailed(f"'{node.name}' is a {node.type}, which the protocol has no datatype for")
    # A dimension is a number, a symbol, or None where the graph says nothing.
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
    return GraphTensor(node.name, datatype, shape)


def _open(file: Path, options: Any, providers: Providers = CPU) -> Any:
    if not file.is_file():
        raise LoadFailed(f"there is no '{file.name}' in version directory {file.parent.name}")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=list(providers))
    except Exception as exc:
        text = first_line(str(exc)).replace(f"{file.parent}/", "")
        raise LoadFailed(f"ONNX Runtime cannot load '{file.name}': {text}") from exc


def _decoded(name: str, inputs: Arrays) -> Array:
    """Text as the strings that ONNX Runtime takes."""
    array = inputs[name]
    decoded = np.empty(array.shape, object)
    try:
        decoded.reshape(-1)[:] = [element.decode() for element in array.flat]
    except UnicodeDecodeError as exc:
        raise InvalidRequest(
            f"input '{name}' holds bytes that are no UTF-8, which ONNX strings have to be"
        ) from exc
    return decoded


def _bf16_value(array: Array) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        np.ascontiguousarray(array), _ONNX_BFLOAT16
    )


def _array(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        array: Array = value.numpy()
        return array
    # numpy() refuses BF16; DLPack, too. The memory is the value's: copy before it goes.
    import ctypes

    size = value.tensor_size_in_bytes()
    memory = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(memory, np.uint16).reshape(value.shape())


def _translated(exc: Exception) -> ModelportError:
    text = first_line(str(exc))
    if isinstance(exc, _CALLERS_FAULT):
        return InvalidRequest(f"ONNX Runtime: {text}")
    return ModelFailed(f"ONNX Runtime: {text}")


def first_line(text: str) -> str:
    r"""What is worth telling in an error of ONNX Runtime: no code, no place in its sources.

    >>> first_line("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Bad shape\n index: 1 Got: 4")
    'Bad shape; index: 1 Got: 4'
    """
    text = _PREFIX.sub("", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Of a wrong shape the first line says the input, and the next ones which axis.
    return "; ".join(lines[:2]) if lines else "no reason given"


_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (\S*\.(cc|h):\d+ .*?\)? )?")
_CALLERS_FAULT = (
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
    # Missing inputs; the engine looks at that first.
    ValueError,
)
_ONNX_BFLOAT16 = 16
_DATATYPE_BY_TYPE: Mapping[str, DataType] = {
    "tensor(bool)": dtypes.BOOL,
    "tensor(uint8)": dtypes.UINT8,
    "tensor(uint16)": dtypes.UINT16,
    "tensor(uint32)": dtypes.UINT32,
    "tensor(uint64)": dtypes.UINT64,
    "tensor(int8)": dtypes.INT8,
    "tensor(int16)": dtypes.INT16,
    "tensor(int32)": dtypes.INT32,
    "tensor(int64)": dtypes.INT64,
    "tensor(float16)": dtypes.FP16,
    "tensor(float)": dtypes.FP32,
    "tensor(double)": dtypes.FP64,
    "tensor(string)": dtypes.BYTES,
    "tensor(bfloat16)": dtypes.BF16,
}
