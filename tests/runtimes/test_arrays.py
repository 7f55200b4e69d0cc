from collections.abc import Callable, Sequence

import numpy as np

from modelport.errors import Cancelled, ModelFailed
from modelport.messages import Response
from modelport.runtimes.arrays import Arrays, TensorRuntime
from modelport.runtimes.base import Batch, Outcome
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.tensors import Array
from modelport.testing.fakes import FakeWork, work_of

CONFIG = ModelConfig(
    max_batch_size=8,
    input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(2,)),),
    output=(
        ModelOutput(name="double", data_type="TYPE_FP32", dims=(2,)),
        ModelOutput(name="square", data_type="TYPE_FP32", dims=(2,)),
    ),
)


class Doubling(TensorRuntime):
    """Doubles and squares, and remembers what it was asked for."""

    def __init__(
        self, config: ModelConfig = CONFIG, change: Callable[[Array], Array] | None = None
    ) -> None:
        self.prepare(config)
        self.change = change or (lambda array: array)
        self.asked: list[tuple[list[tuple[int, ...]], Sequence[str]]] = []

    def compute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        self.asked.append(([array.shape for array in inputs.values()], outputs))
        x = inputs["x"]
        if (x < 0).any():
            raise ValueError("negative")
        return {"double": self.change(2 * x), "square": self.change(x * x)}


def work(*rows: Sequence[float], outputs: Sequence[str] = ()) -> FakeWork:
    array = np.array(rows, np.float32).reshape(-1, 2)
    return work_of({"x": array}, rows=len(array), outputs=outputs)


def execute(runtime: Doubling, works: Sequence[FakeWork]) -> Sequence[Outcome]:
    outcomes = runtime.execute(Batch(works, sum(work.rows for work in works)))
    assert isinstance(outcomes, list)
    return outcomes


def told(outcome: Outcome) -> dict[str, object]:
    assert isinstance(outcome, Response)
    return {tensor.name: tensor.array.tolist() for tensor in outcome.outputs}


def test_batch_is_one_call_and_is_cut_by_rows() -> None:
    runtime = Doubling()
    outcomes = execute(runtime, [work([1, 2]), work([3, 4], [5, 6]), work()])
    assert runtime.asked == [([(3, 2)], ["double", "square"])]
    assert [told(outcome)["double"] for outcome in outcomes] == [
        [[2, 4]],
        [[6, 8], [10, 12]],
        [],
    ]


def test_only_outputs_that_somebody_wants_are_computed() -> None:
    runtime = Doubling()
    outcomes = execute(
        runtime, [work([1, 2], outputs=["square"]), work([3, 4], outputs=["square"])]
    )
    assert runtime.asked[0][1] == ["square"]
    assert [list(told(outcome)) for outcome in outcomes] == [["square"], ["square"]]


def test_outputs_come_in_the_order_of_the_model() -> None:
    (outcome,) = execute(Doubling(), [work([1, 2], outputs=["square", "double"])])
    assert list(told(outcome)) == ["double", "square"]


def test_failing_work_fails_alone() -> None:
    runtime = Doubling()
    before, failing, after = execute(runtime, [work([1, 2]), work([-1, 0]), work([3, 4])])
    assert isinstance(failing, ModelFailed)
    assert str(failing) == "ValueError: negative"
    assert told(before)["double"] == [[2, 4]]
    assert told(after)["double"] == [[6, 8]]
    assert len(runtime.asked) == 4


def test_cancelled_work_is_not_tried_again() -> None:
    runtime = Doubling()
    cancelled = work([1, 2])
    cancelled.is_cancelled = True
    outcomes = execute(runtime, [cancelled, work([-1, 0])])
    assert isinstance(outcomes[0], Cancelled)
    assert len(runtime.asked) == 2


def test_works_without_batching_are_computed_one_by_one() -> None:
    runtime = Doubling(ModelConfig(input=CONFIG.input, output=CONFIG.output))
    outcomes = execute(runtime, [work([1, 2]), work([3, 4])])
    assert all(isinstance(outcome, Response) for outcome in outcomes)
    assert len(runtime.asked) == 2


def test_lone_row_is_still_checked_against_the_batch() -> None:
    runtime = Doubling(change=lambda array: array[0])
    (outcome,) = execute(runtime, [work([1, 2], [3, 4], [5, 6])])
    assert isinstance(outcome, ModelFailed)
    assert "has shape [2], and its first dimension must be the batch, which was 3" in str(outcome)


def test_times_of_computing_are_told() -> None:
    batch = Batch([work([1, 2])], 1)
    Doubling().execute(batch)
    assert 0 < batch.inputs_ready_ns <= batch.computed_ns


def test_missing_output_is_the_models_failure() -> None:
    config = ModelConfig(
        input=CONFIG.input,
        output=(ModelOutput(name="cube", data_type="TYPE_FP32", dims=(2,)),),
    )
    (outcome,) = execute(Doubling(config), [work([1, 2])])
    assert str(outcome) == "output 'cube' is declared, and the model did not give it"
