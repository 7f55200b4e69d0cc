"""What clients ask before they send anything."""

from typing import Any

import pytest
from tritonclient.utils import InferenceServerException


def test_the_server_is_live_and_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()


def test_models_are_ready_by_name_and_version(client: Any) -> None:
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "9")
    assert not client.is_model_ready("nobody")


def test_query_parameters_and_headers_do_no_harm(client: Any) -> None:
    assert client.is_server_live(headers={"X-Request": "1"}, query_params={"a": 1, "b": "two"})


def test_the_server_introduces_itself(client: Any) -> None:
    metadata = client.get_server_metadata()
    assert set(metadata) == {"name", "version", "extensions"}
    assert metadata["name"] == "triton"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(metadata["extensions"])


def test_a_model_tells_its_tensors(client: Any) -> None:
    assert client.get_model_metadata("digits") == {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1, 1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        ],
    }
    assert client.get_model_metadata("digit_image_ensemble", "1")["platform"] == "ensemble"


def test_a_model_tells_its_configuration(client: Any) -> None:
    config = client.get_model_config("digits")
    assert config["name"] == "digits"
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] > 0
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [64]
    assert config["dynamic_batching"]["preferred_batch_size"]
    assert config["version_policy"] == {"latest": {"num_versions": 1}}


def test_statistics_count_what_was_asked(client: Any) -> None:
    before = client.get_inference_statistics("add_sub")["model_stats"][0]
    assert (before["name"], before["version"]) == ("add_sub", "1")
    assert {"success", "fail", "queue", "compute_infer"} <= set(before["inference_stats"])
    assert len(client.get_inference_statistics()["model_stats"]) >= 9


def test_the_index_lists_every_model(client: Any) -> None:
    index = {row["name"]: row for row in client.get_model_repository_index()}
    assert index["digits"]["state"] == "READY"
    assert {"iris", "sentiment", "digit_photo", "same_bf16"} <= set(index)


def test_who_asks_for_an_unknown_model_is_told_so(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"Request for unknown model: 'nobody'"):
        client.get_model_metadata("nobody")
    with pytest.raises(InferenceServerException, match="requested model 'nobody' is not available"):
        client.get_inference_statistics("nobody")


def test_shared_memory_is_off_and_says_so(controlled: Any) -> None:
    assert controlled.get_system_shared_memory_status() == []
    assert controlled.get_cuda_shared_memory_status() == []
    controlled.unregister_system_shared_memory()
    with pytest.raises(InferenceServerException, match="shared memory is disabled"):
        controlled.register_system_shared_memory("region", "/key", 64)
