from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelport.errors import LoadFailed
from modelport.runtimes.base import ModelSource
from modelport.runtimes.triton_python import TritonPythonRuntime
from modelport.runtimes.triton_python.model_config import ModelConfig as FillableConfig
from modelport.runtimes.triton_python.model_config import completed
from modelport.specs import (
    DynamicBatching,
    ModelConfig,
    ModelInput,
    ModelOutput,
    Oldest,
    SequenceBatching,
    TransactionPolicy,
)

from .conftest import write_model

X = {"name": "x", "data_type": "TYPE_FP32", "dims": [4]}
Y = {"name": "y", "data_type": "TYPE_STRING", "dims": [-1]}


def fill(config: ModelConfig, *steps: Callable[[FillableConfig], None]) -> ModelConfig:
    fillable = FillableConfig(config)
    for step in steps:
        step(fillable)
    return completed(config, fillable)


def test_what_a_model_declares_becomes_its_configuration() -> None:
    found = fill(
        ModelConfig(name="m"),
        lambda c: c.set_max_batch_size(8),
        lambda c: c.set_dynamic_batching(),
        lambda c: c.add_input(X),
        lambda c: c.add_input({**X, "name": "bias", "optional": True}),
        lambda c: c.add_output(Y),
        lambda c: c.set_model_transaction_policy({"decoupled": True}),
    )
    assert found == ModelConfig(
        name="m",
        max_batch_size=8,
        input=(
            ModelInput(name="x", data_type="TYPE_FP32", dims=(4,)),
            ModelInput(name="bias", data_type="TYPE_FP32", dims=(4,), optional=True),
        ),
        output=(ModelOutput(name="y", data_type="TYPE_STRING", dims=(-1,)),),
        dynamic_batching=DynamicBatching(),
        model_transaction_policy=TransactionPolicy(decoupled=True),
    )


def test_what_is_configured_is_kept_where_the_model_says_the_same() -> None:
    config = ModelConfig(
        max_batch_size=4,
        input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(4,), allow_ragged_batch=True),),
        output=(ModelOutput(name="y", data_type="TYPE_STRING", label_filename="l.txt"),),
        dynamic_batching=DynamicBatching(max_queue_delay_microseconds=5),
        model_transaction_policy=TransactionPolicy(decoupled=True),
    )
    found = fill(
        config,
        lambda c: c.set_max_batch_size(4),
        lambda c: c.set_dynamic_batching(),
        lambda c: c.add_input(X),
        lambda c: c.add_output(Y),
        lambda c: c.set_model_transaction_policy({"decoupled": True}),
    )
    (output,) = config.output
    assert found == replace(config, output=(replace(output, dims=(-1,)),))


def test_dictionary_has_the_form_of_triton_s_json() -> None:
    config = ModelConfig(
        name="m",
        input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(4,)),),
        dynamic_batching=DynamicBatching(preferred_batch_size=(2, 4)),
    )
    fields = FillableConfig(config).as_dict()
    assert fields["input"][0]["dims"] == [4]
    assert fields["output"] == []
    assert fields["dynamic_batching"]["preferred_batch_size"] == [2, 4]
    assert "sequence_batching" not in fields
    assert fields["max_batch_size"] == 0


@pytest.mark.parametrize(
    ("config", "step", "text"),
    [
        (ModelConfig(), lambda c: c.add_input({"data_type": "TYPE_FP32"}), "missing 'name'"),
        (ModelConfig(), lambda c: c.add_input({"name": "x"}), "missing 'data_type'"),
        (
            ModelConfig(),
            lambda c: c.add_output({"name": "x", "data_type": "TYPE_FP32"}),
            "missing 'dims'",
        ),
        (ModelConfig(), lambda c: c.add_input({**X, "shape": [1]}), "contains property 'shape'"),
        (ModelConfig(), lambda c: c.add_output({**Y, "optional": True}), "property 'optional'"),
        (ModelConfig(), lambda c: c.add_input({**X, "data_type": "FP32"}), "data_type 'FP32'"),
        (
            ModelConfig(input=(ModelInput(name="x", data_type="TYPE_INT8", dims=(4,)),)),
            lambda c: c.add_input(X),
            "configuration expects data_type TYPE_INT8 for input 'x', model provides TYPE_FP32",
        ),
        (
            ModelConfig(output=(ModelOutput(name="y", data_type="TYPE_STRING", dims=(2,)),)),
            lambda c: c.add_output(Y),
            r"configuration expects dims \[2\] for output 'y', model provides \[-1\]",
        ),
        (ModelConfig(max_batch_size=8), lambda c: c.set_max_batch_size(4), "specified max-batch 8"),
        (
            ModelConfig(sequence_batching=SequenceBatching(oldest=Oldest())),
            lambda c: c.set_dynamic_batching(),
            "scheduling_choice as 'sequence_batching'",
        ),
        (
            ModelConfig(),
            lambda c: c.set_model_transaction_policy({"coupled": True}),
            "property other than 'decoupled'",
        ),
        (
            ModelConfig(model_transaction_policy=TransactionPolicy(decoupled=False)),
            lambda c: c.set_model_transaction_policy({"decoupled": True}),
            "specified decoupled as False",
        ),
        (
            ModelConfig(),
            lambda c: c.as_dict().update(instance_group=[{"count": 4}]),
            "changed 'instance_group'",
        ),
    ],
)
def test_contradiction_is_refused(
    config: ModelConfig, step: Callable[[FillableConfig], None], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        fill(config, step)


class TestComplete:
    def complete(self, directory: Path, methods: str) -> ModelConfig:
        write_model(directory / "1", methods)
        source = ModelSource(
            name="m", directory=directory, version_directory=directory / "1", version=1
        )
        return TritonPythonRuntime.complete(source, ModelConfig(name="m"))

    def test_model_without_the_function_adds_nothing(self, tmp_path: Path) -> None:
        found = self.complete(tmp_path, "def execute(self, requests): ...")
        assert found == ModelConfig(name="m")

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ("return None", "TypeError: expected a ModelConfig back, got NoneType"),
            (
                "raise KeyError('x')",
                "auto_complete_config failed in 'model.py' line 17: KeyError: 'x'",
            ),
            ("config.set_max_batch_size(1); return config.as_dict()", "ModelConfig back, got dict"),
        ],
    )
    def test_failure_is_a_failed_load(self, tmp_path: Path, body: str, text: str) -> None:
        methods = f"@staticmethod\ndef auto_complete_config(config): {body}\nexecute = print"
        with pytest.raises(LoadFailed, match=text):
            self.complete(tmp_path, methods)

    def test_model_may_look_into_its_directory_and_log(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        methods = """
        @staticmethod
        def auto_complete_config(config):
            pb_utils.Logger.log_warn(pb_utils.get_model_dir())
            return config
        execute = print
        """
        self.complete(tmp_path, methods)
        assert caplog.messages == [str(tmp_path / "1")]
