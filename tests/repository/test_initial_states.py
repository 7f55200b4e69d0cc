from pathlib import Path

import numpy as np
import pytest

from modelport.errors import LoadFailed
from modelport.repository.initial_states import read_initial_states
from modelport.specs import InitialState, ModelConfig, SequenceBatching, State


def config_of(data_type: str, dims: tuple[int, ...]) -> ModelConfig:
    initial = InitialState(data_type=data_type, dims=dims, data_file="first")
    state = State(
        input_name="in",
        output_name="out",
        data_type=data_type,
        dims=(-1,) * len(dims),
        initial_state=(initial,),
    )
    zero = State(input_name="zero", initial_state=(InitialState(zero_data=True),))
    return ModelConfig(sequence_batching=SequenceBatching(state=(state, zero)))


def write(directory: Path, content: bytes) -> None:
    (directory / "initial_state").mkdir()
    (directory / "initial_state" / "first").write_bytes(content)


def test_numbers_are_read_as_they_go_over_the_wire(tmp_path: Path) -> None:
    write(tmp_path, bytes.fromhex("0000803f 00000040"))
    states = read_initial_states(tmp_path, config_of("TYPE_FP32", (2, 1)))
    assert states.keys() == {"in"}
    assert states["in"].dtype == np.float32
    assert states["in"].tolist() == [[1.0], [2.0]]


def test_texts_are_read_as_they_go_over_the_wire(tmp_path: Path) -> None:
    write(tmp_path, b"\x02\0\0\0ab\0\0\0\0")
    states = read_initial_states(tmp_path, config_of("TYPE_STRING", (2,)))
    assert states["in"].tolist() == [b"ab", b""]


@pytest.mark.parametrize(
    ("data_type", "content", "text"),
    [
        ("TYPE_FP32", b"123", r"initial_state/first has 3 bytes; \[2\] takes 8"),
        ("TYPE_STRING", b"\x01\0\0\0a", "does not hold 2 elements"),
        ("TYPE_STRING", b"\xff\0\0\0a", "does not hold 2 elements"),
    ],
)
def test_a_file_of_another_size_is_refused(
    tmp_path: Path, data_type: str, content: bytes, text: str
) -> None:
    write(tmp_path, content)
    with pytest.raises(LoadFailed, match=text):
        read_initial_states(tmp_path, config_of(data_type, (2,)))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match='state "in", initial_state/first cannot be read: No such'):
        read_initial_states(tmp_path, config_of("TYPE_FP32", (2,)))


def test_models_without_sequences_have_none(tmp_path: Path) -> None:
    assert read_initial_states(tmp_path, ModelConfig()) == {}
