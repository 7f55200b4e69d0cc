import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import DATATYPE_BY_CONFIG_NAME
from modelport.errors import LoadFailed
from modelport.repository.warmup import Sample, read_samples
from modelport.specs import (
    Control,
    ControlInput,
    ModelConfig,
    ModelInput,
    ModelWarmup,
    SequenceBatching,
    State,
    WarmupInput,
)


def config(
    warmup: ModelWarmup, data_type: str = "TYPE_FP32", dims: tuple[int, ...] = (-1, 2), **more: Any
) -> ModelConfig:
    optional = ModelInput(name="o", data_type="TYPE_BOOL", dims=(1,), optional=True)
    return ModelConfig(
        **{"name": "m", "max_batch_size": 4, **more},
        input=(ModelInput(name="x", data_type=data_type, dims=dims), optional),
        model_warmup=(warmup,),
    )


def warmup(batch_size: int = 1, **x: Any) -> ModelWarmup:
    given = {"data_type": "TYPE_FP32", "dims": (3, 2), **x}
    return ModelWarmup(name="w", batch_size=batch_size, inputs={"x": WarmupInput(**given)})


def only(directory: Path, config: ModelConfig) -> Sample:
    (sample,) = read_samples(directory, config)
    return sample


def test_zeros_have_the_batch_in_front(tmp_path: Path) -> None:
    sample = only(tmp_path, config(warmup(3, zero_data=True)))
    (tensor,) = sample.tensors
    assert (sample.name, sample.batch_size, sample.count) == ("w", 3, 1)
    assert tensor.shape == (1, 3, 2)
    assert tensor.array.dtype == np.float32
    assert not tensor.array.any()
    assert not tensor.array.flags.writeable


def test_model_without_batches_sees_the_dims_as_they_are(tmp_path: Path) -> None:
    plain = config(warmup(zero_data=True), max_batch_size=0)
    assert only(tmp_path, plain).tensors[0].shape == (3, 2)


@pytest.mark.parametrize("data_type", list(DATATYPE_BY_CONFIG_NAME))
@pytest.mark.parametrize("source", ["zero_data", "random_data"])
def test_every_datatype_can_be_made(tmp_path: Path, data_type: str, source: str) -> None:
    given: dict[str, Any] = {"data_type": data_type, source: True}
    made = only(tmp_path, config(warmup(**given), data_type))
    again = only(tmp_path, config(warmup(**given), data_type))
    (tensor,) = made.tensors
    assert tensor.datatype is DATATYPE_BY_CONFIG_NAME[data_type]
    assert tensor.array.dtype == tensor.datatype.numpy
    assert tensor.array.tolist() == again.tensors[0].array.tolist()
    if data_type == "TYPE_STRING":
        assert {type(element) for element in tensor.array.flat} == {bytes}
    assert (len(set(tensor.array.flat)) > 1) == (source == "random_data")


def test_file_is_read_from_the_models_directory(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    values = np.arange(6, dtype=np.float32)
    (tmp_path / "warmup" / "raw").write_bytes(values.tobytes())
    sample = only(tmp_path, config(warmup(input_data_file="raw")))
    assert sample.tensors[0].array.ravel().tolist() == values.tolist()
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"ab", b""))
    (tmp_path / "warmup" / "texts").write_bytes(texts)
    given = warmup(data_type="TYPE_STRING", dims=(2,), input_data_file="texts")
    sample = only(tmp_path, config(given, "TYPE_STRING", (2,)))
    assert sample.tensors[0].array.tolist() == [[b"ab", b""]]


def test_batch_size_0_is_how_a_sample_is_switched_off(tmp_path: Path) -> None:
    assert read_samples(tmp_path, config(warmup(0, zero_data=True))) == ()


def test_controls_and_states_are_stood_in_for_unless_they_are_given(tmp_path: Path) -> None:
    sequences = SequenceBatching(
        control_input=(
            ControlInput(name="start", control=(Control(int32_false_true=(0, 1)),)),
            ControlInput(name="ready", control=(Control(fp32_false_true=(0, 1)),)),
            ControlInput(
                name="id",
                control=(Control(kind="CONTROL_SEQUENCE_CORRID", data_type="TYPE_UINT64"),),
            ),
        ),
        state=(State(input_name="in", output_name="out", data_type="TYPE_FP16", dims=(-1, 2)),),
    )
    given = warmup(zero_data=True)
    given.inputs["start"] = WarmupInput(data_type="TYPE_INT32", dims=(1,), random_data=True)
    sample = only(tmp_path, config(given, sequence_batching=sequences))
    told = {tensor.name: (tensor.datatype.name, tensor.shape) for tensor in sample.tensors}
    assert told == {
        "start": ("INT32", (1, 1)),
        "ready": ("FP32", (1, 1)),
        "id": ("UINT64", (1, 1)),
        "in": ("FP16", (1, 1, 2)),
        "x": ("FP32", (1, 3, 2)),
    }
    assert {tensor.name: tensor.array.any() for tensor in sample.tensors}["start"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (warmup(5, zero_data=True), '"w": batch_size is 5, and the model takes at most 4'),
        (ModelWarmup(batch_size=1), r"model_warmup\[0\]: inputs are missing: x"),
        (warmup(), 'input "x": say zero_data, random_data or input_data_file'),
        (warmup(dims=(-1, 2), zero_data=True), r"dims are \[-1, 2\]; every size has to be"),
        (warmup(dims=(), zero_data=True), r"dims are \[\]; every size has to be"),
        (warmup(dims=(3, 3), zero_data=True), r"dims are \[3, 3\], the model takes \[-1, 2\]"),
        (warmup(dims=(3,), zero_data=True), r"dims are \[3\], the model takes \[-1, 2\] \(with"),
        (
            warmup(data_type="TYPE_FP64", zero_data=True),
            "data_type is TYPE_FP64, the model takes TYPE_FP32",
        ),
        (warmup(input_data_file="../f"), "input_data_file '../f' leads out of the model's"),
        (warmup(input_data_file="gone"), "warmup/gone cannot be read: No such file"),
        (warmup(input_data_file="short"), r"warmup/short has 3 bytes; \[3, 2\] takes 24"),
        (
            ModelWarmup(name="w", batch_size=1, inputs={"z": WarmupInput()}),
            'the model has no input "z"; it has: x, o',
        ),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, given: ModelWarmup, text: str) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "short").write_bytes(b"abc")
    with pytest.raises(LoadFailed, match=text):
        read_samples(tmp_path, config(given))
