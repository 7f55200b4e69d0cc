"""Compute in pure Python for 10 ms of processor time; answer with the input.

Processor time and not the clock's: two of these that take turns need 20 ms.
"""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [_answer(request) for request in requests]


def _answer(request):
    ends_at = time.thread_time() + 0.01
    total = 0
    while time.thread_time() < ends_at:
        total += sum(range(100))
    values = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", values)])
