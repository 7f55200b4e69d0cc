"""The asyncio client over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from tests.compat.client.grpc_tensors import floats, tensor, words


def run(talk: Any, address: str) -> None:
    async def main() -> None:
        async with triton.InferenceServerClient(address) as client:
            await talk(client)

    asyncio.run(main())


def test_it_infers(address: str) -> None:
    async def talk(client: Any) -> None:
        for compression in (None, "gzip", "deflate"):
            answer = await client.infer(
                "add_sub",
                [tensor("INPUT0", floats(1, 2, 3, 4)), tensor("INPUT1", floats(1, 1, 1, 1))],
                outputs=[triton.InferRequestedOutput("OUTPUT0")],
                request_id="a",
                compression_algorithm=compression,
            )
            np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), floats(2, 3, 4, 5))
            assert answer.get_response().id == "a"

    run(talk, address)


def test_requests_beside_one_another_get_each_its_own_answer(address: str) -> None:
    async def talk(client: Any) -> None:
        async def one(number: int) -> None:
            answer = await client.infer("identity", [tensor("INPUT0", floats(number))])
            assert answer.as_numpy("OUTPUT0").tolist() == [number]

        await asyncio.gather(*map(one, range(100)))

    run(talk, address)


def test_it_asks_everything_else(address: str) -> None:
    async def talk(client: Any) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("identity")
        assert not await client.is_model_ready("nobody")
        assert (await client.get_server_metadata()).name == "triton"
        assert (await client.get_model_metadata("identity")).name == "identity"
        assert (await client.get_model_config("identity")).config.name == "identity"
        assert (await client.get_inference_statistics("identity")).model_stats
        assert (await client.get_model_repository_index()).models
        assert not (await client.get_system_shared_memory_status()).regions
        assert not (await client.get_cuda_shared_memory_status()).regions
        with pytest.raises(InferenceServerException, match="explicit model load"):
            await client.load_model("identity")
        with pytest.raises(InferenceServerException, match="explicit model load"):
            await client.unload_model("identity")
        with pytest.raises(InferenceServerException, match="is not found"):
            await client.infer("nobody", [tensor("x", floats(1))])

    run(talk, address)


def asking(*requests: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    async def ask() -> AsyncIterator[dict[str, Any]]:
        for request in requests:
            yield request

    return ask()


def opened(client: Any, requests: AsyncIterator[dict[str, Any]]) -> Coroutine[Any, Any, Any]:
    """Open a stream: older clients have to be waited for, newer ones give it at once."""

    async def stream() -> Any:
        made = client.stream_infer(requests)
        return await made if asyncio.iscoroutine(made) else made

    return stream()


def test_it_streams(address: str) -> None:
    async def talk(client: Any) -> None:
        requests = asking(
            {"model_name": "repeat", "inputs": words("one two")},
            {"model_name": "nobody", "inputs": [tensor("x", floats(1))]},
        )
        got = []
        async for result, error in await opened(client, requests):
            got.append(error.message() if error else result.as_numpy("text_output")[0].decode())
        assert sorted(got) == [
            "Request for unknown model: 'nobody' is not found",
            "one",
            "two",
        ]

    run(talk, address)


def test_a_stream_may_be_left(address: str) -> None:
    async def talk(client: Any) -> None:
        stream = await opened(
            client, asking({"model_name": "repeat", "inputs": words("word " * 10_000)})
        )
        async for _result, _error in stream:
            break
        if hasattr(stream, "cancel"):
            stream.cancel()
        answer = await client.infer("identity", [tensor("INPUT0", floats(1))])
        assert answer.as_numpy("OUTPUT0").tolist() == [1]

    run(talk, address)
