"""A repository of models that refuse in every way there is."""

from pathlib import Path

ECHO = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("O", request.inputs()[0].as_numpy())])
            for request in requests
        ]
"""
DECOUPLED = """
FINAL = 1


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            request.get_response_sender().send(flags=FINAL)
"""
TWICE = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for _ in range(2):
                array = request.inputs()[0].as_numpy()
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("O", array)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
RAISING = """
class TritonPythonModel:
    def execute(self, requests):
        raise ValueError("this model never works")
"""
CODED = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        error = pb_utils.TritonError("not these", pb_utils.TritonError.NOT_FOUND)
        return [pb_utils.InferenceResponse(error=error) for request in requests]
"""
BROKEN = """
class TritonPythonModel:
    def initialize(self, args):
        raise ValueError("cannot be loaded")

    def execute(self, requests):
        pass
"""
SLOW = ECHO.replace(
    "def execute(self, requests):",
    """def execute(self, requests):
        import time

        time.sleep(0.4)""",
)
OUTPUT = "output [{ name: 'O' data_type: TYPE_FP32 dims: [ 2 ] }]"
PLAIN = "input [{ name: 'A' data_type: TYPE_FP32 dims: [ 2 ] }]" + OUTPUT

MODELS = {
    "plain": (PLAIN, ECHO),
    "gone": (PLAIN, ECHO),
    "raising": (PLAIN, RAISING),
    "coded": (PLAIN, CODED),
    "broken": (PLAIN, BROKEN),
    "decoupled": (PLAIN + "model_transaction_policy { decoupled: true }", DECOUPLED),
    "two": (
        """
        max_batch_size: 4
        input [
          { name: 'A' data_type: TYPE_FP32 dims: [ 2 ] },
          { name: 'B' data_type: TYPE_FP32 dims: [ 2 ] }
        ]
        """
        + OUTPUT,
        ECHO,
    ),
    "optional": (
        """
        input [
          { name: 'A' data_type: TYPE_FP32 dims: [ 2 ] },
          { name: 'B' data_type: TYPE_FP32 dims: [ 2 ] optional: true }
        ]
        """
        + OUTPUT,
        ECHO,
    ),
    "text": (
        """
        input [{ name: 'A' data_type: TYPE_STRING dims: [ 2 ] }]
        output [{ name: 'O' data_type: TYPE_STRING dims: [ 2 ] }]
        """,
        ECHO,
    ),
    "half": (
        """
        input [{ name: 'A' data_type: TYPE_FP16 dims: [ 2 ] }]
        output [{ name: 'O' data_type: TYPE_FP16 dims: [ 2 ] }]
        """,
        ECHO,
    ),
    "wide": (
        """
        input [{ name: 'A' data_type: TYPE_FP32 dims: [ -1, -1 ] }]
        output [{ name: 'O' data_type: TYPE_FP32 dims: [ -1, -1 ] }]
        """,
        ECHO,
    ),
    "wordy": (
        """
        input [{ name: 'A' data_type: TYPE_STRING dims: [ 1 ] }]
        output [{ name: 'O' data_type: TYPE_STRING dims: [ 1 ] }]
        """,
        ECHO,
    ),
    "twice": (PLAIN + "model_transaction_policy { decoupled: true }", TWICE),
    "picture": (
        """
        input [{ name: 'A' data_type: TYPE_FP32 dims: [ 1, 2, 2, 3 ] }]
        output [{ name: 'O' data_type: TYPE_FP32 dims: [ 1, 2, 2, 3 ] }]
        """,
        ECHO,
    ),
    "cube": (
        """
        input [{ name: 'A' data_type: TYPE_FP32 dims: [ 1, 7, 7, 7 ] }]
        output [{ name: 'O' data_type: TYPE_FP32 dims: [ 1, 7, 7, 7 ] }]
        """,
        ECHO,
    ),
    "sequence": (
        """
        max_batch_size: 4
        sequence_batching {
          control_input [
            {
              name: 'START'
              control [{ kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] }]
            }
          ]
        }
        """
        + PLAIN,
        ECHO,
    ),
    "full": (
        PLAIN
        + """
        max_batch_size: 1
        dynamic_batching { default_queue_policy { max_queue_size: 1 } }
        parameters { key: 'EXECUTION' value: { string_value: 'thread' } }
        """,
        SLOW,
    ),
    "hasty": (
        PLAIN
        + """
        max_batch_size: 1
        dynamic_batching { default_queue_policy { default_timeout_microseconds: 50000 } }
        """,
        SLOW,
    ),
}


def write_models(root: Path) -> None:
    """Write them all, each as Triton has it on disk."""
    for name, (config, code) in MODELS.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.py").write_text(code)
        (root / name / "config.pbtxt").write_text(f"name: '{name}' backend: 'python' {config}")
    (root / "empty").mkdir()
    (root / "empty" / "config.pbtxt").write_text(f"name: 'empty' backend: 'python' {PLAIN}")
