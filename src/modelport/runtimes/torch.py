"""Programs that PyTorch saved: TorchScript (``.pt``) and exported programs (``.pt2``).

An exported program tells the names, types and shapes of its inputs and outputs. TorchScript tells
the names of its arguments alone, so its configuration has to list the rest.

Which argument an input is, is decided as in Triton's backend: by the argument's name; else by the
number at the end of ``<name>__<number>``; else by the order in the configuration. Outputs go by
that number, else by their order; those of an export that returns a dict by its keys.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from modelport import dtypes
from modelport.dtypes import BF16, BYTES, DataType
from modelport.errors import InvalidRequest, LoadFailed, ModelFailed, ModelportError
from modelport.runtimes.arrays import Arrays, TensorRuntime
from modelport.runtimes.base import Gpus, LoadContext, ModelSource
from modelport.runtimes.graphs import GraphTensor, complete_from
from modelport.runtimes.parameters import tell_of_unknown
from modelport.runtimes.torch_archive import check_export, check_script, kind_of, sample_inputs
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.tensors import Array

__all__ = ["TorchRuntime"]


class TorchRuntime(TensorRuntime):
    """One program on one device."""

    default_filename: ClassVar[str] = "model.pt"

    def __init__(self) -> None:
        self._program: _Script | _Exported | None = None
        self._device: Any = None
        self._place_by_input: dict[str, int] = {}
        self._place_by_output: dict[str, int] = {}
        self._datatype_by_input: dict[str, DataType] = {}
        self._context: Callable[[], Any] = torch.inference_mode

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Read inputs and outputs from an exported program; of TorchScript only check them."""
        program = _read(source, config, _CPU)
        if isinstance(program, _Script):
            _check_told(program, config)
            return ModelConfig()
        inputs = _renamed(config.input, program.inputs)
        outputs = _renamed(config.output, program.outputs)
        return complete_from(config, inputs, outputs, source.default_max_batch_size)

    @classmethod
    def gpus(cls) -> Gpus:
        """Count those that PyTorch sees."""
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return Gpus(
            count=count,
            are_preferred=True,
            why_none="PyTorch sees none (a build with CUDA is needed, and a driver)",
        )

    def load(self, context: LoadContext) -> None:
        """Read the program to its device."""
        config = context.config
        tell_of_unknown(context, "PyTorch", {*_FLAGS, *_HINTS, *_THREADS})
        for entry in _entries(config):
            if entry.datatype is BYTES:
                raise LoadFailed(f"'{entry.name}' is text, which PyTorch has no tensors of")
        is_on_gpu = context.kind == "GPU"
        self._device = torch.device("cuda", context.device_id) if is_on_gpu else _CPU
        _set_threads(config)
        program = _read(context.source, config, self._device)
        self._place_by_input = places(config.input, program.arguments)
        self._place_by_output = places(config.output, program.results)
        self._datatype_by_input = {entry.name: entry.datatype for entry in config.input}
        if not _flag(config, "INFERENCE_MODE", default=True):
            self._context = torch.no_grad
        self.prepare(config)
        self._program = program

    def compute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run the program."""
        program = self._program
        assert program is not None
        given: list[Any] = [None] * len(program.arguments)
        for name, array in inputs.items():
            tensor = _tensor(array, self._datatype_by_input[name])
            given[self._place_by_input[name]] = tensor.to(self._device)
        try:
            with self._context():
                results = program.run(given)
        except Exception as exc:
            raise _translated(exc) from exc
        return {name: self._result(results, name) for name in outputs}

    def is_ready(self) -> bool:
        """Whether the program is there."""
        return self._program is not None

    def unload(self) -> None:
        """Let the program go, and its memory on a device with it."""
        self._program = None
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _result(self, results: Sequence[Any], name: str) -> Array:
        place = self._place_by_output[name]
        if place >= len(results):
            raise ModelFailed(
                f"output '{name}' is number {place}, and the program gave {len(results)}"
            )
        return _array(name, results[place])


class _Script:
    """A TorchScript program; it tells the names of its arguments, and no more."""

    def __init__(self, module: Any, *, optimizes: bool) -> None:
        schema = module.forward.schema
        self._module = module
        self._optimizes = optimizes
        arguments = schema.arguments[1:]
        strange = [each for each in arguments if str(each.type) not in _TENSOR_TYPES]
        required = [each for each in strange if not each.has_default_value()]
        if required:
            raise LoadFailed(
                f"argument '{required[0].name}' of forward is a {required[0].type}, and only "
                "tensors can be given; wrap the module in one that takes tensors"
            )
        self.arguments = [each.name for each in arguments if each not in strange]
        self._defaults = [each.default_value for each in arguments]
        self.results: list[str] = []

    def run(self, tensors: Sequence[Any]) -> list[Any]:
        given = list(tensors)
        while given and given[-1] is None:
            given.pop()
        with torch.jit.optimized_execution(self._optimizes):
            return _leaves(self._module(*given))


class _Exported:
    """An exported program, which tells everything."""

    def __init__(self, program: Any, device: Any) -> None:
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        signature = program.graph_signature
        value_by_node = {node.name: node.meta.get("val") for node in program.graph.nodes}
        self._module = program.module()
        self._in_spec = program.call_spec.in_spec
        self.inputs = [_graph_tensor(name, value_by_node[name]) for name in signature.user_inputs]
        self.arguments = [tensor.name for tensor in self.inputs]
        names = _result_names(program.call_spec.out_spec, len(signature.user_outputs))
        self.outputs = [
            _graph_tensor(name, value_by_node.get(node))
            for name, node in zip(names, signature.user_outputs, strict=True)
        ]
        self.results = [tensor.name for tensor in self.outputs]

    def run(self, tensors: Sequence[Any]) -> list[Any]:
        arguments, named = torch.utils._pytree.tree_unflatten(list(tensors), self._in_spec)
        return _leaves(self._module(*arguments, **named))


def places(entries: Sequence[ModelInput | ModelOutput], names: Sequence[str]) -> dict[str, int]:
    """Decide which argument or result each entry of the configuration is.

    Args:
        entries: In their order.
        names: What the program calls them, in its order; empty if it does not.

    Raises:
        LoadFailed: If there are more entries than the program has places.
    """
    if names and all(entry.name in names for entry in entries):
        return {entry.name: names.index(entry.name) for entry in entries}
    numbers = [_NUMBERED.fullmatch(entry.name) for entry in entries]
    found = {
        entry.name: index if number is None or None in numbers else int(number[1])
        for index, (entry, number) in enumerate(zip(entries, numbers, strict=True))
    }
    for name, place in found.items():
        if names and place >= len(names):
            raise LoadFailed(
                f"'{name}' is number {place}, counted from 0, and the program has only "
                f"{len(names)}: {', '.join(names)}"
            )
    if len(set(found.values())) < len(found):
        raise LoadFailed(f"two of {', '.join(found)} have the same number")
    return found


def _renamed(
    entries: Sequence[ModelInput | ModelOutput], tensors: Sequence[GraphTensor]
) -> list[GraphTensor]:
    """The tensors of a program by the names that the configuration has for them."""
    place_by_name = places(entries, [tensor.name for tensor in tensors])
    name_by_place = {place: name for name, place in place_by_name.items()}
    return [
        GraphTensor(name_by_place.get(place, tensor.name), tensor.datatype, tensor.shape)
        for place, tensor in enumerate(tensors)
    ]


def _read(source: ModelSource, config: ModelConfig, device: Any) -> "_Script | _Exported":
    file = source.file(config, TorchRuntime.default_filename)
    if not file.is_file():
        raise LoadFailed(f"there is no '{file.name}' in version directory {file.parent.name}")
    kind = kind_of(file)
    if not source.allow_pickle:
        _check(file, kind)
    try:
        if kind == "script":
            module = torch.jit.load(str(file), map_location=device).eval()
            optimizes = not _flag(config, "DISABLE_OPTIMIZED_EXECUTION")
            return _Script(module, optimizes=optimizes)
        return _Exported(torch.export.load(file), device)
    except LoadFailed:
        raise
    except Exception as exc:
        text = _reason(exc).replace(f"{file.parent}/", "")
        raise LoadFailed(f"PyTorch cannot load '{file.name}': {text}") from exc


def _check(file: Path, kind: str) -> None:
    if kind == "script":
        check_script(file)
        return
    check_export(file)
    for pickled in sample_inputs(file):
        try:
            torch.load(io.BytesIO(pickled), weights_only=True)
        except Exception as exc:
            # PyTorch would unpickle them without any restraint next.
            raise LoadFailed(
                f"'{file.name}' holds example inputs that are not tensors alone, which could run "
                "code while they are read, and is refused; for programs that nobody but you could "
                "have written there is --allow-pickle-models"
            ) from exc


def _check_told(program: _Script, config: ModelConfig) -> None:
    """Refuse a configuration that leaves out what TorchScript does not tell."""
    entries = _entries(config)
    is_told = all(entry.dims and entry.data_type != "TYPE_INVALID" for entry in entries)
    if not config.input or not config.output or not is_told:
        names = ", ".join(program.arguments) or "none"
        raise LoadFailed(
            f"a TorchScript file tells neither types nor shapes (its arguments are {names}): list "
            "input and output with data_type and dims in a config.pbtxt, or save the model with "
            "torch.export.save, which tells them"
        )


def _entries(config: ModelConfig) -> list[ModelInput | ModelOutput]:
    return [*config.input, *config.output]


def _set_threads(config: ModelConfig) -> None:
    """Set how many threads PyTorch takes, which is one number for all models of the process."""
    for name, apply in _THREADS.items():
        text = config.parameter(name)
        if not text:
            continue
        if not text.isdecimal() or int(text) < 1:
            raise LoadFailed(f"parameter '{name}' is '{text}'; it has to be a number from 1")
        try:
            apply(int(text))
        except RuntimeError:
            # The threads between operators can be set once, before the first of them is started.
            if torch.get_num_interop_threads() != int(text):
                raise LoadFailed(
                    f"parameter '{name}' is {text}, and PyTorch has started with "
                    f"{torch.get_num_interop_threads()} threads already; give all models the same"
                ) from None


def _flag(config: ModelConfig, name: str, *, default: bool = False) -> bool:
    text = config.parameter(name, str(default)).lower()
    if text not in ("true", "false", "1", "0"):
        raise LoadFailed(f"parameter '{name}' is '{text}'; it has to be true or false")
    return text in ("true", "1")


def _tensor(array: Array, datatype: DataType) -> Any:
    """A copy: programs may write into what they are given, and requests are read-only."""
    if datatype is BF16:
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


def _array(name: str, result: Any) -> Array:
    if not isinstance(result, torch.Tensor):
        result = torch.tensor(result)
    tensor = result.detach().cpu().contiguous()
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ModelFailed(f"output '{name}' is a sparse or quantized tensor, which no output holds")
    if tensor.dtype == torch.bfloat16:
        bits: Array = tensor.view(torch.int16).numpy().view(np.uint16)
        return bits
    array: Array = tensor.numpy()
    return array


def _leaves(result: Any) -> list[Any]:
    leaves: list[Any] = torch.utils._pytree.tree_leaves(result)
    return leaves


def _result_names(spec: Any, count: int) -> list[str]:
    if spec is not None and spec.type is dict and spec.num_children == count:
        return [str(key) for key in spec.context]
    return [f"output__{index}" for index in range(count)]


def _graph_tensor(name: str, value: Any) -> GraphTensor:
    if not isinstance(value, torch.Tensor):
        raise LoadFailed(
            f"'{name}' is a {type(value).__name__} and no tensor; export the model with tensors "
            "alone as inputs and outputs"
        )
    datatype = _DATATYPE_BY_DTYPE.get(value.dtype)
    if datatype is None:
        raise LoadFailed(f"'{name}' is {value.dtype}, which the protocol has no datatype for")
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return GraphTensor(name, datatype, shape)


def _translated(exc: Exception) -> ModelportError:
    text = _reason(exc)
    if isinstance(exc, AssertionError) and "Guard failed" in text:
        return InvalidRequest(f"the program was not exported for such a shape: {text}")
    return ModelFailed(f"PyTorch: {text}")


def _reason(exc: Exception) -> str:
    r"""The line that says what was wrong.

    >>> _reason(RuntimeError("Failed in TorchScript.\nTraceback:\n  x\nRuntimeError: Bad shape"))
    'Bad shape'
    """
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    if not lines:
        return type(exc).__name__
    return lines[-1].removeprefix("RuntimeError: ") if "TorchScript" in lines[0] else lines[0]


_CPU = torch.device("cpu")
_NUMBERED = re.compile(r".*__(\d{1,4})")
_TENSOR_TYPES = ("Tensor", "Optional[Tensor]")
_FLAGS = ("DISABLE_OPTIMIZED_EXECUTION", "INFERENCE_MODE")
_HINTS = (
    # They choose between ways to the same answer.
    "DISABLE_CUDNN",
    "ENABLE_CACHE_CLEANING",
    "ENABLE_JIT_EXECUTOR",
    "ENABLE_JIT_PROFILING",
    "ENABLE_TENSOR_FUSER",
    "ENABLE_NVFUSER",
    "ENABLE_WEIGHT_SHARING",
)
_THREADS: Mapping[str, Callable[[int], None]] = {
    "INTRA_OP_THREAD_COUNT": torch.set_num_threads,
    "INTER_OP_THREAD_COUNT": torch.set_num_interop_threads,
}
_DATATYPE_BY_DTYPE: Mapping[Any, DataType] = {
    torch.bool: dtypes.BOOL,
    torch.uint8: dtypes.UINT8,
    torch.uint16: dtypes.UINT16,
    torch.uint32: dtypes.UINT32,
    torch.uint64: dtypes.UINT64,
    torch.int8: dtypes.INT8,
    torch.int16: dtypes.INT16,
    torch.int32: dtypes.INT32,
    torch.int64: dtypes.INT64,
    torch.float16: dtypes.FP16,
    torch.float32: dtypes.FP32,
    torch.float64: dtypes.FP64,
    torch.bfloat16: dtypes.BF16,
}
