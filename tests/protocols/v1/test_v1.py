"""V1 through its handlers, without a socket."""

import asyncio
import base64
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelport import dtypes
from modelport.errors import (
    Kind,
    LoadFailed,
    ModelFailed,
    ModelportError,
    NotFound,
    Overloaded,
    Unavailable,
)
from modelport.messages import Request, Response
from modelport.protocols.threads import MOST_ON_LOOP
from modelport.protocols.v1 import V1Options, encode_error, routes
from modelport.server.routing import Router
from modelport.specs import ModelConfig, ModelInput, ModelOutput, TransactionPolicy
from modelport.tensors import Tensor
from modelport.testing.memory import MemoryDeployment, MemoryEngine, MemoryExchange, MemoryRow

CONFIG = ModelConfig(
    name="m",
    max_batch_size=8,
    input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(-1,)),),
    output=(ModelOutput(name="y", data_type="TYPE_FP32", dims=(-1,)),),
)
PREDICT = "/v1/models/m:predict"
ROWS = {"instances": [[1, 2]]}


@dataclass
class Engine(MemoryEngine):
    """With files that may have changed."""

    has_changed: bool = False
    refresh_error: ModelportError | None = None

    async def refresh(self) -> bool:
        if self.refresh_error is not None:
            raise self.refresh_error
        return self.has_changed


def double(request: Request) -> Sequence[Response | ModelportError]:
    (x,) = request.payload.tensors
    return [Response([Tensor("y", x.datatype, x.array * 2)])]


def later(request: Request) -> None:
    """Leave the answer to the test."""


def engine_of(answer: Any = double, config: ModelConfig = CONFIG, **options: Any) -> Engine:
    rows = [
        MemoryRow("m", "1", "READY"),
        MemoryRow("m", "2", "UNAVAILABLE", "the weights are torn"),
        MemoryRow("never"),
    ]
    return Engine([MemoryDeployment(config, answer)], rows, **options)


def send(
    method: str,
    path: str,
    body: Any = b"",
    *,
    engine: Engine | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> MemoryExchange:
    async def main() -> MemoryExchange:
        router = Router(routes(engine or engine_of(), V1Options(**options)))
        match = router.match(method, path)
        assert match.route is not None, f"no route for {method} {path}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        exchange = MemoryExchange(method, path, data, headers, match.params)
        match.route.handler(exchange)
        async with asyncio.timeout(5):
            await exchange.finished.wait()
        return exchange

    return asyncio.run(main())


def test_rows_are_answered_in_rows_and_columns_in_columns() -> None:
    exchange = send("POST", PREDICT, ROWS)
    assert (exchange.status, exchange.json) == (200, {"predictions": [[2, 4]]})
    assert exchange.sent_headers["content-type"] == "application/json"
    exchange = send("POST", "/v1/models/m/versions/1:predict", {"inputs": {"x": [[1, 2]]}})
    assert (exchange.status, exchange.json) == (200, {"outputs": [[2, 4]]})


def test_a_body_may_be_compressed_and_large() -> None:
    body = json.dumps({"instances": [[0.5] * (MOST_ON_LOOP // 3)]}).encode()
    for data, headers in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
        exchange = send("POST", PREDICT, data, headers=headers)
        assert exchange.status == 200
        assert set(exchange.json["predictions"][0]) == {1.0}
    exchange = send(
        "POST",
        PREDICT,
        gzip.compress(body),
        headers={"Content-Encoding": "gzip"},
        max_body_bytes=99,
    )
    assert exchange.status == 413


def test_an_image_may_stand_for_pixels() -> None:
    file = io.BytesIO()
    Image.new("RGB", (5, 3), (255, 0, 0)).save(file, "PNG")
    config = ModelConfig(
        name="m",
        max_batch_size=8,
        input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(1, 1, 3)),),
        output=CONFIG.output,
    )
    body = {"instances": [{"b64": base64.b64encode(file.getvalue()).decode()}]}
    exchange = send("POST", PREDICT, body, engine=engine_of(config=config), is_ovms=True)
    assert exchange.json == {"predictions": [[[[0, 0, 510]]]]}
    wrong = {"instances": [{"b64": "eA=="}]}
    exchange = send("POST", PREDICT, wrong, engine=engine_of(config=config), is_ovms=True)
    assert exchange.status == 400
    assert exchange.json["error"].startswith("Image parsing failed")


def test_texts_may_stand_for_rows_of_bytes() -> None:
    """As under OVMS."""
    config = ModelConfig(
        name="m",
        max_batch_size=8,
        input=(ModelInput(name="x", data_type="TYPE_UINT8", dims=(-1,)),),
        output=CONFIG.output,
    )
    for body in ({"instances": ["ab", "c"]}, {"instances": [{"x": "ab"}, {"x": "c"}]}):
        exchange = send("POST", PREDICT, body, engine=engine_of(config=config), is_ovms=True)
        assert exchange.json == {"predictions": [[194, 196, 0], [198, 0, 0]]}


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/models/no:predict", ROWS, 404, "Model with requested name is not found"),
        ("/v1/models/no:predict", ROWS, 404, "Model with name no does not exist."),
        (
            "/v1/models/m/versions/7:predict",
            ROWS,
            404,
            "Model with requested version is not found - version 7 of",
        ),
        (PREDICT, b"{", 412, "The file is not valid json"),
        (PREDICT, {}, 400, "Could not detect row or column format"),
        ("/v1/models/m:explain", ROWS, 501, ":explain is not offered"),
        ("/v1/models/m:classify", ROWS, 501, ":classify is not offered"),
    ],
)
def test_what_is_wrong_is_told(path: str, body: Any, status: int, text: str) -> None:
    exchange = send("POST", path, body)
    assert exchange.status == status
    assert text in exchange.json["error"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Overloaded("full", retry_after_s=3), 503),
        (ModelFailed("it broke"), 500),
        (Unavailable("going"), 503),
    ],
)
def test_what_goes_wrong_in_the_engine_is_told(error: ModelportError, status: int) -> None:
    exchange = send("POST", PREDICT, ROWS, engine=engine_of(lambda request: [error]))
    assert (exchange.status, exchange.json) == (status, {"error": str(error)})
    if isinstance(error, Overloaded):
        assert exchange.sent_headers["retry-after"] == "3"


def test_every_kind_of_error_has_a_status() -> None:
    for kind in Kind:
        assert 400 <= encode_error(ModelFailed("text", code=kind)).status < 600


def test_a_model_that_answers_with_nothing_or_with_much_is_told() -> None:
    exchange = send("POST", PREDICT, ROWS, engine=engine_of(lambda request: []))
    assert (exchange.status, exchange.json["error"]) == (500, "model 'm' gave no response")
    decoupled = ModelConfig(
        name="m",
        input=CONFIG.input,
        output=CONFIG.output,
        model_transaction_policy=TransactionPolicy(decoupled=True),
    )
    exchange = send("POST", PREDICT, ROWS, engine=engine_of(config=decoupled))
    assert exchange.status == 501
    assert "generate_stream" in exchange.json["error"]


def test_a_client_that_goes_away_cancels() -> None:
    async def main() -> bool:
        engine = engine_of(later)
        match = Router(routes(engine, V1Options())).match("POST", PREDICT)
        assert match.route is not None
        body = json.dumps(ROWS).encode()
        exchange = MemoryExchange("POST", PREDICT, body, None, match.params)
        match.route.handler(exchange)
        assert exchange.on_disconnect is not None
        exchange.on_disconnect()
        return engine.models[0].tickets[0].is_cancelled

    assert asyncio.run(main())


def test_a_large_answer_is_written_off_the_loop() -> None:
    many = np.zeros((1, 2**19), np.float32)
    answer = [Response([Tensor("y", dtypes.FP32, many)])]
    exchange = send("POST", PREDICT, ROWS, engine=engine_of(lambda request: answer))
    assert len(exchange.json["predictions"][0]) == 2**19


# Models.


def test_models_are_listed() -> None:
    assert send("GET", "/v1/models").json == {"models": ["m"]}


def test_a_model_says_how_it_is() -> None:
    exchange = send("GET", "/v1/models/m")
    assert (exchange.json["name"], exchange.json["ready"]) == ("m", True)
    states = {s["version"]: s["state"] for s in exchange.json["model_version_status"]}
    assert states == {"1": "AVAILABLE", "2": "END"}
    exchange = send("GET", "/v1/models/m/versions/2")
    assert exchange.json["ready"] is False
    (only,) = exchange.json["model_version_status"]
    assert only["status"]["error_message"] == "the weights are torn"


def test_version_0_is_the_default_one() -> None:
    """Also where V2 does not know it: OVMS's own client always asks for it."""
    assert send("GET", "/v1/models/m/versions/0").json == send("GET", "/v1/models/m").json
    assert send("GET", "/v1/models/m/versions/0/metadata").status == 200
    assert send("POST", "/v1/models/m/versions/0:predict", ROWS).status == 200


@pytest.mark.parametrize("path", ["never", "nobody", "nobody/metadata"])
def test_a_model_that_is_not_there_is_not_found(path: str) -> None:
    exchange = send("GET", f"/v1/models/{path}")
    assert exchange.status == 404
    assert exchange.json["error"].startswith("Model with requested name is not found")


@pytest.mark.parametrize("path", ["m/versions/7", "m/versions/70", "m/versions/7/metadata"])
def test_a_version_that_is_not_there_is_not_found(path: str) -> None:
    exchange = send("GET", f"/v1/models/{path}")
    assert exchange.status == 404
    assert exchange.json["error"].startswith("Model with requested version is not found")


def test_a_model_says_what_it_takes() -> None:
    found = send("GET", "/v1/models/m/metadata").json
    signature = found["metadata"]["signature_def"]["signatureDef"]["serving_default"]
    assert list(signature["inputs"]) == ["x"]
    engine = engine_of()
    engine.resolve_error = Unavailable("not at ready state")
    assert send("GET", "/v1/models/m/metadata", engine=engine).status == 503


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/torn:predict"),
        ("GET", "/v1/models/torn"),
        ("GET", "/v1/models/torn/metadata"),
        ("GET", "/v1/models/torn/versions/3"),
    ],
)
def test_a_model_that_did_not_load_is_not_ready_and_says_why(method: str, path: str) -> None:
    """As in KServe, where 404 would say that there is none."""
    engine = engine_of()
    engine.rows.append(MemoryRow("torn", None, "UNAVAILABLE", "no version is available"))
    exchange = send(method, path, ROWS if method == "POST" else b"", engine=engine)
    expected = "Model with name torn is not ready. no version is available"
    assert (exchange.status, exchange.json) == (503, {"error": expected})


def test_a_model_that_was_unloaded_is_not_there() -> None:
    engine = engine_of()
    engine.rows.append(MemoryRow("away", "1", "UNAVAILABLE", "unloaded"))
    assert send("POST", "/v1/models/away:predict", ROWS, engine=engine).status == 404


# The configuration.


def test_a_model_without_versions_is_in_the_configuration() -> None:
    engine = engine_of()
    engine.rows.append(MemoryRow("torn", None, "UNAVAILABLE", "no version is available"))
    exchange = send("GET", "/v1/config", engine=engine)
    assert exchange.json["torn"] == {"model_version_status": []}
    assert "never" not in exchange.json


def test_the_configuration_is_the_state_of_all_models() -> None:
    exchange = send("GET", "/v1/config")
    assert list(exchange.json) == ["m"]
    assert len(exchange.json["m"]["model_version_status"]) == 2


@pytest.mark.parametrize(("has_changed", "status"), [(True, 201), (False, 200)])
def test_a_reload_says_whether_anything_had_changed(has_changed: bool, status: int) -> None:
    exchange = send("POST", "/v1/config/reload", engine=engine_of(has_changed=has_changed))
    assert exchange.status == status
    assert list(exchange.json) == ["m"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(LoadFailed("load failed for model 'm'"), 500), (Unavailable("not in this mode"), 503)],
)
def test_a_reload_that_fails_says_why(error: ModelportError, status: int) -> None:
    exchange = send("POST", "/v1/config/reload", engine=engine_of(refresh_error=error))
    assert (exchange.status, exchange.json) == (status, {"error": str(error)})


def test_not_found_keeps_its_reason() -> None:
    engine = engine_of()
    engine.resolve_error = NotFound("did you mean 'm'?")
    exchange = send("POST", "/v1/models/n:predict", ROWS, engine=engine)
    assert exchange.json["error"].endswith("did you mean 'm'?")
