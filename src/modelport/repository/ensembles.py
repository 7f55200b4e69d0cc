"""Whether an ensemble makes sense: its graph, and that its steps fit the models they name.

Pure: configurations in, a configuration or a text out. An ensemble is a set of steps that name
tensors; whoever writes the same name means the same tensor, and the names make the graph.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from msgspec import Struct

from modelport.errors import LoadFailed
from modelport.specs import (
    EnsembleStep,
    ModelConfig,
    ModelInput,
    ModelOutput,
    TransactionPolicy,
)

__all__ = ["complete_ensemble", "is_ensemble", "levels", "member_names"]


def is_ensemble(config: ModelConfig) -> bool:
    """Whether other models execute it."""
    return config.ensemble_scheduling is not None or config.platform == "ensemble"


def member_names(config: ModelConfig) -> tuple[str, ...]:
    """Name the models of an ensemble's steps, each once; none for any other model."""
    if config.ensemble_scheduling is None:
        return ()
    return tuple(dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step))


def levels(members_by_name: Mapping[str, Iterable[str]]) -> tuple[list[list[str]], list[str]]:
    """Sort models such that members come before their ensembles.

    Args:
        members_by_name: Every model to sort, with its members; members that are not among the
            names do not matter.

    Returns:
        Groups of models, each of which needs only models of the groups before it; and the models
        that need themselves, in the end, or need one that does.
    """
    waiting = {
        name: {member for member in members if member in members_by_name}
        for name, members in members_by_name.items()
    }
    groups: list[list[str]] = []
    while free := [name for name, needs in waiting.items() if not needs]:
        groups.append(free)
        for name in free:
            del waiting[name]
        for needs in waiting.values():
            needs.difference_update(free)
    return groups, list(waiting)


def complete_ensemble(
    config: ModelConfig, served: Mapping[str, Mapping[int, ModelConfig]]
) -> ModelConfig:
    """Check an ensemble against its members, and add what follows from them.

    Args:
        config: Of the ensemble.
        served: For each member the versions that are served, with their configurations.

    Returns:
        The configuration, decoupled if one of its members is.

    Raises:
        LoadFailed: If it could never answer; the text names the step.
    """
    scheduling = config.ensemble_scheduling
    if scheduling is None or not scheduling.step:
        raise LoadFailed("an ensemble needs ensemble_scheduling with at least one step")
    steps = [
        _Step(f"step {index} (model '{step.model_name}')", step, _member(index, step, served))
        for index, step in enumerate(scheduling.step)
    ]
    for step in steps:
        _check_maps(step)
        _check_batch(step, config)
    tensors = _producers(config, steps)
    _check_consumers(config, steps, tensors)
    _check_order(config, steps)
    if any(step.config.is_decoupled for step in steps) and not config.is_decoupled:
        return replace(config, model_transaction_policy=TransactionPolicy(decoupled=True))
    return config


class _Step(Struct, frozen=True):
    title: str
    step: EnsembleStep
    config: ModelConfig


class _Tensor(Struct, frozen=True):
    """One end of an edge: who says it, and what it is there."""

    title: str
    data_type: str
    shape: tuple[int, ...]


def _member(
    index: int, step: EnsembleStep, served: Mapping[str, Mapping[int, ModelConfig]]
) -> ModelConfig:
    versions = served.get(step.model_name)
    title = f"step {index}"
    if not step.model_name:
        raise LoadFailed(f"{title} names no model; give model_name")
    if not versions:
        raise LoadFailed(
            f"{title} needs model '{step.model_name}', which is not being served; "
            "load it, or correct model_name"
        )
    if step.model_version <= 0:
        return versions[max(versions)]
    if step.model_version not in versions:
        known = ", ".join(str(version) for version in sorted(versions))
        raise LoadFailed(
            f"{title} needs version {step.model_version} of model '{step.model_name}', "
            f"which is not being served; served are: {known}"
        )
    return versions[step.model_version]


def _check_maps(step: _Step) -> None:
    inputs = {entry.name: entry for entry in step.config.input}
    outputs = {entry.name for entry in step.config.output}
    _check_known(step, "input_map", step.step.input_map, inputs)
    _check_known(step, "output_map", step.step.output_map, outputs)
    for name, entry in inputs.items():
        if name not in step.step.input_map and not entry.optional:
            raise LoadFailed(
                f"{step.title}: input_map does not say where input '{name}' comes from"
            )
    if not step.step.output_map:
        raise LoadFailed(f"{step.title}: output_map is empty, so the step has no purpose")


def _check_known(step: _Step, field: str, names: Mapping[str, str], known: Iterable[str]) -> None:
    known = sorted(known)
    for name, tensor in names.items():
        if name not in known:
            kind = field.removesuffix("_map")
            raise LoadFailed(
                f"{step.title}: {field} names '{name}', and the model has no such {kind}; "
                f"it has: {', '.join(known)}"
            )
        if not tensor:
            raise LoadFailed(f"{step.title}: {field} gives no ensemble tensor for '{name}'")


def _check_batch(step: _Step, config: ModelConfig) -> None:
    if config.max_batch_size > step.config.max_batch_size:
        raise LoadFailed(
            f"{step.title}: the ensemble has max_batch_size {config.max_batch_size}, and the model "
            f"takes at most {step.config.max_batch_size}; lower it in the ensemble"
        )


def _producers(config: ModelConfig, steps: Sequence[_Step]) -> dict[str, _Tensor]:
    producers = {entry.name: _end("the ensemble's input", entry, config) for entry in config.input}
    for step in steps:
        outputs = {entry.name: entry for entry in step.config.output}
        for name, tensor in step.step.output_map.items():
            end = _end(f"{step.title}, output '{name}'", outputs[name], step.config)
            if tensor in producers:
                raise LoadFailed(
                    f"ensemble tensor '{tensor}' is produced twice: by {producers[tensor].title} "
                    f"and by {end.title}; rename one"
                )
            producers[tensor] = end
    return producers


def _check_consumers(
    config: ModelConfig, steps: Sequence[_Step], producers: Mapping[str, _Tensor]
) -> None:
    for step in steps:
        inputs = {entry.name: entry for entry in step.config.input}
        for name, tensor in step.step.input_map.items():
            end = _end(f"{step.title}, input '{name}'", inputs[name], step.config)
            _check_edge(tensor, producers, end)
    for entry in config.output:
        _check_edge(entry.name, producers, _end("the ensemble's output", entry, config))
    consumed = {tensor for step in steps for tensor in step.step.input_map.values()}
    for given in config.input:
        if given.name not in consumed:
            raise LoadFailed(f"the ensemble's input '{given.name}' goes to no step")


def _check_edge(tensor: str, producers: Mapping[str, _Tensor], end: _Tensor) -> None:
    start = producers.get(tensor)
    if start is None:
        raise LoadFailed(
            f"ensemble tensor '{tensor}', used by {end.title}, is neither an input of the ensemble "
            f"nor an output of a step; there are: {', '.join(sorted(producers))}"
        )
    if start.data_type != end.data_type:
        raise LoadFailed(
            f"ensemble tensor '{tensor}' is {start.data_type} as {start.title} gives it, "
            f"and {end.data_type} as {end.title} takes it"
        )
    if not _can_fit(start.shape, end.shape):
        raise LoadFailed(
            f"ensemble tensor '{tensor}' has shape {_shown(start.shape)} as {start.title} gives "
            f"it, and {_shown(end.shape)} as {end.title} takes it"
        )


def _check_order(config: ModelConfig, steps: Sequence[_Step]) -> None:
    maker = {
        tensor: str(index)
        for index, step in enumerate(steps)
        for tensor in step.step.output_map.values()
    }
    needs = {
        str(index): [maker[tensor] for tensor in step.step.input_map.values() if tensor in maker]
        for index, step in enumerate(steps)
    }
    _, stuck = levels(needs)
    if stuck:
        titles = ", ".join(steps[int(index)].title for index in stuck)
        raise LoadFailed(f"these steps wait for one another in a circle: {titles}")


def _end(title: str, entry: ModelInput | ModelOutput, config: ModelConfig) -> _Tensor:
    batch = (-1,) if config.max_batch_size > 0 else ()
    return _Tensor(title, entry.data_type, batch + entry.dims)


def _can_fit(given: tuple[int, ...], taken: tuple[int, ...]) -> bool:
    return len(given) == len(taken) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(given, taken, strict=True)
    )


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"
