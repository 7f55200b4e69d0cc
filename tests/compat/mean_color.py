"""A model for Triton's Python backend that takes pictures."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Tells the mean of each channel, in the order in which the pixels have them."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Say what it takes and gives."""
        config.set_max_batch_size(8)
        config.add_input({"name": "image", "data_type": "TYPE_FP32", "dims": [6, 4, 3]})
        config.add_output({"name": "mean", "data_type": "TYPE_FP32", "dims": [3]})
        return config

    def execute(self, requests: Any) -> Any:
        """Take the mean over height and width."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        image: Any = pb_utils.get_input_tensor_by_name(request, "image")
        mean = image.as_numpy().mean(axis=(1, 2))
        return pb_utils.InferenceResponse([pb_utils.Tensor("mean", mean)])
