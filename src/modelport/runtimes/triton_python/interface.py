"""What a model has promised to its callers, and whether what it gives keeps to it.

Triton holds a Python model's responses against its configuration less than one would think: an
output that is not configured is dropped, and one of another datatype goes to the caller as it is.
Models live by both, mostly without knowing, so it is the same here; the log tells, once.
"""

import itertools
from collections.abc import Callable
from typing import Any

from modelport.dtypes import BF16, BYTES, DATATYPE_BY_CONFIG_NAME, UINT16, DataType
from modelport.errors import ModelFailed, ModelportError
from modelport.messages import Response
from modelport.runtimes.base import Work
from modelport.runtimes.triton_python.errors import KIND_BY_CODE, TritonError
from modelport.runtimes.triton_python.tensor import InputTensor, InputView, bytes_array
from modelport.specs import ModelConfig
from modelport.tensors import Tensor

__all__ = ["Interface"]


class Interface:
    """Names and datatypes of one version of a model; shared by all of its requests.

    Args:
        config: Of the model.
        version: A positive integer.
        instance_name: For the texts of errors.
        warn: Writes a line to the log, for whoever looks after the model.

    Attributes:
        model_name: As in its configuration.
        model_version: A positive integer.
        instance_name: For the texts of errors.
        output_names: In the order of the configuration.
        is_decoupled: Whether a request may have no response, or many.
        is_iterative: Whether the model may ask to see a request again.
        has_strings: Whether reading an answer takes longer than a moment.
        as_input: What an input is wrapped into.
    """

    __slots__ = (
        "_outputs",
        "_states",
        "_warn",
        "_warned",
        "as_input",
        "has_strings",
        "instance_name",
        "is_decoupled",
        "is_iterative",
        "model_name",
        "model_version",
        "output_names",
    )

    def __init__(
        self,
        config: ModelConfig,
        *,
        version: int,
        instance_name: str,
        warn: Callable[[str], object],
    ) -> None:
        self._warn = warn
        self._warned: set[str] = set()
        self.model_name = config.name
        self.model_version = version
        self.instance_name = instance_name
        self.is_decoupled = config.is_decoupled
        self.has_strings = any(output.datatype is BYTES for output in config.output)
        self.output_names = [output.name for output in config.output]
        self.as_input = InputView if _has_input_views(config) else InputTensor
        self._outputs: dict[str, tuple[int, DataType]] = {
            output.name: (position, output.datatype)
            for position, output in enumerate(config.output)
        }
        # What the engine keeps for the next request of the sequence is read with every response.
        sequences = config.sequence_batching
        states = sequences.state if sequences is not None else ()
        self._states = frozenset(state.output_name for state in states)
        for state in states:
            datatype = DATATYPE_BY_CONFIG_NAME[state.data_type]
            self._outputs.setdefault(state.output_name, (len(self._outputs), datatype))
        self.is_iterative = sequences is not None and sequences.iterative_sequence

    def read(self, work: Work, response: Any) -> Response | ModelportError:
        """Take a model's ``InferenceResponse`` for the engine's, as far as it was asked for.

        Returns:
            An error where the model says so, or where its response is not what it has declared.
        """
        try:
            error, given, parameters = (
                response._error,
                response._output_tensors,
                response._parameters,
            )
        except AttributeError:
            return self.failure(
                "Expected an 'InferenceResponse' object in the execute function return list, "
                f"found type '{type(response)}'."
            )
        if error is not None:
            return _model_error(error)
        wanted = work.request.outputs
        outputs = []
        last = -1
        in_order = True
        for tensor in given:
            try:
                name = tensor._name
                position, datatype = self._outputs[name]
            except AttributeError:
                return self.failure(
                    f"expected Tensor objects in output_tensors, found type '{type(tensor)}'"
                )
            except KeyError:
                self._warn_once(name, self._unknown(name))
                continue
            if wanted and name not in wanted and name not in self._states:
                continue
            array = tensor._array
            if tensor._datatype is not datatype and not _is_bits_of(datatype, tensor._datatype):
                text = (
                    f"output '{name}' is configured as {datatype.config_name}, and the model gave "
                    f"{tensor._datatype.config_name} (numpy dtype {array.dtype})"
                )
                if name in self._states:
                    return self.failure(text)
                datatype = tensor._datatype
                self._warn_once(name, f"{text}, which callers get")
            if datatype is BYTES:
                array = bytes_array(array)
            if position <= last:
                in_order = False
            last = position
            outputs.append(Tensor(name, datatype, array))
        if not in_order:
            outputs.sort(key=lambda output: self._outputs[output.name][0])
            for before, after in itertools.pairwise(outputs):
                if before.name == after.name:
                    return self.failure(f"output '{after.name}' was given twice")
        return Response(outputs, parameters) if parameters else Response(outputs)

    def failure(self, message: str) -> ModelFailed:
        """An error of the model as a whole, in the sentence that clients know from Triton."""
        return ModelFailed(
            f"Failed to process the request(s) for model '{self.instance_name}', message: {message}"
        )

    def _warn_once(self, output: str, text: str) -> None:
        """Tell what is odd about an output; the first time only, because it will be so again."""
        if output not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(output)
            self._warn(f"instance '{self.instance_name}': {text}")

    def _unknown(self, name: str) -> str:
        known = ", ".join(f"'{known}'" for known in self.output_names)
        return f"the model gave an output '{name}', which is dropped: its configuration has {known}"


def _model_error(error: Any) -> ModelFailed:
    if not isinstance(error, TritonError):
        return ModelFailed(str(error))
    return ModelFailed(error.message(), code=KIND_BY_CODE[error.code()])


def _is_bits_of(wanted: DataType, given: DataType) -> bool:
    """Whether it is bfloat16, of which numpy can only hold the bits."""
    return wanted is BF16 and given is UINT16


def _has_input_views(config: ModelConfig) -> bool:
    return config.parameter("INPUT_VIEWS").lower() in ("true", "yes", "1")


_MOST_WARNINGS = 32
"""A model may make up names as it goes."""
