"""Answer with 2 x and with the generation of this code, which the reload workload rewrites."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils

GENERATION = 1


class TritonPythonModel:
    def initialize(self, args):
        # Long enough that the load is seen to go on meanwhile.
        time.sleep(0.1)

    def execute(self, requests):
        time.sleep(0.001)
        return [_answer(request) for request in requests]


def _answer(request):
    values = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
    doubled = pb_utils.Tensor("OUTPUT0", values * 2)
    generation = pb_utils.Tensor("GENERATION", np.full((len(values), 1), GENERATION, np.int32))
    return pb_utils.InferenceResponse([doubled, generation])
