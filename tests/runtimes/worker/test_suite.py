"""Runtimes in a worker process keep the contract of runtimes."""

from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from modelport.dtypes import BF16, DataType
from modelport.runtimes.python import PythonRuntime
from modelport.runtimes.triton_python import TritonPythonRuntime
from modelport.runtimes.worker import worker_runtime
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.testing.runtime_suite import Example, RuntimeCase, RuntimeSuite

pytestmark = pytest.mark.slow

MODEL = """
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(config):
            config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [2]})
            config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [2]})
            config.set_max_batch_size(8)
            return config

        def execute(self, requests):
            return [self.answer(request) for request in requests]

        def answer(self, request):
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            if (x < 0).any():
                return pb_utils.InferenceResponse(error=pb_utils.TritonError("negative"))
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", 2 * x)])
"""
DECLARED = """
    import modelport

    @modelport.model(
        inputs={"x": "FP32[-1, 2]"}, outputs={"y": "FP32[-1, 2]"}, max_batch_size=8,
        execution="process",
    )
    async def tried(x):
        if (x < 0).any():
            raise ValueError("x must not be negative")
        return 2 * x
"""
IDENTITY = """
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            return [self.answer(request) for request in requests]

        def answer(self, request):
            (x,) = request.inputs()
            y = pb_utils.Tensor("y", x._array)
            y._datatype = x._datatype
            return pb_utils.InferenceResponse([y])
"""
ROWS = [np.array([[1, 2]], np.float32), np.array([[3, 4]], np.float32)]


def write(source: str, directory: Path) -> None:
    (directory / "model.py").write_text(dedent(source))


def identity(directory: Path, datatype: DataType) -> ModelConfig:
    write(IDENTITY, directory)
    name = datatype.config_name
    return ModelConfig(
        input=(ModelInput(name="x", data_type=name, dims=(-1,)),),
        output=(ModelOutput(name="y", data_type=name, dims=(-1,)),),
        default_model_filename="model.py",
    )


def declared_identity(directory: Path, datatype: DataType) -> ModelConfig:
    dims = f"{datatype.name}[-1]"
    source = f"""
        import modelport

        @modelport.model(inputs={{"x": "{dims}"}}, outputs={{"y": "{dims}"}})
        def tried(x):
            return x
    """
    write(source, directory)
    return ModelConfig(default_model_filename="model.py")


CASE = RuntimeCase(
    runtime=worker_runtime(TritonPythonRuntime),
    filename="model.py",
    write=lambda directory: write(MODEL, directory),
    examples=[Example({"x": rows}, {"y": 2 * rows}) for rows in ROWS],
    poison={"x": -ROWS[0]},
    break_file=lambda directory: write("1 +", directory),
    identity=identity,
)


class TestTritonModelInWorker(RuntimeSuite):
    @pytest.fixture
    def case(self) -> RuntimeCase:
        return CASE


class TestDeclaredModelInWorker(RuntimeSuite):
    """Of coroutines: batches run beside one another over there."""

    @pytest.fixture
    def case(self) -> RuntimeCase:
        return replace(
            CASE,
            runtime=worker_runtime(PythonRuntime),
            write=lambda directory: write(DECLARED, directory),
            identity=declared_identity,
            refused=frozenset({BF16}),
        )
