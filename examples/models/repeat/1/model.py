"""Words one by one: a stream to try ``generate_stream`` with."""

import numpy as np
import triton_python_backend_utils as pb_utils

MAX_COUNT = 1000
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """Sends each word of ``text_input`` as a response of its own, ``count`` times over."""

    def execute(self, requests):
        for request in requests:
            stream(request)


def stream(request):
    sender = request.get_response_sender()
    try:
        words = read_words(request)
    except ValueError as exc:
        error = pb_utils.TritonError(str(exc), pb_utils.TritonError.INVALID_ARG)
        sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)
        return
    for word in words:
        if sender.is_cancelled():
            break
        tensor = pb_utils.Tensor("text_output", np.array([word], np.object_))
        sender.send(pb_utils.InferenceResponse([tensor]))
    sender.send(flags=FINAL)


def read_words(request):
    """Every word to send, in order; raises ``ValueError`` for a count out of range."""
    (text,) = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy().ravel()
    given = pb_utils.get_input_tensor_by_name(request, "count")
    count = 1 if given is None else int(given.as_numpy().item())
    if not 0 <= count <= MAX_COUNT:
        raise ValueError(f'input "count": expected 0 to {MAX_COUNT}, got {count}')
    return text.split() * count
