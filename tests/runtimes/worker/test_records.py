import json
from pathlib import Path

import pytest

from modelport.custom_metrics import Measure
from modelport.runtimes.base import ModelSource
from modelport.runtimes.worker.records import from_plain, to_plain
from modelport.specs import ModelConfig
from modelport.wire import model_config

CONFIG = """
name: "m"
backend: "python"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] reshape { shape: [ 3 ] } optional: true } ]
output [ { name: "y" data_type: TYPE_STRING dims: [ 1 ] label_filename: "l.txt" } ]
instance_group [ { name: "g" kind: KIND_CPU count: 2 gpus: [ 0, 1 ] } ]
version_policy { specific { versions: [ 1, 3 ] } }
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  priority_levels: 2
  priority_queue_policy { key: 1 value { max_queue_size: 5 } }
}
parameters { key: "execution" value { string_value: "process" } }
model_warmup [ { name: "w" inputs { key: "x" value { data_type: TYPE_FP32 zero_data: true } } } ]
"""

SEQUENCES = """
sequence_batching {
  oldest { max_candidate_sequences: 4 }
  state [ { input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: [ 1 ]
            initial_state { name: "i" zero_data: true data_type: TYPE_FP32 dims: [ 1 ] } } ]
}
"""
CONFIGS = [ModelConfig(), *map(model_config.decode_pbtxt, (CONFIG, SEQUENCES))]


@pytest.mark.parametrize("config", CONFIGS)
def test_configurations_come_back_as_they_were(config: ModelConfig) -> None:
    assert from_plain(ModelConfig, json.loads(json.dumps(to_plain(config)))) == config


def test_sources_come_back_as_they_were() -> None:
    source = ModelSource(
        name="m",
        directory=Path("/models/m"),
        version_directory=Path("/models/m/1"),
        version=1,
        attribute="f",
    )
    assert from_plain(ModelSource, json.loads(json.dumps(to_plain(source)))) == source


def test_measures_come_back_as_they_were() -> None:
    measure = Measure(
        model="m",
        family="f",
        kind="histogram",
        help="",
        buckets=(1.0, 2.0),
        labels=(("a", "b"),),
        verb="observe",
        value=1.5,
    )
    assert from_plain(Measure, json.loads(json.dumps(to_plain(measure)))) == measure
