"""Answer a small request with COUNT ones."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [_ones(request) for request in requests]


def _ones(request):
    count = int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy()[0])
    return pb_utils.InferenceResponse([pb_utils.Tensor("ONES", np.ones(count, np.float32))])
