"""The input, unchanged: for trying a client or timing the way there and back."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """``OUTPUT0`` is ``INPUT0``."""

    def execute(self, requests):
        return [respond(request) for request in requests]


def respond(request):
    values = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", values)])
