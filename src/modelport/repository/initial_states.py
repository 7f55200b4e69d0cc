"""Files that hold what the states of a model's sequences begin with: ``initial_state/<data_file>``.

Source: Triton, "Implicit State Management", section "State Initialization".
"""

from pathlib import Path

from modelport.repository.tensor_files import read_tensor
from modelport.specs import ModelConfig
from modelport.tensors import Array

__all__ = ["DIRECTORY", "read_initial_states"]

DIRECTORY = "initial_state"


def read_initial_states(directory: Path, config: ModelConfig) -> dict[str, Array]:
    """Read the initial states that lie in files.

    Args:
        directory: Of the model.
        config: Complete and checked, names of files included.

    Returns:
        By the name of the state's input, without the batch dimension.

    Raises:
        LoadFailed: If a file is missing, or has another size than its tensor.
    """
    sequences = config.sequence_batching
    states: dict[str, Array] = {}
    for state in sequences.state if sequences is not None else ():
        for initial in state.initial_state:
            if initial.data_file is not None:
                where = f'state "{state.input_name}", {DIRECTORY}/{initial.data_file}'
                states[state.input_name] = read_tensor(
                    directory / DIRECTORY / initial.data_file,
                    state.data_type,
                    initial.dims or state.dims,
                    where,
                )
    return states
