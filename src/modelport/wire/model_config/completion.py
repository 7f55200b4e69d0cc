"""What a configuration may leave out, and where it then comes from.

``merge`` takes it from the model file, ``complete`` from Triton's defaults. Both are pure: a
configuration in, a configuration out.

Source: Triton's model configuration documentation, "Auto-Generated Model Configuration".
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Final, TypeVar

from modelport.errors import LoadFailed
from modelport.specs import (
    DynamicBatching,
    EnsembleScheduling,
    InstanceGroup,
    Latest,
    ModelConfig,
    ModelInput,
    ModelOutput,
    Optimization,
    PinnedMemory,
    Reshape,
    SequenceBatching,
    VersionPolicy,
)

__all__ = ["complete", "merge"]

T = TypeVar("T", bound=ModelInput | ModelOutput)
Shape = tuple[int, ...]


def complete(
    config: ModelConfig, *, name: str, backend: str = "", default_model_filename: str = ""
) -> ModelConfig:
    """Fill in what Triton fills in when it loads a model; what is given stays.

    Args:
        config: As read, after ``merge``.
        name: Of the model's directory.
        backend: Chosen by whoever looked into the directory; an ensemble has none.
        default_model_filename: Of that backend; the usual one of a known backend is the default.
    """
    name = config.name or name
    if config.ensemble_scheduling is not None or config.platform == "ensemble":
        scheduling = config.ensemble_scheduling
        config = replace(
            config,
            platform="ensemble",
            ensemble_scheduling=None if scheduling is None else _complete_steps(scheduling),
        )
    else:
        backend = config.backend or _BACKEND_BY_PLATFORM.get(config.platform) or backend
        usual = _FILENAME_BY_BACKEND.get(backend, "")
        config = replace(
            config,
            platform=config.platform or _PLATFORM_BY_BACKEND.get(backend, ""),
            backend=backend,
            default_model_filename=config.default_model_filename or default_model_filename or usual,
            instance_group=_complete_groups(config.instance_group, name),
        )
    return replace(
        config,
        name=name,
        version_policy=_complete_policy(config.version_policy),
        optimization=_complete_optimization(config.optimization or Optimization()),
        dynamic_batching=_complete_batching(config.dynamic_batching, config.max_batch_size),
        sequence_batching=_complete_sequences(config.sequence_batching, config.max_batch_size),
    )


def merge(config: ModelConfig, found: ModelConfig) -> ModelConfig:
    """Add to an operator's configuration what the model file says of itself.

    What the operator says stays, and must not contradict the file. Inputs that are not listed are
    added, because the model needs them; of the outputs some may be left out on purpose, so they
    are added only if none is listed.

    Args:
        config: From the operator; empty if there is none.
        found: From the model file. Its ``dims`` leave out the batch dimension if its
            ``max_batch_size`` is above 0. Empty ``dims`` mean that the file does not tell; a scalar
            has ``dims`` (1,) and an empty ``reshape``.

    Raises:
        LoadFailed: If the two contradict each other, naming both sides.
    """
    found = _without_sequence_tensors(found, config.sequence_batching)
    for attribute in ("name", "backend"):
        said, is_so = getattr(config, attribute), getattr(found, attribute)
        if said and is_so and said != is_so:
            raise _contradiction(config, attribute, f'"{said}"', f'"{is_so}"')
    size = _batch_size(config, found)
    merged = replace(
        config,
        max_batch_size=size,
        input=_merge_tensors(config, found, config.input, found.input, size),
        output=_merge_tensors(config, found, config.output, found.output, size),
        parameters={**found.parameters, **config.parameters},
    )
    policy, found_policy = config.model_transaction_policy, found.model_transaction_policy
    if policy is not None and found_policy is not None and policy != found_policy:
        says, is_so = (str(each.decoupled).lower() for each in (policy, found_policy))
        raise _contradiction(config, "model_transaction_policy.decoupled", says, is_so)
    done = {"input", "output", "max_batch_size", "parameters"}
    if any(getattr(config, name) is not None for name in _SCHEDULING):
        done.update(_SCHEDULING)
    rest = [field.name for field in fields(ModelConfig) if field.name not in done]
    # Zero, empty text, empty list and None: nothing of them is ever said on purpose.
    missing = {name: getattr(found, name) for name in rest if not getattr(config, name)}
    return replace(merged, **missing)


def _without_sequence_tensors(found: ModelConfig, given: SequenceBatching | None) -> ModelConfig:
    """Leave out what the sequence batcher gives and takes: callers do not see it."""
    if given is None:
        return found
    inputs = {control.name for control in given.control_input}
    inputs.update(state.input_name for state in given.state)
    outputs = {state.output_name for state in given.state}
    return replace(
        found,
        input=tuple(each for each in found.input if each.name not in inputs),
        output=tuple(each for each in found.output if each.name not in outputs),
    )


def _complete_policy(policy: VersionPolicy | None) -> VersionPolicy:
    if policy is None or policy == VersionPolicy():
        return VersionPolicy(latest=Latest())
    return policy


def _complete_optimization(given: Optimization) -> Optimization:
    return replace(
        given,
        input_pinned_memory=given.input_pinned_memory or PinnedMemory(enable=True),
        output_pinned_memory=given.output_pinned_memory or PinnedMemory(enable=True),
    )


def _complete_groups(groups: Sequence[InstanceGroup], model_name: str) -> tuple[InstanceGroup, ...]:
    return tuple(
        replace(
            group,
            name=group.name or f"{model_name}_{number}",
            # Whoever knows of GPUs has decided already; without, AUTO means CPU.
            kind="KIND_CPU" if group.kind == "KIND_AUTO" else group.kind,
            gpus=() if group.kind == "KIND_AUTO" else group.gpus,
            count=group.count or 1,
        )
        for number, group in enumerate(groups or (InstanceGroup(),))
    )


def _complete_batching(given: DynamicBatching | None, most: int) -> DynamicBatching | None:
    if given is None or given.preferred_batch_size or most < 1:
        return given
    return replace(given, preferred_batch_size=(most,))


def _complete_sequences(given: SequenceBatching | None, most: int) -> SequenceBatching | None:
    if given is None:
        return None
    oldest = given.oldest
    if oldest is not None and not oldest.preferred_batch_size and most > 0:
        oldest = replace(oldest, preferred_batch_size=(most,))
    idle = given.max_sequence_idle_microseconds or _SEQUENCE_IDLE_MICROSECONDS
    return replace(given, oldest=oldest, max_sequence_idle_microseconds=idle)


def _complete_steps(given: EnsembleScheduling) -> EnsembleScheduling:
    # A version directory cannot be called 0, so 0 can only mean "any".
    steps = (replace(step, model_version=step.model_version or -1) for step in given.step)
    return replace(given, step=tuple(steps))


def _batch_size(config: ModelConfig, found: ModelConfig) -> int:
    """Decide ``max_batch_size``, which proto3 cannot say to be 0 on purpose: the ranks tell."""
    known: list[ModelInput | ModelOutput] = [*found.input, *found.output]
    whole = {tensor.name: _whole_shape(tensor, found) for tensor in known}
    if config.max_batch_size > 0:
        for name, shape in whole.items():
            if shape is not None and shape[:1] != (-1,):
                raise LoadFailed(
                    f"{_model(config)}: max_batch_size is {config.max_batch_size}, but "
                    f'"{name}" has the shape {_text(shape)} in the model file, which has no '
                    "variable first dimension to batch along; export the model with one, or set "
                    "max_batch_size to 0 and list all dimensions"
                )
        return config.max_batch_size
    listed: list[ModelInput | ModelOutput] = [*config.input, *config.output]
    for tensor in listed:
        given, shape = _shape(tensor), whole.get(tensor.name)
        if given is not None and shape is not None and len(given) == len(shape):
            return 0
    return found.max_batch_size


def _merge_tensors(
    config: ModelConfig,
    found: ModelConfig,
    given: Sequence[T],
    known: Sequence[T],
    max_batch_size: int,
) -> tuple[T, ...]:
    by_name = {tensor.name: _fitted(tensor, found, max_batch_size > 0) for tensor in known}
    merged = []
    for tensor in given:
        kind = "input" if isinstance(tensor, ModelInput) else "output"
        if known and tensor.name not in by_name:
            raise LoadFailed(
                f'{_model(config)}: unexpected {kind} "{tensor.name}"; the model file has '
                f"{', '.join(by_name)}"
            )
        if tensor.name in by_name:
            tensor = _merge_tensor(f"{_model(config)}, {kind}", tensor, by_name[tensor.name])
        merged.append(tensor)
    listed = {tensor.name for tensor in given}
    adds_missing = not given or isinstance(given[0], ModelInput)
    added = [each for each in by_name.values() if adds_missing and each.name not in listed]
    return (*merged, *added)


def _merge_tensor(where: str, given: T, known: T) -> T:
    where = f'{where} "{given.name}"'
    data_type = given.data_type
    if data_type == "TYPE_INVALID":
        data_type = known.data_type
    elif known.data_type not in ("TYPE_INVALID", data_type):
        raise LoadFailed(
            f"{where}: data_type is {data_type} in the configuration and {known.data_type} in the "
            "model file; set the latter, or leave data_type out"
        )
    dims, reshape = given.dims, given.reshape
    if not dims and reshape is None:
        dims, reshape = known.dims, known.reshape
    elif dims == known.dims and reshape is None:
        reshape = known.reshape
    merged = replace(given, data_type=data_type, dims=dims, reshape=reshape)
    says, is_so = _shape(merged), _shape(known)
    if says is not None and is_so is not None and not _fits(says, is_so):
        raise LoadFailed(
            f"{where}: the configuration says {_text(says)}, the model file has {_text(is_so)} "
            "(without the batch dimension, if max_batch_size is above 0); where the model file "
            "has a number, dims (or reshape) need the same one"
        )
    if isinstance(merged, ModelInput) and isinstance(known, ModelInput):
        return replace(merged, optional=merged.optional or known.optional)
    if isinstance(merged, ModelOutput) and isinstance(known, ModelOutput):
        return replace(merged, label_filename=merged.label_filename or known.label_filename)
    return merged


def _fits(says: Shape, is_so: Shape) -> bool:
    pairs = zip(says, is_so, strict=False)
    return len(says) == len(is_so) and all(known in (-1, said) for said, known in pairs)


def _fitted(tensor: T, found: ModelConfig, is_batched: bool) -> T:
    """Say of a tensor of the model file what its ``dims`` are with, or without, batching."""
    whole = _whole_shape(tensor, found)
    if whole is None or is_batched == (found.max_batch_size > 0):
        return tensor
    shape = whole[1:] if is_batched else whole
    return replace(tensor, dims=shape or (1,), reshape=None if shape else Reshape())


def _whole_shape(tensor: ModelInput | ModelOutput, found: ModelConfig) -> Shape | None:
    shape = _shape(tensor)
    return (-1, *shape) if shape is not None and found.max_batch_size > 0 else shape


def _shape(tensor: ModelInput | ModelOutput) -> Shape | None:
    """Give the shape that the model itself sees; ``None`` where nothing is said."""
    if tensor.reshape is not None:
        return tensor.reshape.shape
    return tensor.dims or None


def _contradiction(config: ModelConfig, field: str, says: str, is_so: str) -> LoadFailed:
    return LoadFailed(
        f"{_model(config)}: {field} is {says} in the configuration and {is_so} in the model file; "
        "set the latter, or leave it out"
    )


def _model(config: ModelConfig) -> str:
    return f'model "{config.name}"' if config.name else "model configuration"


def _text(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


_SCHEDULING: Final = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")
_SEQUENCE_IDLE_MICROSECONDS: Final = 1_000_000

_PLATFORM_BY_BACKEND: Final = {
    "onnxruntime": "onnxruntime_onnx",
    "pytorch": "pytorch_libtorch",
    "tensorrt": "tensorrt_plan",
}
_BACKEND_BY_PLATFORM: Final = {
    platform: backend for backend, platform in _PLATFORM_BY_BACKEND.items()
}
_FILENAME_BY_BACKEND: Final = {
    "onnxruntime": "model.onnx",
    "openvino": "model.xml",
    "python": "model.py",
    "pytorch": "model.pt",
    "tensorrt": "model.plan",
}
