from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.errors import LoadFailed
from modelport.repository.ensembles import complete_ensemble, levels, member_names
from modelport.specs import (
    EnsembleScheduling,
    EnsembleStep,
    ModelConfig,
    ModelInput,
    ModelOutput,
    TransactionPolicy,
)


def takes(
    name: str, data_type: str = "TYPE_FP32", *dims: int, optional: bool = False
) -> ModelInput:
    return ModelInput(name=name, data_type=data_type, dims=dims or (4,), optional=optional)


def gives(name: str, data_type: str = "TYPE_FP32", *dims: int) -> ModelOutput:
    return ModelOutput(name=name, data_type=data_type, dims=dims or (4,))


def step(
    model: str, inputs: dict[str, str], outputs: dict[str, str], version: int = -1
) -> EnsembleStep:
    return EnsembleStep(
        model_name=model, model_version=version, input_map=inputs, output_map=outputs
    )


RESIZE = ModelConfig(name="resize", input=(takes("IMAGE"),), output=(gives("SMALL"),))
DIGITS = ModelConfig(name="digits", input=(takes("X"),), output=(gives("Y", "TYPE_INT64", 1),))
STEPS = (
    step("resize", {"IMAGE": "image"}, {"SMALL": "small"}),
    step("digits", {"X": "small"}, {"Y": "label"}),
)
ENSEMBLE = ModelConfig(
    name="e",
    platform="ensemble",
    input=(takes("image"),),
    output=(gives("label", "TYPE_INT64", 1),),
    ensemble_scheduling=EnsembleScheduling(step=STEPS),
)
SERVED = {"resize": {1: RESIZE}, "digits": {1: DIGITS, 3: DIGITS}}


def with_steps(*steps: EnsembleStep, **changes: Any) -> ModelConfig:
    return replace(ENSEMBLE, ensemble_scheduling=EnsembleScheduling(step=steps), **changes)


def test_a_sound_ensemble_stays_as_it_is() -> None:
    assert complete_ensemble(ENSEMBLE, SERVED) == ENSEMBLE


def test_steps_may_stand_in_any_order() -> None:
    complete_ensemble(with_steps(*reversed(STEPS)), SERVED)


def test_members_are_named_once() -> None:
    assert member_names(with_steps(*STEPS, *STEPS)) == ("resize", "digits")
    assert member_names(RESIZE) == ()


def test_a_decoupled_member_makes_the_ensemble_decoupled() -> None:
    decoupled = replace(DIGITS, model_transaction_policy=TransactionPolicy(decoupled=True))
    assert complete_ensemble(ENSEMBLE, {**SERVED, "digits": {1: decoupled}}).is_decoupled


def test_an_optional_input_need_not_be_mapped() -> None:
    eager = replace(RESIZE, input=(*RESIZE.input, takes("HINT", optional=True)))
    complete_ensemble(ENSEMBLE, {**SERVED, "resize": {1: eager}})


def test_the_version_that_is_asked_for_is_the_one_that_is_checked() -> None:
    other = replace(DIGITS, input=(takes("Z"),))
    steps = (STEPS[0], replace(STEPS[1], model_version=3))
    served = {**SERVED, "digits": {1: DIGITS, 3: other}}
    with pytest.raises(LoadFailed, match="names 'X'"):
        complete_ensemble(with_steps(*steps), served)
    complete_ensemble(with_steps(STEPS[0], replace(STEPS[1], model_version=1)), served)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (with_steps(), "needs ensemble_scheduling with at least one step"),
        (with_steps(replace(STEPS[0], model_name="nobody"), STEPS[1]),
         "step 0 needs model 'nobody', which is not being served"),
        (with_steps(STEPS[0], replace(STEPS[1], model_version=2)),
         "step 1 needs version 2 of model 'digits', which is not being served; served are: 1, 3"),
        (with_steps(step("resize", {"IMG": "image"}, {"SMALL": "small"}), STEPS[1]),
         "step 0 (model 'resize'): input_map names 'IMG', and the model has no such input; "
         "it has: IMAGE"),
        (with_steps(STEPS[0], step("digits", {"X": "small"}, {"OUT": "label"})),
         "step 1 (model 'digits'): output_map names 'OUT'"),
        (with_steps(step("resize", {}, {"SMALL": "small"}), STEPS[1]),
         "step 0 (model 'resize'): input_map does not say where input 'IMAGE' comes from"),
        (with_steps(STEPS[0], step("digits", {"X": "small"}, {})),
         "step 1 (model 'digits'): output_map is empty"),
        (with_steps(STEPS[0], step("digits", {"X": ""}, {"Y": "label"})),
         "input_map gives no ensemble tensor for 'X'"),
        (with_steps(*STEPS, STEPS[1]),
         "ensemble tensor 'label' is produced twice: by step 1 (model 'digits'), output 'Y' and by "
         "step 2 (model 'digits'), output 'Y'"),
        (with_steps(step("resize", {"IMAGE": "image"}, {"SMALL": "image"}), STEPS[1]),
         "ensemble tensor 'image' is produced twice: by the ensemble's input and by step 0"),
        (with_steps(STEPS[0], step("digits", {"X": "smal"}, {"Y": "label"})),
         "ensemble tensor 'smal', used by step 1 (model 'digits'), input 'X', is neither an input "
         "of the ensemble nor an output of a step; there are: image, label, small"),
        (with_steps(*STEPS, output=(gives("score"),)),
         "ensemble tensor 'score', used by the ensemble's output, is neither"),
        (with_steps(*STEPS, output=(gives("label", "TYPE_FP32", 1),)),
         "ensemble tensor 'label' is TYPE_INT64 as step 1 (model 'digits'), output 'Y' gives it, "
         "and TYPE_FP32 as the ensemble's output takes it"),
        (with_steps(*STEPS, output=(gives("label", "TYPE_INT64", 1, 1),)),
         "ensemble tensor 'label' has shape [1] as step 1"),
        (with_steps(*STEPS, input=(takes("image"), takes("spare"))),
         "the ensemble's input 'spare' goes to no step"),
        (with_steps(*STEPS, max_batch_size=8),
         "step 0 (model 'resize'): the ensemble has max_batch_size 8, and the model takes at "
         "most 0"),
        (with_steps(step("resize", {"IMAGE": "label2"}, {"SMALL": "small"}),
                    step("resize", {"IMAGE": "small"}, {"SMALL": "label2"}),
                    step("digits", {"X": "image"}, {"Y": "label"})),
         "these steps wait for one another in a circle: step 0 (model 'resize'), "
         "step 1 (model 'resize')"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_step(config: ModelConfig, text: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        complete_ensemble(config, SERVED)
    assert text in caught.value.text


def test_any_size_fits_any_size_and_the_batch_counts_as_one() -> None:
    batching = {
        "resize": {1: replace(RESIZE, max_batch_size=8, output=(gives("SMALL", "TYPE_FP32", -1),))},
        "digits": {1: replace(DIGITS, max_batch_size=8)},
    }
    complete_ensemble(with_steps(*STEPS, max_batch_size=8), batching)
    unbatched = with_steps(
        *STEPS,
        input=(takes("image", "TYPE_FP32", -1, 4),),
        output=(gives("label", "TYPE_INT64", -1, 1),),
    )
    complete_ensemble(unbatched, batching)
    with pytest.raises(LoadFailed, match=r"shape \[4\] as the ensemble's input"):
        complete_ensemble(with_steps(*STEPS), batching)


def test_levels_put_members_first() -> None:
    groups, stuck = levels({"outer": ["e", "a"], "e": ["a", "b"], "a": [], "b": ["elsewhere"]})
    assert (groups, stuck) == ([["a", "b"], ["e"], ["outer"]], [])


def test_levels_find_circles_and_what_hangs_on_them() -> None:
    groups, stuck = levels({"a": ["b"], "b": ["a"], "c": ["b", "d"], "d": []})
    assert (groups, sorted(stuck)) == ([["d"]], ["a", "b", "c"])


_GRAPHS = st.dictionaries(st.integers(0, 12), st.sets(st.integers(0, 12)))


@given(_GRAPHS)
def test_levels_give_every_model_once_and_after_its_members(graph: dict[int, set[int]]) -> None:
    named = {str(name): [str(member) for member in members] for name, members in graph.items()}
    groups, stuck = levels(named)
    seen: set[str] = set()
    for group in groups:
        assert group
        assert all(set(named[name]) & named.keys() <= seen for name in group)
        seen.update(group)
    assert sorted([*seen, *stuck]) == sorted(named)
    assert all(set(named[name]) & set(stuck) for name in stuck)
