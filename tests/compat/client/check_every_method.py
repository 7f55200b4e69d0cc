"""Every public method of the four clients and of their inputs, outputs and results.

What there is to call is read from the client that is installed. A method without a function here
that calls it is a failure, so none is forgotten when a new client brings more.
"""

import asyncio
import base64
import inspect
import json
import os
import urllib.request
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_sync
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_sync
import tritonclient.http.aio as http_aio
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

MODULES = {"http": http_sync, "http.aio": http_aio, "grpc": grpc_sync, "grpc.aio": grpc_aio}
WITHIN_S = 20
REGION_BYTES = 64
GPU_HANDLE = base64.b64encode(bytes(64))


class Talk:
    """One client, with its answers alike: awaited, and messages as dictionaries."""

    def __init__(self, flavour: str, address: str) -> None:
        self.is_grpc = flavour.startswith("grpc")
        self.is_aio = flavour.endswith("aio")
        self.module: Any = MODULES[flavour]
        self.client = self.module.InferenceServerClient(address)

    async def ask(self, method: str, *args: Any, **options: Any) -> Any:
        call = getattr(self.client, method)
        if "as_json" in inspect.signature(call).parameters:
            options["as_json"] = True
        answer = call(*args, **options)
        return await answer if inspect.isawaitable(answer) else answer

    async def refused(self, text: str, method: str, *args: Any, **options: Any) -> None:
        with pytest.raises(InferenceServerException, match=text):
            await self.ask(method, *args, **options)

    def input(self, *values: float) -> Any:
        made = self.module.InferInput("INPUT0", [len(values)], "FP32")
        made.set_data_from_numpy(np.array(values, np.float32))
        return made

    async def infer(self) -> Any:
        return await self.ask("infer", "identity", [self.input(1, 2)], request_id="i")


Row = Callable[[Talk], Coroutine[Any, Any, None]]


def is_right(result: Any) -> None:
    assert result.as_numpy("OUTPUT0").tolist() == [1, 2]


# Health and metadata.


async def is_server_live(talk: Talk) -> None:
    assert await talk.ask("is_server_live") is True


async def is_server_ready(talk: Talk) -> None:
    assert await talk.ask("is_server_ready") is True


async def is_model_ready(talk: Talk) -> None:
    assert await talk.ask("is_model_ready", "identity", "1") is True
    assert await talk.ask("is_model_ready", "nobody") is False


async def get_server_metadata(talk: Talk) -> None:
    told = await talk.ask("get_server_metadata")
    assert told["name"] == "triton"
    assert "sequence" in told["extensions"]


async def get_model_metadata(talk: Talk) -> None:
    told = await talk.ask("get_model_metadata", "identity")
    assert told["inputs"][0]["name"] == "INPUT0"
    await talk.refused("unknown model: 'nobody'", "get_model_metadata", "nobody")


async def get_model_config(talk: Talk) -> None:
    told = await talk.ask("get_model_config", "identity")
    config = told["config"] if talk.is_grpc else told
    assert config["name"] == "identity"
    assert config["input"][0]["data_type"] == "TYPE_FP32"


async def get_inference_statistics(talk: Talk) -> None:
    is_right(await talk.infer())
    (row,) = (await talk.ask("get_inference_statistics", "identity"))["model_stats"]
    assert int(row["inference_count"]) >= 1
    assert int(row["inference_stats"]["success"]["count"]) >= 1


# The repository; on a server whose models come and go by request.


async def get_model_repository_index(talk: Talk) -> None:
    told = await talk.ask("get_model_repository_index")
    rows = told["models"] if talk.is_grpc else told
    assert "identity" in [row["name"] for row in rows]


async def load_model(talk: Talk) -> None:
    await talk.ask("load_model", "add_sub")
    assert await talk.ask("is_model_ready", "add_sub")
    if "config" in inspect.signature(talk.client.load_model).parameters:
        await talk.ask("load_model", "add_sub", config=json.dumps({"version_policy": {}}))
    await talk.refused("failed to load 'nobody'", "load_model", "nobody")


async def unload_model(talk: Talk) -> None:
    await talk.ask("load_model", "add_sub")
    await talk.ask("unload_model", "add_sub")
    assert not await talk.ask("is_model_ready", "add_sub")


# Settings.


def settings_of(told: Any) -> dict[str, Any]:
    """Give settings as HTTP does; gRPC wraps each value."""
    if "settings" not in told:
        return dict(told)
    return {name: next(iter(value.values())) for name, value in told["settings"].items()}


async def get_trace_settings(talk: Talk) -> None:
    told = settings_of(await talk.ask("get_trace_settings", "digits"))
    assert told["trace_level"] == ["OFF"]


async def update_trace_settings(talk: Talk) -> None:
    told = await talk.ask("update_trace_settings", "digits", {"trace_rate": "7"})
    assert settings_of(told)["trace_rate"] in ("7", ["7"])
    told = await talk.ask("update_trace_settings", "digits", {"trace_rate": None})
    assert settings_of(told)["trace_rate"] in ("1000", ["1000"])


async def get_log_settings(talk: Talk) -> None:
    told = settings_of(await talk.ask("get_log_settings"))
    assert told["log_format"] == "default"


async def update_log_settings(talk: Talk) -> None:
    told = settings_of(await talk.ask("update_log_settings", {"log_verbose_level": 1}))
    assert int(told["log_verbose_level"]) == 1
    told = settings_of(await talk.ask("update_log_settings", {"log_verbose_level": 0}))
    assert int(told.get("log_verbose_level", 0)) == 0


# Shared memory.


class Region:
    """A registered region of the system's shared memory."""

    def __init__(self, talk: Talk) -> None:
        self.name = f"every-{uuid.uuid4()}"
        self.key = f"/modelport-{uuid.uuid4()}"
        self._talk = talk

    async def __aenter__(self) -> "Region":
        self.memory = shm.create_shared_memory_region(self.name, self.key, REGION_BYTES)
        await self._talk.ask("register_system_shared_memory", self.name, self.key, REGION_BYTES)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._talk.ask("unregister_system_shared_memory", self.name)
        shm.destroy_shared_memory_region(self.memory)

    async def status(self) -> Any:
        told = await self._talk.ask("get_system_shared_memory_status")
        if self._talk.is_grpc:
            return told.get("regions", {}).get(self.name)
        return next((row for row in told if row["name"] == self.name), None)


async def register_system_shared_memory(talk: Talk) -> None:
    async with Region(talk) as region:
        assert int((await region.status())["byte_size"]) == REGION_BYTES
    missing = ("x", "/modelport-none", 8)
    await talk.refused("Unable to open", "register_system_shared_memory", *missing)


async def get_system_shared_memory_status(talk: Talk) -> None:
    async with Region(talk) as region:
        assert (await region.status())["key"] == region.key
    await talk.refused("Unable to find", "get_system_shared_memory_status", region.name)


async def unregister_system_shared_memory(talk: Talk) -> None:
    async with Region(talk) as region:
        await talk.ask("unregister_system_shared_memory", region.name)
        assert await region.status() is None


async def get_cuda_shared_memory_status(talk: Talk) -> None:
    assert not await talk.ask("get_cuda_shared_memory_status")


async def register_cuda_shared_memory(talk: Talk) -> None:
    text = "failed to register CUDA shared memory"
    await talk.refused(text, "register_cuda_shared_memory", "gpu", GPU_HANDLE, 0, 64)


async def unregister_cuda_shared_memory(talk: Talk) -> None:
    await talk.ask("unregister_cuda_shared_memory", "gpu")
    await talk.ask("unregister_cuda_shared_memory")


# Inference.


async def infer(talk: Talk) -> None:
    result = await talk.infer()
    is_right(result)
    options: dict[str, Any] = {"compression_algorithm": "gzip"}
    if not talk.is_grpc:
        options = {"request_compression_algorithm": "gzip"}
        options["response_compression_algorithm"] = "deflate"
    is_right(await talk.ask("infer", "identity", [talk.input(1, 2)], **options))


async def async_infer(talk: Talk) -> None:
    if not talk.is_grpc:
        under_way = talk.client.async_infer("identity", [talk.input(1, 2)])
        is_right(under_way.get_result(timeout=WITHIN_S))
        return
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def take(result: Any, error: Any) -> None:
        done.get_loop().call_soon_threadsafe(done.set_result, error or result)

    talk.client.async_infer("identity", [talk.input(1, 2)], take)
    is_right(await asyncio.wait_for(done, WITHIN_S))


async def stream(talk: Talk) -> None:
    """``start_stream``, ``async_stream_infer`` and ``stop_stream`` are of no use alone."""
    told: list[Any] = []
    talk.client.start_stream(lambda result, error: told.append(error or result))
    talk.client.async_stream_infer("identity", [talk.input(1, 2)], request_id="s")
    talk.client.stop_stream()
    (result,) = told
    is_right(result)


async def stream_infer(talk: Talk) -> None:
    async def ask() -> Any:
        for number in range(3):
            yield {
                "model_name": "identity",
                "inputs": [talk.input(1, 2)],
                "request_id": str(number),
            }

    answers = talk.client.stream_infer(ask())
    answers = await answers if inspect.isawaitable(answers) else answers
    ids = []
    async for result, error in answers:
        assert error is None
        is_right(result)
        ids.append(result.get_response().id)
    assert ids == ["0", "1", "2"]


async def close(talk: Talk) -> None:
    assert await talk.ask("is_server_live")
    await talk.ask("close")


# Bodies of their own, and plugins.


async def generate_request_body(talk: Talk) -> None:
    body, json_bytes = talk.client.generate_request_body([talk.input(1, 2)])
    assert json.loads(body[:json_bytes])["inputs"][0]["name"] == "INPUT0"


async def parse_response_body(talk: Talk) -> None:
    body, json_bytes = talk.client.generate_request_body([talk.input(1, 2)])
    found, size = await asyncio.to_thread(post, body, json_bytes)
    is_right(talk.client.parse_response_body(found, header_length=size))


def post(body: bytes, json_bytes: int) -> tuple[bytes, int | None]:
    request = urllib.request.Request(
        f"http://{os.environ['SERVER_ADDRESS']}/v2/models/identity/infer",
        data=body,
        headers={"Inference-Header-Content-Length": str(json_bytes)},
    )
    with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
        size = answer.headers.get("Inference-Header-Content-Length")
        return answer.read(), int(size) if size else None


async def plugin(talk: Talk) -> None:
    """``register_plugin``, ``plugin`` and ``unregister_plugin``: a header with every request."""
    auth: Any = __import__(f"{talk.module.__name__}.auth", fromlist=["BasicAuth"])
    basic = auth.BasicAuth("user", "password")
    talk.client.register_plugin(basic)
    assert talk.client.plugin() is basic
    is_right(await talk.infer())
    talk.client.unregister_plugin()
    assert talk.client.plugin() is None


# Of inputs, outputs and results.


async def input_members(talk: Talk) -> None:
    made = talk.module.InferInput("INPUT0", [1], "FP32")
    made.set_shape([2])
    made.set_data_from_numpy(np.array([1, 2], np.float32))
    assert (made.name(), made.datatype(), list(made.shape())) == ("INPUT0", "FP32", [2])
    is_right(await talk.ask("infer", "identity", [made]))


async def input_shared_memory(talk: Talk) -> None:
    async with Region(talk) as region:
        shm.set_shared_memory_region(region.memory, [np.array([1, 2], np.float32)])
        made = talk.module.InferInput("INPUT0", [2], "FP32")
        made.set_shared_memory(region.name, 8)
        is_right(await talk.ask("infer", "identity", [made]))


async def output_name(talk: Talk) -> None:
    wanted = talk.module.InferRequestedOutput("OUTPUT0")
    assert wanted.name() == "OUTPUT0"
    is_right(await talk.ask("infer", "identity", [talk.input(1, 2)], outputs=[wanted]))


async def output_shared_memory(talk: Talk) -> None:
    async with Region(talk) as region:
        wanted = talk.module.InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory(region.name, 8)
        await talk.ask("infer", "identity", [talk.input(1, 2)], outputs=[wanted])
        found = shm.get_contents_as_numpy(region.memory, np.float32, [2])
        assert found.tolist() == [1, 2]
        wanted.unset_shared_memory()
        is_right(await talk.ask("infer", "identity", [talk.input(1, 2)], outputs=[wanted]))


async def result_members(talk: Talk) -> None:
    result = await talk.infer()
    is_right(result)
    output, response = result.get_output("OUTPUT0"), result.get_response()
    if talk.is_grpc:
        assert (output.datatype, response.id) == ("FP32", "i")
    else:
        assert (output["datatype"], response["id"]) == ("FP32", "i")


async def result_from_response_body(talk: Talk) -> None:
    body = b'{"outputs":[{"name":"OUTPUT0","datatype":"FP32","shape":[2],"data":[1,2]}]}'
    is_right(talk.module.InferResult.from_response_body(body))


TRIALS: dict[str, Mapping[str, Row]] = {
    "InferenceServerClient": {
        trial.__name__: trial
        for trial in (
            is_server_live, is_server_ready, is_model_ready, get_server_metadata,
            get_model_metadata, get_model_config, get_inference_statistics,
            get_model_repository_index, load_model, unload_model, get_trace_settings,
            update_trace_settings, get_log_settings, update_log_settings,
            register_system_shared_memory, get_system_shared_memory_status,
            unregister_system_shared_memory, get_cuda_shared_memory_status,
            register_cuda_shared_memory, unregister_cuda_shared_memory, infer, async_infer,
            stream_infer, close, generate_request_body, parse_response_body, plugin,
        )
    }
    | dict.fromkeys(("start_stream", "async_stream_infer", "stop_stream"), stream)
    | dict.fromkeys(("register_plugin", "unregister_plugin"), plugin),
    "InferInput": dict.fromkeys(
        ("name", "datatype", "shape", "set_shape", "set_data_from_numpy"), input_members
    )
    | {"set_shared_memory": input_shared_memory},
    "InferRequestedOutput": {"name": output_name}
    | dict.fromkeys(("set_shared_memory", "unset_shared_memory"), output_shared_memory),
    "InferResult": dict.fromkeys(("as_numpy", "get_output", "get_response"), result_members)
    | {"from_response_body": result_from_response_body},
    "InferAsyncRequest": {"get_result": async_infer},
}  # fmt: skip
CONTROLLED = {"get_model_repository_index", "load_model", "unload_model"}


def public_methods() -> Iterator[Any]:
    """Find what this generation of the clients offers."""
    for flavour, module in MODULES.items():
        for kind, _ in TRIALS.items():
            found = getattr(module, kind, None)
            if found is None or (kind == "InferAsyncRequest" and flavour.endswith("aio")):
                continue  # the asyncio module names it too, and nothing there gives one
            for name, _ in inspect.getmembers(found, inspect.isroutine):
                if not name.startswith("_"):
                    yield pytest.param(flavour, kind, name, id=f"{flavour}-{kind}.{name}")


@pytest.mark.parametrize(("flavour", "kind", "method"), public_methods())
def test_every_public_method_is_served(flavour: str, kind: str, method: str) -> None:
    trial = TRIALS[kind].get(method)
    assert trial is not None, f"nothing here tries {flavour} {kind}.{method}"
    address = os.environ["CONTROLLED_ADDRESS" if method in CONTROLLED else "SERVER_ADDRESS"]

    async def main() -> None:
        talk = Talk(flavour, address)
        try:
            await trial(talk)
        finally:
            await talk.ask("close")

    asyncio.run(main())
