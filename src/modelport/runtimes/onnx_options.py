"""What the parameters of a model configuration say about an ONNX Runtime session.

The names are those of Triton's onnxruntime backend, plus the session's own configuration entries
(``session.*`` and ``optimization.*``), which ONNX Runtime takes without looking at them.

Source: ONNX Runtime ``onnxruntime_session_options_config_keys.h``; Triton onnxruntime backend,
README, "Model Config Options".
"""

import os
from collections.abc import Callable
from typing import Any

import onnxruntime

from modelport.errors import LoadFailed
from modelport.specs import ModelConfig

__all__ = [
    "CPU",
    "KNOWN",
    "SESSION_PREFIXES",
    "Providers",
    "providers_of",
    "session_options",
    "shrinks_arena",
]

Providers = tuple[tuple[str, dict[str, str]], ...]
"""What may execute a graph, with its options, the first one before the others."""

CPU: Providers = (("CPUExecutionProvider", {}),)

SESSION_PREFIXES = ("session.", "optimization.", "ep.", "mlas.")
ARENA_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
FATAL = 4


def session_options(config: ModelConfig, *, instances: int = 1, optimizes: bool = True) -> Any:
    """Make a session's options.

    Threads within an operator are by default the machine's cores divided by the instances, at
    least 1: more instances are asked for in order to run side by side, and sessions that each
    take all cores only wait for one another. They do not spin while they wait, which would take
    the cores from the server and from other models; ``session.intra_op.allow_spinning`` = 1 brings
    that back.

    Args:
        config: For its ``parameters`` and ``optimization``.
        instances: Of the model, in all groups.
        optimizes: Whether the graph is going to be executed, and not only looked at.

    Raises:
        LoadFailed: Naming the parameter and what it accepts.
    """
    options = onnxruntime.SessionOptions()
    # Errors are raised; ONNX Runtime would also write them to standard error.
    options.log_severity_level = FATAL
    if not optimizes:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        return options
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    options.intra_op_num_threads = max(1, (cores or 1) // instances)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _apply_level(options, config)
    for name, parameter in config.parameters.items():
        _apply(options, name, parameter.string_value)
    return options


def providers_of(config: ModelConfig, kind: str, device_id: int) -> Providers:
    """Choose what executes the graph: CUDA on its device, with the CPU for the rest, or the CPU."""
    if kind != "GPU":
        return CPU
    given = {
        name: parameter.string_value
        for name, parameter in config.parameters.items()
        if name in _CUDA_OPTIONS
    }
    return (("CUDAExecutionProvider", {**given, "device_id": str(device_id)}), *CPU)


def shrinks_arena(config: ModelConfig) -> bool:
    """Whether memory is to be given back after each run."""
    return config.parameter(ARENA_SHRINKAGE) != ""


def _apply(options: Any, name: str, text: str) -> None:
    apply = _APPLY_BY_NAME.get(name)
    if apply is not None:
        try:
            apply(options, text)
        except ValueError as exc:
            raise LoadFailed(f"parameter '{name}' is '{text}'; it has to be {exc}") from None
    elif name.startswith(SESSION_PREFIXES):
        options.add_session_config_entry(name, text)


def _apply_level(options: Any, config: ModelConfig) -> None:
    """Apply ``optimization { graph { level }}`` in Triton's meaning of its numbers."""
    graph = config.optimization.graph if config.optimization is not None else None
    if graph is None:
        return
    if graph.level not in _LEVELS:
        raise LoadFailed(
            f"optimization.graph.level is {graph.level}; it has to be 0 (all optimizations), "
            "-1 (basic), 1 (extended) or 2 (none)"
        )
    level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[graph.level])
    options.graph_optimization_level = level


def _set_flag(attribute: str) -> Callable[[Any, str], None]:
    def apply(options: Any, text: str) -> None:
        if text.lower() not in _FLAGS:
            raise ValueError("0 or 1")
        setattr(options, attribute, _FLAGS[text.lower()])

    return apply


def _set_count(attribute: str) -> Callable[[Any, str], None]:
    def apply(options: Any, text: str) -> None:
        if not text.isdecimal():
            raise ValueError("a number of threads, 0 for one per core")
        setattr(options, attribute, int(text))

    return apply


def _set_execution_mode(options: Any, text: str) -> None:
    mode = _EXECUTION_MODES.get(text.lower())
    if mode is None:
        raise ValueError("0 (sequential) or 1 (parallel)")
    options.execution_mode = getattr(onnxruntime.ExecutionMode, mode)


_FLAGS = {"0": False, "1": True, "false": False, "true": True}
_EXECUTION_MODES = {
    "0": "ORT_SEQUENTIAL",
    "sequential": "ORT_SEQUENTIAL",
    "1": "ORT_PARALLEL",
    "parallel": "ORT_PARALLEL",
}
_LEVELS = {
    -1: "ORT_ENABLE_BASIC",
    0: "ORT_ENABLE_ALL",
    1: "ORT_ENABLE_EXTENDED",
    2: "ORT_DISABLE_ALL",
}
_APPLY_BY_NAME: dict[str, Callable[[Any, str], None]] = {
    "intra_op_thread_count": _set_count("intra_op_num_threads"),
    "inter_op_thread_count": _set_count("inter_op_num_threads"),
    "execution_mode": _set_execution_mode,
    "enable_mem_arena": _set_flag("enable_cpu_mem_arena"),
    "enable_mem_pattern": _set_flag("enable_mem_pattern"),
    "use_deterministic_compute": _set_flag("use_deterministic_compute"),
}
_CUDA_OPTIONS = frozenset(
    {
        "arena_extend_strategy",
        "cudnn_conv1d_pad_to_nc1d",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "do_copy_in_default_stream",
        "enable_cuda_graph",
        "gpu_mem_limit",
        "prefer_nhwc",
        "tunable_op_enable",
        "tunable_op_tuning_enable",
        "use_tf32",
    }
)
"""The CUDA provider's own; on a CPU they have nothing to say."""

KNOWN = frozenset({*_APPLY_BY_NAME, ARENA_SHRINKAGE, *_CUDA_OPTIONS})
"""What is known beside the session's own entries."""
