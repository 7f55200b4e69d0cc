from modelport.engine.plan import Plan
from modelport.specs import EnsembleScheduling, EnsembleStep, ModelConfig, ModelInput, ModelOutput


def plan(*steps: EnsembleStep) -> Plan:
    return Plan.of(
        ModelConfig(
            input=(ModelInput(name="x", dims=(1,)),),
            output=(ModelOutput(name="y", dims=(1,)),),
            ensemble_scheduling=EnsembleScheduling(step=steps),
        )
    )


def step(model: str, taken: str, given: str, version: int = -1) -> EnsembleStep:
    """A step that takes ensemble tensors and gives one, by one-letter names."""
    return EnsembleStep(
        model_name=model,
        model_version=version,
        input_map={f"IN{index}": name for index, name in enumerate(taken)},
        output_map={"OUT": given},
    )


DIAMOND = (step("a", "x", "t"), step("b", "t", "u"), step("c", "t", "v"), step("d", "uv", "y"))


def test_steps_know_what_comes_after_them() -> None:
    made = plan(*DIAMOND)
    after = {each.model: sorted(other.model for other in made.after[each]) for each in made.steps}
    assert after == {"a": ["b", "c", "d"], "b": ["d"], "c": ["d"], "d": []}


def test_steps_know_what_they_share() -> None:
    made = plan(*DIAMOND, step("e", "y", "z"), step("f", "zz", "w"))
    shared = {each.model: sorted(each.shared) for each in made.steps}
    # y goes on to e, and to the caller; f takes the same tensor twice.
    assert shared == {"a": [], "b": ["t"], "c": ["t"], "d": [], "e": ["y"], "f": ["z"]}


def test_versions_are_as_the_engine_wants_them() -> None:
    made = plan(step("a", "x", "t"), step("b", "t", "u", 0), step("c", "u", "y", 3))
    assert [each.version for each in made.steps] == [None, None, "3"]
    assert made.steps[0].inputs == (("IN0", "x"),)
    assert made.steps[0].outputs == {"OUT": "t"}


def test_what_is_no_ensemble_has_no_steps() -> None:
    assert Plan.of(ModelConfig()).steps == ()
