"""A model for Triton's Python backend that adds up the numbers of each sequence."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Remembers a sum for each sequence."""

    def initialize(self, args: Any) -> None:
        """Begin with nothing."""
        self.sums: dict[bytes, int] = {}

    def execute(self, requests: Any) -> Any:
        """Add, and tell the sum."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        def value(name: str) -> Any:
            tensor: Any = pb_utils.get_input_tensor_by_name(request, name)
            return tensor.as_numpy().item()

        key = value("CORRID")
        if value("START"):
            self.sums[key] = 0
        self.sums[key] += value("x")
        total = np.array([[self.sums[key]]], np.int32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("sum", total)])
