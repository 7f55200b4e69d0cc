"""The sum of two vectors, and their difference."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """``OUTPUT0`` is ``INPUT0 + INPUT1``, ``OUTPUT1`` is ``INPUT0 - INPUT1``."""

    def execute(self, requests):
        return [respond(request) for request in requests]


def respond(request):
    left = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
    right = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor("OUTPUT0", left + right), pb_utils.Tensor("OUTPUT1", left - right)]
    )
