"""Probabilities to a name: the last step of the digit ensembles."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """``probabilities`` FP32 [1, 10] to ``class_label`` BYTES [1, 1] and ``confidence``."""

    def execute(self, requests):
        return [respond(request) for request in requests]


def respond(request):
    probabilities = pb_utils.get_input_tensor_by_name(request, "probabilities").as_numpy()
    best = probabilities.argmax(axis=1)
    labels = np.array([[str(digit).encode()] for digit in best], np.object_)
    confidence = np.take_along_axis(probabilities, best[:, None], axis=1)
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor("class_label", labels), pb_utils.Tensor("confidence", confidence)]
    )
