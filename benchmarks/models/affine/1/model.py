"""y = 2.5 x + 0.5: so little work that everything around it is what is measured."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", _input(request) * 2.5 + 0.5)])
            for request in requests
        ]


def _input(request):
    return pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
