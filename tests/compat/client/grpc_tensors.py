"""Inputs of the gRPC client in one line, and streams in a few."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

WITHIN_S = 20


def tensor(name: str, values: Any, datatype: str = "") -> Any:
    """Make an input of an array; the datatype follows from it where none is given."""
    array = np.asarray(values)
    made = triton.InferInput(name, list(array.shape), datatype or np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


def words(text: str) -> list[Any]:
    """The inputs of the model ``repeat``."""
    return [tensor("text_input", np.array([text.encode()], np.object_), "BYTES")]


class Results:
    """What a stream brings, in order."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        self._queue.put((result, error))

    def next(self) -> Any:
        """Wait for the next response; raise it if it is an error."""
        result, error = self._queue.get(timeout=WITHIN_S)
        if error is not None:
            raise error
        return result

    def next_word(self) -> str:
        word: bytes = self.next().as_numpy("text_output")[0]
        return word.decode()

    def is_empty(self) -> bool:
        return self._queue.empty()


@contextmanager
def streaming(client: Any, **options: Any) -> Iterator[Results]:
    """Open a stream; in the end all that is due has come."""
    results = Results()
    client.start_stream(results, **options)
    yield results
    client.stop_stream()


def is_final(result: Any) -> bool:
    value: bool = result.get_response().parameters["triton_final_response"].bool_param
    return value
