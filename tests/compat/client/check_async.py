"""Requests beside one another: greenlets of the ordinary client, and asyncio."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.compat.client.tensors import floats, tensor


def test_greenlets_get_each_its_own_answer(address: str) -> None:
    client = triton.InferenceServerClient(address, concurrency=8)
    asked = [
        client.async_infer("identity", [tensor("INPUT0", floats(number))]) for number in range(64)
    ]
    for number, request in enumerate(asked):
        assert request.get_result().as_numpy("OUTPUT0").tolist() == [number]
    client.close()


def test_errors_come_with_the_result(client: Any) -> None:
    request = client.async_infer("identity", [tensor("WRONG", floats(1))])
    with pytest.raises(InferenceServerException, match="unexpected inference input 'WRONG'"):
        request.get_result()


def test_asyncio_infers_in_every_form(address: str) -> None:
    async def talk(client: Any) -> None:
        for binary in (True, False):
            answer = await client.infer(
                "add_sub",
                [
                    tensor("INPUT0", floats(1, 2, 3, 4), binary=binary),
                    tensor("INPUT1", floats(1, 1, 1, 1), binary=binary),
                ],
                outputs=[triton_aio.InferRequestedOutput("OUTPUT0", binary_data=binary)],
                request_id="a",
            )
            np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), floats(2, 3, 4, 5))
            assert answer.get_response()["id"] == "a"
        for coding in ("gzip", "deflate"):
            values = np.arange(1000, dtype=np.float32)
            answer = await client.infer(
                "identity",
                [tensor("INPUT0", values)],
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), values)

    run(address, talk)


def test_asyncio_requests_run_beside_one_another(address: str) -> None:
    async def talk(client: Any) -> None:
        answers = await asyncio.gather(
            *(client.infer("identity", [tensor("INPUT0", floats(n))]) for n in range(64))
        )
        assert [answer.as_numpy("OUTPUT0")[0] for answer in answers] == list(range(64))

    run(address, talk)


def test_asyncio_knows_health_metadata_and_errors(address: str) -> None:
    async def talk(client: Any) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("digits")
        assert (await client.get_server_metadata())["name"] == "triton"
        assert (await client.get_model_metadata("iris"))["inputs"][0]["name"] == "features"
        assert (await client.get_model_config("iris"))["name"] == "iris"
        assert (await client.get_inference_statistics("iris"))["model_stats"]
        assert await client.get_model_repository_index()
        with pytest.raises(InferenceServerException, match="unknown model: 'nobody'"):
            await client.infer("nobody", [tensor("x", floats(1))])

    run(address, talk)


def run(address: str, talk: Any) -> None:
    async def connected() -> None:
        client = triton_aio.InferenceServerClient(address)
        try:
            await talk(client)
        finally:
            await client.close()

    main: Coroutine[Any, Any, None] = connected()
    asyncio.run(main)
