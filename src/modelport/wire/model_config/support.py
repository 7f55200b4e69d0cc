"""Which fields of a configuration we act on, and what to say of the others.

A field that is read but not acted on makes the model refuse to load: whoever wrote it relies on
it. So every field stands in one of the five tables below, a test sees to that, and one that a
later schema adds is refused until somebody has decided.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from modelport.errors import LoadFailed
from modelport.specs import ModelConfig
from modelport.wire.model_config.schema import Field, dotted, fields_of, shown

__all__ = [
    "ACTED_ON",
    "FASTER",
    "GPU_ONLY",
    "HINTS",
    "NOT_YET",
    "left_out",
    "refuse_unsupported",
    "unsupported",
]


def refuse_unsupported(config: ModelConfig) -> None:
    """Refuse a configuration that asks for what is not done.

    Raises:
        LoadFailed: Naming every such field, why, and what to do.
    """
    found = list(unsupported(config))
    if found:
        raise LoadFailed(
            f'model "{config.name}": the configuration asks for what Modelport does not do yet: '
            f"{'; '.join(found)}"
        )


def unsupported(config: ModelConfig) -> Iterator[str]:
    """Give a text for each field that is given and not acted on.

    Args:
        config: Where it is complete it also says what is on a GPU.
    """
    text_by_path = {**NOT_YET, **GPU_ONLY} if _is_on_gpu(config) else NOT_YET
    yield from _unsupported(config, "", "", text_by_path)


def left_out(config: ModelConfig) -> Iterator[str]:
    """Give a text for each field that would make the model faster where Triton runs it.

    Args:
        config: Complete, and not to be refused.
    """
    is_on_gpu = _is_on_gpu(config)
    text_by_path = {
        path: text
        for path, text in FASTER.items()
        if is_on_gpu or path.rpartition(".")[2].startswith("cpu_")
    }
    yield from _unsupported(config, "", "", text_by_path)


def _is_on_gpu(config: ModelConfig) -> bool:
    return any(group.kind == "KIND_GPU" for group in config.instance_group)


def _unsupported(
    record: object, path: str, place: str, text_by_path: Mapping[str, str]
) -> Iterator[str]:
    for name, field in fields_of(type(record)).items():
        value = getattr(record, field.attribute)
        if value == field.default():
            continue
        field_path, field_place = dotted(path, name), dotted(place, name)
        text = text_by_path.get(field_path)
        if text is None and field_path in _FINE:
            continue
        if text is None and field_path in _GROUPS:
            for each, mark in _each(field, value):
                yield from _unsupported(each, field_path, f"{field_place}{mark}", text_by_path)
        else:
            yield f"{field_place}: {text or 'remove it'}"


def _each(field: Field, value: Any) -> Iterator[tuple[Any, str]]:
    match field.container:
        case "one":
            yield value, ""
        case "list":
            yield from ((each, f"[{index}]") for index, each in enumerate(value))
        case "map":
            yield from ((each, f"[{shown(key)}]") for key, each in value.items())


ACTED_ON: Final = frozenset(
    (
        "name",
        "platform",
        "backend",
        "max_batch_size",
        "default_model_filename",
        "metric_tags",
        "version_policy.latest.num_versions",
        "version_policy.all",
        "version_policy.specific.versions",
        "input.name",
        "input.data_type",
        "input.dims",
        "input.reshape.shape",
        "input.optional",
        "output.name",
        "output.data_type",
        "output.dims",
        "output.reshape.shape",
        "output.label_filename",
        "instance_group.name",
        "instance_group.kind",
        "instance_group.count",
        "instance_group.gpus",
        "optimization.graph.level",
        "dynamic_batching.preferred_batch_size",
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching.preserve_ordering",
        "dynamic_batching.priority_levels",
        "dynamic_batching.default_priority_level",
        "dynamic_batching.default_queue_policy",
        "dynamic_batching.priority_queue_policy",
        "sequence_batching.direct.max_queue_delay_microseconds",
        "sequence_batching.direct.minimum_slot_utilization",
        "sequence_batching.oldest.max_candidate_sequences",
        "sequence_batching.oldest.preferred_batch_size",
        "sequence_batching.oldest.max_queue_delay_microseconds",
        # Each instance takes its batches one after another, so that there is nothing to do.
        "sequence_batching.oldest.preserve_ordering",
        "sequence_batching.max_sequence_idle_microseconds",
        "sequence_batching.control_input.name",
        "sequence_batching.control_input.control.kind",
        "sequence_batching.control_input.control.int32_false_true",
        "sequence_batching.control_input.control.fp32_false_true",
        "sequence_batching.control_input.control.bool_false_true",
        "sequence_batching.control_input.control.data_type",
        "sequence_batching.state.input_name",
        "sequence_batching.state.output_name",
        "sequence_batching.state.data_type",
        "sequence_batching.state.dims",
        "sequence_batching.state.initial_state.name",
        "sequence_batching.state.initial_state.data_type",
        "sequence_batching.state.initial_state.dims",
        "sequence_batching.state.initial_state.zero_data",
        "sequence_batching.state.initial_state.data_file",
        "sequence_batching.iterative_sequence",
        "ensemble_scheduling.max_inflight_requests",
        "ensemble_scheduling.step.model_name",
        "ensemble_scheduling.step.model_version",
        "ensemble_scheduling.step.input_map",
        "ensemble_scheduling.step.output_map",
        "parameters.string_value",
        "model_transaction_policy.decoupled",
        "model_metrics",
        "model_warmup",
        "model_repository_agents.agents.name",
        "model_repository_agents.agents.parameters",
        "response_cache.enable",
    )
)
"""What something in us does."""

_SPEED_ONLY: Final = "it concerns speed alone, and what is right here is measured"
_NO_COPY: Final = "nothing is copied to a device, so no memory has to be pinned"
_ONLY_THERE: Final = "it concerns GPUs alone"

HINTS: Final = {
    "input.format": "it tells people what the dimensions are; no tensor is turned around",
    "instance_group.rate_limiter": "as in Triton without `--rate-limit`",
    "instance_group.host_policy": "as in Triton without `--host-policy`",
    "optimization.priority": _SPEED_ONLY,
    "optimization.eager_batching": _SPEED_ONLY,
    "optimization.gather_kernel_buffer_threshold": _ONLY_THERE,
    "optimization.input_pinned_memory.enable": _NO_COPY,
    "optimization.output_pinned_memory.enable": _NO_COPY,
    "optimization.cuda.busy_wait_events": _ONLY_THERE,
    "optimization.cuda.output_copy_stream": _ONLY_THERE,
    "sequence_batching.state.use_same_buffer_for_input_output": _SPEED_ONLY,
    "sequence_batching.state.use_growable_memory": _SPEED_ONLY,
}
"""What promises nothing that a caller could see, so that leaving it out is no breach; and why."""

_NO_CAPTURE: Final = (
    "no CUDA graph is captured; ONNX Runtime does it by its parameter enable_cuda_graph"
)

FASTER: Final = {
    "optimization.cuda.graphs": _NO_CAPTURE,
    "optimization.cuda.graph_spec": _NO_CAPTURE,
    "optimization.execution_accelerators.gpu_execution_accelerator": "the backend executes the "
    "model itself, without an accelerator",
    "optimization.execution_accelerators.cpu_execution_accelerator": "the backend executes the "
    "model itself, without an accelerator; the backend openvino reads ONNX files too",
}
"""What makes a model faster where Triton runs it, and gives the same answers without: left out, and
the log says so; what says something of GPUs only for models that are on one."""

GPU_ONLY: Final = {
    "cc_model_filenames": "no file is chosen by GPU; use default_model_filename",
}
"""What says something of instances on a GPU: passed over for models that have none there, as Triton
does, and refused otherwise."""

NOT_YET: Final = {
    "runtime": "the runtime is chosen by backend; remove it",
    "input.is_shape_tensor": "only TensorRT has shape tensors; remove it",
    "input.allow_ragged_batch": "requests of different shapes are batched apart; remove it, and "
    "let the model take tensors of one shape per batch",
    "input.is_non_linear_format_io": "only TensorRT has such formats; remove it",
    "output.is_shape_tensor": "only TensorRT has shape tensors; remove it",
    "output.is_non_linear_format_io": "only TensorRT has such formats; remove it",
    "batch_input": "no input is made from the batch; let the model take it from its caller",
    "batch_output": "outputs are cut along their first dimension; remove it",
    "ensemble_scheduling.step.model_namespace": "model names are one namespace; remove it",
    "instance_group.secondary_devices": "there is no such device; remove it",
    "instance_group.profile": "only TensorRT has optimization profiles; remove it",
    "instance_group.passive": "every instance takes requests; remove the group",
    "model_operations": "no library of operations is loaded; remove it, and export the model "
    "without operations of its own",
}
"""What is refused when it is given, and what to do about it."""

_FINE: Final = ACTED_ON | HINTS.keys() | FASTER.keys() | GPU_ONLY.keys()
"""What a model that is on no GPU may say."""

_GROUPS: Final = frozenset(
    path[:end] for path in (*_FINE, *NOT_YET) for end in range(len(path)) if path[end] == "."
)
"""Records of which some fields are acted on and others not: one looks inside."""
