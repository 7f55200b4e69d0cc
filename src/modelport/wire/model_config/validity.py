"""Whether a configuration makes sense by itself: every rule gives the texts of what breaks it.

Whether an ensemble fits its models is not told here, because their configurations tell it.

Source: Triton's model configuration documentation.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import PurePosixPath, PureWindowsPath
from typing import Final

from modelport.errors import LoadFailed
from modelport.specs import (
    ControlInput,
    DynamicBatching,
    EnsembleStep,
    ModelConfig,
    ModelInput,
    ModelMetrics,
    ModelOutput,
    QueuePolicy,
    SequenceBatching,
    State,
)
from modelport.wire.model_config.schema import ONE_OF_BY_RECORD

__all__ = ["MOST_INSTANCES", "check", "check_written", "problems"]

MOST_INSTANCES = 4096
"""Of a model. A typing error of a few zeros would fill the memory before it is noticed."""


def check(config: ModelConfig, *, name: str = "") -> None:
    """Refuse a complete configuration that makes no sense.

    Args:
        config: After ``complete``.
        name: Of the model's directory; "" if there is none to compare with.

    Raises:
        LoadFailed: With everything that is wrong, not only the first.
    """
    found = list(problems(config, name=name))
    if found:
        raise LoadFailed(f'model "{config.name or name}": {"; ".join(found)}')


def check_written(config: ModelConfig, *, name: str = "") -> None:
    """Refuse a configuration as it is written, where ``merge`` would take it for another.

    Args:
        config: Not yet complete.
        name: Of the model's directory.

    Raises:
        LoadFailed: With everything that is wrong.
    """
    found = [
        *_batch_size(config),
        *_listed_twice("input", config.input),
        *_listed_twice("output", config.output),
    ]
    if found:
        raise LoadFailed(f'model "{config.name or name}": {"; ".join(found)}')


def problems(config: ModelConfig, *, name: str = "") -> Iterator[str]:
    """Give a text for each thing that is wrong: path, what it is, what it should be."""
    if not config.name:
        yield "name is missing"
    elif name and config.name != name:
        yield (
            f'name is "{config.name}", but the directory is called "{name}"; they have to be '
            "the same, or name left out"
        )
    yield from chain(
        _batch_size(config),
        _one_of(config),
        _version_policy(config),
        _tensors("input", config.input),
        _tensors("output", config.output),
        _instance_groups(config),
        _batching(config.dynamic_batching, config.max_batch_size),
        _sequences(config),
        _ensemble(config),
        _filenames(config),
        _metric_tags(config),
        _metrics(config.model_metrics),
    )


def _batch_size(config: ModelConfig) -> Iterator[str]:
    if config.max_batch_size < 0:
        yield f"max_batch_size is {config.max_batch_size}; it cannot be below 0"


def _one_of(config: ModelConfig) -> Iterator[str]:
    for path, record in (("", config), ("version_policy.", config.version_policy)):
        for group in ONE_OF_BY_RECORD[type(record)] if record is not None else ():
            given = [f"{path}{name}" for name in group if getattr(record, name) is not None]
            if len(given) > 1:
                yield f"{' and '.join(given)} exclude one another; keep one"


def _version_policy(config: ModelConfig) -> Iterator[str]:
    policy = config.version_policy
    if policy is None or policy.specific is None:
        return
    versions = policy.specific.versions
    if not versions:
        yield "version_policy.specific.versions is empty; list the versions to serve"
    wrong = [version for version in versions if version < 1]
    if wrong:
        yield f"version_policy.specific.versions has {wrong[0]}; versions are at least 1"


def _listed_twice(kind: str, tensors: Sequence[ModelInput | ModelOutput]) -> Iterator[str]:
    for name in _repeated(tensor.name for tensor in tensors if tensor.name):
        yield f'{kind} "{name}" is listed twice; names have to differ'


def _tensors(kind: str, tensors: Sequence[ModelInput | ModelOutput]) -> Iterator[str]:
    yield from _listed_twice(kind, tensors)
    for index, tensor in enumerate(tensors):
        path = f"{kind}[{index}]"
        if not tensor.name:
            yield f"{path}.name is missing"
        else:
            path = f'{kind} "{tensor.name}"'
        if tensor.data_type == "TYPE_INVALID":
            yield f"{path}: data_type is missing, for example TYPE_FP32"
        if not tensor.dims:
            yield f"{path}: dims is missing; a scalar has dims [1] and an empty reshape"
        wrong = [size for size in tensor.dims if size < 1 and size != -1]
        if wrong:
            yield f"{path}: dims has {wrong[0]}; sizes are at least 1, or -1 for any"
        if isinstance(tensor, ModelInput):
            yield from _format(path, tensor)
        if tensor.reshape is not None and tensor.dims and not wrong:
            yield from _reshape(path, tensor.dims, tensor.reshape.shape)


def _format(path: str, tensor: ModelInput) -> Iterator[str]:
    if tensor.format != "FORMAT_NONE" and len(tensor.dims) != 3:
        yield f"{path}: format {tensor.format} needs 3 dims, there are {len(tensor.dims)}"


def _reshape(path: str, dims: Sequence[int], shape: Sequence[int]) -> Iterator[str]:
    if any(size < 1 and size != -1 for size in shape):
        yield f"{path}: reshape has a size that is neither at least 1 nor -1"
    elif _products(dims) != _products(shape):
        yield (
            f"{path}: dims {list(dims)} cannot be reshaped to {list(shape)}; both need the same "
            "number of elements before, between and after the sizes that are -1"
        )


def _products(shape: Sequence[int]) -> list[int]:
    """Give the number of elements between the variable sizes."""
    products = [1]
    for size in shape:
        if size == -1:
            products.append(1)
        else:
            products[-1] *= size
    return products


def _instance_groups(config: ModelConfig) -> Iterator[str]:
    if config.instance_group and config.ensemble_scheduling is not None:
        yield "instance_group has no meaning for an ensemble; set it for the models of its steps"
    count = sum(group.count for group in config.instance_group)
    if count > MOST_INSTANCES:
        yield f"instance_group asks for {count} instances; at most {MOST_INSTANCES} are made"
    for index, group in enumerate(config.instance_group):
        path = f"instance_group[{index}]"
        if group.count < 0:
            yield f"{path}.count is {group.count}; it cannot be below 0"
        if group.gpus and group.kind in ("KIND_CPU", "KIND_MODEL"):
            yield f"{path}.gpus has no meaning for {group.kind}; remove it"


def _batching(batching: DynamicBatching | None, most: int) -> Iterator[str]:
    if batching is None:
        return
    yield from _preferred("dynamic_batching", batching.preferred_batch_size, most)
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield (
            f"dynamic_batching.default_priority_level is {default}; with priority_levels "
            f"{levels} it has to be from 1 to {levels}"
        )
    if default and not levels:
        yield "dynamic_batching.default_priority_level needs priority_levels"
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            yield (
                f"dynamic_batching.priority_queue_policy[{level}] is for a level that "
                f"priority_levels, {levels}, does not have"
            )
    if batching.preserve_ordering:
        yield from _keeps_no_order(batching)


def _keeps_no_order(batching: DynamicBatching) -> Iterator[str]:
    path = "dynamic_batching"
    if batching.priority_levels > 1:
        yield (
            f"{path}.preserve_ordering and {path}.priority_levels {batching.priority_levels} "
            "exclude one another: who has priority overtakes; keep one"
        )
    policies: dict[str, QueuePolicy | None] = {}
    policies[f"{path}.default_queue_policy"] = batching.default_queue_policy
    for level, own in batching.priority_queue_policy.items():
        policies[f"{path}.priority_queue_policy[{level}]"] = own
    for place, policy in policies.items():
        is_delaying = policy is not None and policy.timeout_action == "DELAY"
        if policy is not None and is_delaying and policy.default_timeout_microseconds:
            yield (
                f"{path}.preserve_ordering and {place}.timeout_action DELAY exclude one another: "
                "who is delayed is overtaken; set REJECT, or leave one out"
            )


def _preferred(path: str, sizes: Iterable[int], most: int) -> Iterator[str]:
    for size in sizes:
        if size < 1:
            yield f"{path}.preferred_batch_size has {size}; sizes are at least 1"
        elif size > most:
            yield f"{path}.preferred_batch_size has {size}, more than max_batch_size, {most}"


def _sequences(config: ModelConfig) -> Iterator[str]:
    sequences, most = config.sequence_batching, config.max_batch_size
    if sequences is None:
        return
    path = "sequence_batching"
    if sequences.direct is not None and sequences.oldest is not None:
        yield f"{path}.direct and {path}.oldest exclude one another; keep one"
    oldest = sequences.oldest
    if oldest is not None:
        yield from _preferred(f"{path}.oldest", oldest.preferred_batch_size, most)
        if oldest.max_candidate_sequences < 1:
            yield (
                f"{path}.oldest.max_candidate_sequences is {oldest.max_candidate_sequences}; it is "
                "how many sequences an instance has at a time, at least 1"
            )
    if sequences.direct is not None:
        share = sequences.direct.minimum_slot_utilization
        if not (math.isfinite(share) and 0 <= share <= 1):
            yield f"{path}.direct.minimum_slot_utilization is {share}; it is a share from 0 to 1"
    kinds = (control.kind for given in sequences.control_input for control in given.control)
    for kind in _repeated(kinds):
        yield f"{path}.control_input has {kind} twice; one tensor carries it"
    for given in sequences.control_input:
        yield from _control(f'{path}.control_input "{given.name}"', given)
    for state in sequences.state:
        yield from _state(f'{path}.state "{state.input_name}"', state)
    yield from _sequence_names(config, sequences)


def _control(path: str, given: ControlInput) -> Iterator[str]:
    if len(given.control) != 1:
        yield f"{path} has {len(given.control)} controls; a tensor carries one"
    for control in given.control:
        pairs = (control.int32_false_true, control.fp32_false_true, control.bool_false_true)
        if control.kind == "CONTROL_SEQUENCE_CORRID":
            if control.data_type not in _ID_TYPES:
                yield f"{path}: data_type is {control.data_type}; ids are {', '.join(_ID_TYPES)}"
            if any(pairs):
                yield f"{path}: CONTROL_SEQUENCE_CORRID has a data_type and no values"
        elif [len(pair) for pair in pairs if pair] != [2]:
            yield (
                f"{path}: {control.kind} needs two values, for false and for true, in one of "
                "int32_false_true, fp32_false_true and bool_false_true"
            )


def _state(path: str, state: State) -> Iterator[str]:
    if state.data_type == "TYPE_INVALID":
        yield f"{path}: data_type is missing, for example TYPE_FP32"
    if not state.dims:
        yield f"{path}: dims is missing"
    wrong = [size for size in state.dims if size < 1 and size != -1]
    if wrong:
        yield f"{path}: dims has {wrong[0]}; sizes are at least 1, or -1 for any"
    if len(state.initial_state) > 1:
        yield f"{path} has {len(state.initial_state)} initial states; keep one"
    for initial in state.initial_state:
        if (initial.zero_data is None) == (initial.data_file is None):
            yield f"{path}: initial_state has either zero_data or data_file"
        if initial.data_type not in ("TYPE_INVALID", state.data_type):
            yield f"{path}: initial_state is {initial.data_type}, and the state {state.data_type}"
        dims = initial.dims
        fits = len(dims) == len(state.dims) and all(
            size >= 0 and known in (-1, size) for size, known in zip(dims, state.dims, strict=False)
        )
        if not fits and (dims or -1 in state.dims):
            yield (
                f"{path}: initial_state has dims {list(dims)}, and the state {list(state.dims)}; "
                "an initial state gives the size of every dimension"
            )


def _sequence_names(config: ModelConfig, sequences: SequenceBatching) -> Iterator[str]:
    inputs = [given.name for given in sequences.control_input]
    inputs += [state.input_name for state in sequences.state]
    if not all(inputs) or not all(state.output_name for state in sequences.state):
        yield "sequence_batching has a tensor without a name"
    for name in _repeated([*(each.name for each in config.input), *inputs]):
        yield f'input "{name}" is listed twice, in input or in sequence_batching; keep one'
    for name in _repeated(state.output_name for state in sequences.state):
        yield f'state "{name}" is listed twice; names have to differ'


def _ensemble(config: ModelConfig) -> Iterator[str]:
    ensemble = config.ensemble_scheduling
    if ensemble is None:
        if config.platform == "ensemble":
            yield 'platform is "ensemble", but ensemble_scheduling is missing'
        return
    if config.platform not in ("", "ensemble") or config.backend:
        chosen = config.backend or config.platform
        yield f'ensemble_scheduling has no meaning for "{chosen}"; set platform to "ensemble"'
    if not ensemble.step:
        yield "ensemble_scheduling.step is missing; an ensemble has at least one step"
        return
    if not config.input or not config.output:
        yield "an ensemble has to list its input and output; no model file tells them"
    for index, step in enumerate(ensemble.step):
        yield from _step(f"ensemble_scheduling.step[{index}]", step)


def _step(path: str, step: EnsembleStep) -> Iterator[str]:
    if not step.model_name:
        yield f"{path}.model_name is missing"
    if step.model_version < 1 and step.model_version != -1:
        yield f"{path}.model_version is {step.model_version}; versions are at least 1, -1 is any"
    for name, given in (("input_map", step.input_map), ("output_map", step.output_map)):
        if not given:
            yield f"{path}.{name} is missing; it maps the model's names to the ensemble's tensors"
        if not all(chain(given, given.values())):
            yield f"{path}.{name} has an empty name"


def _filenames(config: ModelConfig) -> Iterator[str]:
    named = [("default_model_filename", config.default_model_filename)]
    named += [
        (f'output "{each.name}": label_filename', each.label_filename) for each in config.output
    ]
    sequences = config.sequence_batching
    for state in sequences.state if sequences is not None else ():
        named += [
            (f'state "{state.input_name}": data_file', initial.data_file)
            for initial in state.initial_state
            if initial.data_file
        ]
    named += [
        (f'cc_model_filenames["{key}"]', name) for key, name in config.cc_model_filenames.items()
    ]
    for path, filename in named:
        # Both ways of writing paths, so that a repository is not safe on one system only.
        parts = (*PurePosixPath(filename).parts, *PureWindowsPath(filename).parts)
        is_absolute = PurePosixPath(filename).is_absolute() or PureWindowsPath(filename).anchor
        if is_absolute or ".." in parts or "\0" in filename:
            yield f'{path} is "{_printable(filename)}"; it has to lie inside the model\'s directory'


def _metric_tags(config: ModelConfig) -> Iterator[str]:
    for name in config.metric_tags:
        if not _LABEL.fullmatch(name) or name in _OWN_LABELS:
            yield (
                f'metric_tags has "{_printable(name)}"; a Prometheus label starts with a letter '
                "or one _, goes on with letters, digits and _, and is not one of "
                f"{', '.join(_OWN_LABELS)}"
            )


def _metrics(metrics: ModelMetrics | None) -> Iterator[str]:
    for index, control in enumerate(metrics.metric_control if metrics is not None else ()):
        path = f"model_metrics.metric_control[{index}]"
        identifier = control.metric_identifier
        family = identifier.family if identifier is not None else ""
        if family != _OWN_BUCKETS:
            yield (
                f'{path} is for "{_printable(family)}"; the only family with buckets of its own is '
                f"{_OWN_BUCKETS}"
            )
        options = control.histogram_options
        bounds = options.buckets if options is not None else ()
        if not all(math.isfinite(bound) and bound > 0 for bound in bounds) or any(
            low >= high for low, high in pairwise(bounds)
        ):
            yield f"{path}.histogram_options.buckets are {list(bounds)}; they rise, from above 0"


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")  # Prometheus keeps "__" for itself
_OWN_LABELS: Final = ("model", "version", "le", "quantile", "reason", "gpu_uuid")
_ID_TYPES: Final = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")
_OWN_BUCKETS: Final = "nv_inference_first_response_histogram_ms"
"""In milliseconds; what Triton lets a model set, too."""
