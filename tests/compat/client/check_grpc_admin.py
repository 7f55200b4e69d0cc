"""Health, metadata, configuration, statistics, the repository and settings over gRPC."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.compat.client.grpc_tensors import floats, tensor


def test_the_server_is_live_and_ready(grpc_client: Any) -> None:
    assert grpc_client.is_server_live()
    assert grpc_client.is_server_ready()


def test_models_are_ready_or_not(grpc_client: Any) -> None:
    assert grpc_client.is_model_ready("identity")
    assert grpc_client.is_model_ready("identity", "1")
    assert not grpc_client.is_model_ready("identity", "7")
    assert not grpc_client.is_model_ready("nobody")


def test_the_server_says_what_it_is(grpc_client: Any) -> None:
    assert grpc_client.get_server_metadata().name == "triton"
    metadata = grpc_client.get_server_metadata(as_json=True)
    assert "statistics" in metadata["extensions"]


def test_a_model_says_what_it_is(grpc_client: Any) -> None:
    metadata = grpc_client.get_model_metadata("digits")
    assert (metadata.name, list(metadata.versions)) == ("digits", ["1"])
    (pixels,) = metadata.inputs
    assert (pixels.datatype, list(pixels.shape)) == ("FP32", [-1, 64])
    with pytest.raises(InferenceServerException) as raised:
        grpc_client.get_model_metadata("nobody")
    assert "NOT_FOUND" in raised.value.status()


def test_a_model_gives_its_configuration(grpc_client: Any) -> None:
    config = grpc_client.get_model_config("repeat").config
    assert (config.name, config.backend) == ("repeat", "python")
    assert config.model_transaction_policy.decoupled
    assert config.input[1].optional
    as_json = grpc_client.get_model_config("digits", as_json=True)["config"]
    assert as_json["input"][0]["dims"] == ["64"]


def test_statistics_count(grpc_client: Any) -> None:
    def count() -> int:
        (one,) = grpc_client.get_inference_statistics("identity").model_stats
        return int(one.inference_stats.success.count)

    before = count()
    for _ in range(3):
        grpc_client.infer("identity", [tensor("INPUT0", floats(1))])
    assert count() == before + 3
    every = grpc_client.get_inference_statistics(as_json=True)["model_stats"]
    assert "digits" in {one["name"] for one in every}
    with pytest.raises(InferenceServerException, match="'nobody' is not available"):
        grpc_client.get_inference_statistics("nobody")


def test_headers_may_be_sent_with_each_call(grpc_client: Any) -> None:
    assert grpc_client.is_server_live(headers={"x-mine": "1"})
    answer = grpc_client.infer("identity", [tensor("INPUT0", floats(1))], headers={"x-mine": "1"})
    assert answer.as_numpy("OUTPUT0").tolist() == [1]


def test_models_are_loaded_and_unloaded(grpc_controlled: Any) -> None:
    grpc_controlled.load_model("identity")
    assert grpc_controlled.is_model_ready("identity")
    answer = grpc_controlled.infer("identity", [tensor("INPUT0", floats(3))])
    assert answer.as_numpy("OUTPUT0").tolist() == [3]
    grpc_controlled.unload_model("identity")
    assert not grpc_controlled.is_model_ready("identity")
    with pytest.raises(InferenceServerException, match="'identity' has no available versions"):
        grpc_controlled.infer("identity", [tensor("INPUT0", floats(3))])


def test_the_index_tells_what_is_there_and_why_not(grpc_controlled: Any) -> None:
    grpc_controlled.load_model("add_sub")
    rows = {row.name: row for row in grpc_controlled.get_model_repository_index().models}
    assert rows["add_sub"].state == "READY"
    assert (rows["repeat"].version, rows["repeat"].state) == ("", "")  # never loaded
    grpc_controlled.unload_model("add_sub")
    assert row_after_unload(grpc_controlled, "add_sub")["reason"] == "unloaded"


def row_after_unload(client: Any, name: str) -> dict[str, Any]:
    for _ in range(100):
        index = client.get_model_repository_index(as_json=True)["models"]
        row: dict[str, Any] = next(row for row in index if row["name"] == name)
        if row["state"] == "UNAVAILABLE":
            return row
        time.sleep(0.1)
    raise AssertionError(f"{name} is still there: {row}")


def test_a_configuration_can_come_with_the_load(grpc_controlled: Any) -> None:
    grpc_controlled.load_model(
        "linear_regression_model", config=json.dumps({"max_batch_size": "16"})
    )
    config = grpc_controlled.get_model_config("linear_regression_model").config
    assert config.max_batch_size == 16
    grpc_controlled.unload_model("linear_regression_model", unload_dependents=True)


def test_a_model_can_be_sent_with_its_load(grpc_controlled: Any) -> None:
    graph = next(Path(os.environ["EXAMPLE_MODELS"]).glob("linear_regression_model/*/model.onnx"))
    grpc_controlled.load_model(
        "sent", config='{"backend": "onnxruntime"}', files={"file:1/model.onnx": graph.read_bytes()}
    )
    assert grpc_controlled.is_model_ready("sent")
    grpc_controlled.unload_model("sent")


def test_a_model_that_nobody_has_is_refused(grpc_controlled: Any) -> None:
    with pytest.raises(InferenceServerException, match="failed to load 'nobody', failed to p") as e:
        grpc_controlled.load_model("nobody")
    assert "INTERNAL" in e.value.status()
    with pytest.raises(InferenceServerException, match=r"(failed to load|load failed)"):
        grpc_controlled.load_model("identity", config="no json")


@pytest.mark.parametrize("name", ["../identity", "..%2Fidentity"])
def test_names_stay_inside_the_repository(grpc_controlled: Any, name: str) -> None:
    with pytest.raises(InferenceServerException):
        grpc_controlled.load_model(name)


def test_loading_is_refused_where_the_server_does_not_allow_it(grpc_client: Any) -> None:
    with pytest.raises(InferenceServerException, match="explicit model load / unload is not") as e:
        grpc_client.load_model("identity")
    assert "UNAVAILABLE" in e.value.status()
    with pytest.raises(InferenceServerException, match="explicit model load / unload is not"):
        grpc_client.unload_model("identity")


def test_every_method_of_the_client_is_called_somewhere_here() -> None:
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("check_grpc_*.py"))
    here += (Path(__file__).parent / "grpc_tensors.py").read_text()
    public = {name for name in dir(triton.InferenceServerClient) if not name.startswith("_")}
    missing = {name for name in public if f".{name}(" not in here}
    assert missing <= set(NOT_OURS), missing


NOT_OURS = {
    "register_plugin": "the client's own",
    "unregister_plugin": "the client's own",
    "plugin": "the client's own",
    "close": "called by the fixtures, at the end of their with",
    "get_trace_settings": "see check_settings.py",
    "update_trace_settings": "see check_settings.py",
    "get_log_settings": "see check_settings.py",
    "update_log_settings": "see check_settings.py",
}
