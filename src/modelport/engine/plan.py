"""The graph of an ensemble, prepared once: what each step needs, gives, and has after it.

Pure: a configuration in, steps out. Whether the graph makes sense was found out when the ensemble
was loaded.
"""

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from modelport.specs import EnsembleStep, ModelConfig

__all__ = ["Plan", "Step"]


class Step(Struct, frozen=True, eq=False):
    """One step.

    Attributes:
        title: What errors call it.
        model: Who executes it.
        version: As ``Engine.resolve`` wants it; ``None`` for the latest.
        inputs: The member's name of each input, and the ensemble's.
        outputs: The ensemble's name of each output by the member's.
        shared: Of the ensemble's names in ``inputs`` those that somebody else gets as well.
    """

    title: str
    model: str
    version: str | None
    inputs: tuple[tuple[str, str], ...]
    outputs: Mapping[str, str]
    shared: frozenset[str]


class Plan(Struct, frozen=True):
    """All steps of an ensemble.

    Attributes:
        steps: In the order of the configuration.
        after: For each step the steps that need it, directly or not.
    """

    steps: tuple[Step, ...]
    after: Mapping[Step, frozenset[Step]]

    @classmethod
    def of(cls, config: ModelConfig) -> "Plan":
        """Prepare the steps of an ensemble's complete configuration."""
        entries = config.ensemble_scheduling.step if config.ensemble_scheduling else ()
        takers = Counter(name for entry in entries for name in entry.input_map.values())
        takers.update(output.name for output in config.output)
        steps = tuple(_step(index, entry, takers) for index, entry in enumerate(entries))
        return cls(steps, _after(steps))


def _step(index: int, entry: EnsembleStep, takers: Mapping[str, int]) -> Step:
    return Step(
        title=f"step {index} (model '{entry.model_name}')",
        model=entry.model_name,
        # -1 and 0 mean the latest.
        version=str(entry.model_version) if entry.model_version > 0 else None,
        inputs=tuple(entry.input_map.items()),
        outputs=dict(entry.output_map),
        shared=frozenset(name for name in entry.input_map.values() if takers[name] > 1),
    )


def _after(steps: tuple[Step, ...]) -> dict[Step, frozenset[Step]]:
    takers: dict[str, set[Step]] = {}
    for step in steps:
        for _, name in step.inputs:
            takers.setdefault(name, set()).add(step)
    after: dict[Step, frozenset[Step]] = {}
    for step in steps:
        found: set[Step] = set()
        waiting = [step]
        while waiting:
            for name in waiting.pop().outputs.values():
                new = takers.get(name, set()) - found
                found |= new
                waiting.extend(new)
        after[step] = frozenset(found)
    return after
