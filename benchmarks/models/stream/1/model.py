"""Count from 0: the first number at once, then one every 2 ms."""

import asyncio

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        await asyncio.gather(*(_count(request) for request in requests))


async def _count(request):
    sender = request.get_response_sender()
    count = int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy()[0])
    for index in range(count):
        if index:
            await asyncio.sleep(0.002)
        number = pb_utils.Tensor("INDEX", np.array([index], np.int32))
        sender.send(pb_utils.InferenceResponse([number]))
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
