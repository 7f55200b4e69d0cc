"""Models that come and go by request."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from tests.compat.client.tensors import floats, tensor


def test_models_are_loaded_and_unloaded(controlled: Any) -> None:
    controlled.load_model("identity")
    assert controlled.is_model_ready("identity")
    answer = controlled.infer("identity", [tensor("INPUT0", floats(3))])
    assert answer.as_numpy("OUTPUT0").tolist() == [3]
    controlled.unload_model("identity")
    assert not controlled.is_model_ready("identity")
    with pytest.raises(InferenceServerException, match="'identity' has no available versions"):
        controlled.infer("identity", [tensor("INPUT0", floats(3))])


def test_the_index_tells_what_is_there_and_why_not(controlled: Any) -> None:
    controlled.load_model("add_sub")
    controlled.load_model("identity")
    controlled.unload_model("identity")
    rows = {row["name"]: row for row in controlled.get_model_repository_index()}
    assert rows["add_sub"]["state"] == "READY"
    assert rows["identity"].get("state") in ("UNLOADING", "UNAVAILABLE")
    assert rows["repeat"] == {"name": "repeat"}  # never loaded
    controlled.unload_model("add_sub")


def test_a_configuration_can_come_with_the_load(controlled: Any) -> None:
    config = controlled_config(controlled, "linear_regression_model")
    config["max_batch_size"] = 3
    del config["dynamic_batching"]  # prefers larger batches
    controlled.load_model("linear_regression_model", config=json.dumps(config))
    assert controlled.get_model_config("linear_regression_model")["max_batch_size"] == 3
    controlled.unload_model("linear_regression_model")


def test_one_field_of_a_configuration_is_enough(controlled: Any) -> None:
    controlled.load_model("linear_regression_model", config='{"max_batch_size": "16"}')
    config = controlled.get_model_config("linear_regression_model")
    assert config["max_batch_size"] == 16
    assert config["input"][0]["name"] == "input__0"
    controlled.unload_model("linear_regression_model")


def test_a_model_can_be_sent_with_its_load(controlled: Any) -> None:
    graph = next(Path(os.environ["EXAMPLE_MODELS"]).glob("linear_regression_model/*/model.onnx"))
    controlled.load_model("sent", config="{}", files={"file:1/model.onnx": graph.read_bytes()})
    assert controlled.is_model_ready("sent")
    with pytest.raises(InferenceServerException, match="load failed for model 'sent'"):
        controlled.load_model("sent", config="{}", files={"file:1/model.onnx": b"no graph"})
    assert controlled.is_model_ready("sent"), "what served before goes on"
    controlled.unload_model("sent")


@pytest.mark.parametrize("name", ["1/model.py", "1/model.pkl", "../../1/model.onnx", "/etc/x.bin"])
def test_files_that_are_code_or_lead_elsewhere_are_refused(controlled: Any, name: str) -> None:
    with pytest.raises(InferenceServerException, match="failed to load 'sent', the file") as error:
        controlled.load_model("sent", config="{}", files={f"file:{name}": b"raise SystemExit"})
    assert error.value.status() in (None, "400")  # older ones do not tell


def test_files_need_a_configuration(controlled: Any) -> None:
    text = "failed to load 'sent', failed to poll from model repository"
    address = os.environ["CONTROLLED_ADDRESS"]
    body = json.dumps({"parameters": {"file:1/model.onnx": ""}}).encode()
    url = f"http://{address}/v2/repository/models/sent/load"
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url, body, timeout=20)
    assert error.value.code == 500
    assert json.load(error.value)["error"].startswith(text)


def test_members_come_with_an_ensemble_and_go_with_it(controlled: Any) -> None:
    controlled.load_model("digit_image_ensemble")
    assert controlled.is_model_ready("digits")
    controlled.unload_model("digit_image_ensemble", unload_dependents=True)
    assert not controlled.is_model_ready("digits")


def test_a_model_that_nobody_has_is_refused(controlled: Any) -> None:
    with pytest.raises(InferenceServerException, match="failed to load 'nobody', failed to p") as e:
        controlled.load_model("nobody")
    assert e.value.status() in (None, "500")
    with pytest.raises(InferenceServerException, match=r"(failed to load|load failed)"):
        controlled.load_model("identity", config="no json")


@pytest.mark.parametrize("name", ["../identity", "..%2Fidentity"])
def test_names_stay_inside_the_repository(controlled: Any, name: str) -> None:
    with pytest.raises(InferenceServerException):
        controlled.load_model(name)


def controlled_config(controlled: Any, name: str) -> dict[str, Any]:
    controlled.load_model(name)
    config: dict[str, Any] = controlled.get_model_config(name)
    controlled.unload_model(name)
    return config
