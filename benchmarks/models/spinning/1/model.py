"""Compute in pure Python for 200 ms, holding the interpreter's lock; answer with the input."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [_answer(request) for request in requests]


def _answer(request):
    ends_at = time.perf_counter() + 0.2
    total = 0
    while time.perf_counter() < ends_at:
        total += sum(range(100))
    values = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", values)])
