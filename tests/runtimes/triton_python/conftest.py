import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from modelport.runtimes.triton_python import TritonPythonRuntime
from modelport.specs import ModelConfig, ModelInput, ModelOutput, TransactionPolicy
from modelport.testing.runtime_suite import LoadedModel, load_model

Serve = Callable[..., LoadedModel]

X_TO_Y = ModelConfig(
    input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(-1,)),),
    output=(ModelOutput(name="y", data_type="TYPE_FP32", dims=(-1,)),),
)
DECOUPLED = ModelConfig(
    input=X_TO_Y.input,
    output=X_TO_Y.output,
    model_transaction_policy=TransactionPolicy(decoupled=True),
)

_HEAD = """
import asyncio
import threading
import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

def x_of(request):
    return pb_utils.get_input_tensor_by_name(request, "x").as_numpy()

def y(array):
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", np.asarray(array, np.float32))])

class TritonPythonModel:
"""


def write_model(directory: Path, methods: str, files: Mapping[str, str] | None = None) -> None:
    """Write a ``model.py`` from the methods of its class, and other files by their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    body = textwrap.indent(textwrap.dedent(methods), "    ")
    (directory / "model.py").write_text(_HEAD + body)
    for path, text in (files or {}).items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Load a model written in the test."""
    loaded: list[LoadedModel] = []

    def load(
        methods: str,
        config: ModelConfig = X_TO_Y,
        *,
        name: str = "m",
        files: Mapping[str, str] | None = None,
    ) -> LoadedModel:
        directory = tmp_path / name / "1"
        write_model(directory, methods, files)
        loaded.append(load_model(TritonPythonRuntime, directory, config, name=name))
        return loaded[-1]

    yield load
    for model in loaded:
        model.instance.unload()
