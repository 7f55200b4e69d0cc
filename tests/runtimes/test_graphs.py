from modelport.dtypes import FP32
from modelport.runtimes.graphs import GraphTensor, complete_from
from modelport.specs import DynamicBatching, ModelConfig, SequenceBatching


def test_dynamic_first_dimension_is_the_batch() -> None:
    found = complete_from(ModelConfig(), [GraphTensor("x", FP32, (-1, -1, -1))], [], 8)
    assert found.input[0].dims == (-1, -1)
    assert found.max_batch_size == 8


def test_scheduler_of_the_configuration_stays() -> None:
    given = ModelConfig(sequence_batching=SequenceBatching())
    found = complete_from(given, [GraphTensor("x", FP32, (-1, 3))], [], 8)
    assert found.dynamic_batching is None
    given = ModelConfig(dynamic_batching=DynamicBatching(max_queue_delay_microseconds=5))
    assert complete_from(given, [GraphTensor("x", FP32, (-1, 3))], [], 8).dynamic_batching is None


def test_batch_size_1_needs_no_scheduler() -> None:
    found = complete_from(ModelConfig(), [GraphTensor("x", FP32, (-1, 3))], [], 1)
    assert found.max_batch_size == 1
    assert found.dynamic_batching is None
