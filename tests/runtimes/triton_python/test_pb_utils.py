import ast
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import triton_python_backend_utils as installed

from modelport.dtypes import DATATYPE_BY_NAME
from modelport.runtimes.triton_python import pb_utils
from modelport.runtimes.triton_python.pb_utils import TritonModelException

from .conftest import Serve

X = np.array([1], np.float32)
CONFIG = {
    "input": [{"name": "x", "dims": [1]}, {"name": "mask", "dims": [2]}],
    "output": [{"name": "y", "dims": [3]}],
    "model_transaction_policy": {"decoupled": True},
}


def test_installed_module_is_the_same_thing() -> None:
    assert installed.__all__ == pb_utils.__all__
    assert all(getattr(installed, name) is getattr(pb_utils, name) for name in pb_utils.__all__)


def test_installed_module_imports_no_server() -> None:
    code = (
        "import sys, triton_python_backend_utils\n"
        "print(sorted(m for m in sys.modules if m.startswith('modelport.')"
        " and m.split('.')[1] in ('wire', 'engine', 'server', 'protocols', 'repository')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == []


def test_configuration_is_searched_by_name() -> None:
    assert pb_utils.get_input_config_by_name(CONFIG, "mask") == {"name": "mask", "dims": [2]}
    assert pb_utils.get_output_config_by_name(CONFIG, "y") == {"name": "y", "dims": [3]}
    assert pb_utils.get_input_config_by_name(CONFIG, "y") is None
    assert pb_utils.get_output_config_by_name({}, "y") is None


def test_policy_is_read_from_the_configuration() -> None:
    assert pb_utils.using_decoupled_model_transaction_policy(CONFIG)
    assert not pb_utils.using_decoupled_model_transaction_policy({})


def test_outputs_of_a_response_are_found_by_name() -> None:
    tensor = pb_utils.Tensor("y", X)
    response = pb_utils.InferenceResponse([pb_utils.Tensor("z", X), tensor])
    assert pb_utils.get_output_tensor_by_name(response, "y") is tensor
    assert pb_utils.get_output_tensor_by_name(response, "x") is None
    failed = pb_utils.InferenceResponse(error=pb_utils.TritonError("no luck"))
    with pytest.raises(TritonModelException, match="no luck"):
        pb_utils.get_output_tensor_by_name(failed, "y")


@pytest.mark.parametrize("name", sorted(DATATYPE_BY_NAME))
def test_types_are_translated_both_ways(name: str) -> None:
    datatype = DATATYPE_BY_NAME[name]
    numpy_type = pb_utils.triton_string_to_numpy(datatype.config_name)
    if name == "BF16":
        assert numpy_type is None
        return
    assert np.dtype(numpy_type) == datatype.numpy
    number = pb_utils.numpy_to_triton_type(numpy_type)
    assert number is not None
    assert pb_utils.triton_to_numpy_type(number) is numpy_type
    assert pb_utils.Tensor("t", np.empty(0, numpy_type)).triton_dtype() == number


def test_types_have_the_numbers_of_triton_s_enumeration() -> None:
    numbers = {pb_utils.numpy_to_triton_type(t) for t in (np.bool_, np.float32, np.object_)}
    assert numbers == {1, 11, 13}
    assert pb_utils.numpy_to_triton_type(np.bytes_) == 13
    assert pb_utils.numpy_to_triton_type(np.complex64) is None
    assert pb_utils.triton_to_numpy_type(99) is None


def test_bytes_are_serialized_with_their_lengths() -> None:
    array = np.array([[b"ab", "é"], [b"", 7]], dtype=object)
    data = pb_utils.serialize_byte_tensor(array)
    assert data == b"\x02\0\0\0ab\x02\0\0\0\xc3\xa9\0\0\0\0\x01\0\0\x007"
    assert pb_utils.deserialize_bytes_tensor(data).tolist() == [b"ab", "é".encode(), b"", b"7"]
    assert pb_utils.serialize_byte_tensor(np.array([b"x"])) == b"\x01\0\0\0x"
    assert pb_utils.serialize_byte_tensor(X) is None
    assert pb_utils.serialize_byte_tensor(np.empty(0, object)) is None
    assert pb_utils.deserialize_bytes_tensor(b"").shape == (0,)


@pytest.mark.parametrize("data", [b"\x01\0\0", b"\x05\0\0\0abc", b"\xff\xff\xff\xff"])
def test_lying_lengths_are_refused(data: bytes) -> None:
    with pytest.raises(TritonModelException, match="ends inside"):
        pb_utils.deserialize_bytes_tensor(data)


def test_model_directory_is_only_known_to_models() -> None:
    with pytest.raises(TritonModelException, match="not called from a model's code"):
        pb_utils.get_model_dir()


def test_every_level_reaches_the_server_s_log(serve: Serve) -> None:
    model = serve(
        """
        def execute(self, requests):
            logger = pb_utils.Logger
            logger.log_info("a")
            logger.log_warn("b")
            logger.log_error("c")
            logger.log_verbose("d")
            logger.log("e")
            logger.log("f", logger.ERROR)
            logger.log("g", 9)
        """
    )
    with pytest.raises(Exception, match="no level 9"):
        model.ask({"x": X})
    assert [line[:2] for line in model.host.lines[:-1]] == [
        ("info", "a"),
        ("warning", "b"),
        ("error", "c"),
        ("verbose", "d"),
        ("info", "e"),
        ("error", "f"),
    ]


def test_log_outside_of_a_model_goes_to_python_s(caplog: pytest.LogCaptureFixture) -> None:
    pb_utils.Logger.log_error("from a test")
    assert caplog.messages == ["from a test"]


def test_error_has_its_text_and_code() -> None:
    error = pb_utils.TritonError("no", pb_utils.TritonError.NOT_FOUND)
    assert (error.message(), error.code(), str(error)) == ("no", 2, "no")
    assert pb_utils.TritonError("no").code() == pb_utils.TritonError.INTERNAL
    with pytest.raises(TritonModelException, match="no code 99"):
        pb_utils.TritonError("no", 99)


def test_response_can_be_read_back() -> None:
    tensors = [pb_utils.Tensor("y", X)]
    response = pb_utils.InferenceResponse(tensors, parameters={"n": 1})
    assert response.output_tensors() == tensors
    assert response.parameters() == '{"n": 1}'
    assert not response.has_error()
    assert pb_utils.InferenceResponse(error=pb_utils.TritonError("no")).has_error()


@pytest.mark.parametrize("parameters", [{"a": None}, {"a": [1]}, {1: "a"}])
def test_response_parameters_are_scalars(parameters: dict[str, int]) -> None:
    with pytest.raises(TritonModelException, match="response parameter"):
        pb_utils.InferenceResponse([], parameters=parameters)


def test_request_for_another_model_can_be_made_and_read() -> None:
    request = pb_utils.InferenceRequest(
        model_name="other",
        requested_output_names=["y"],
        inputs=[pb_utils.Tensor("x", X)],
        request_id="r",
        correlation_id=7,
        flags=pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START,
        timeout=5,
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        parameters={"k": "v"},
    )
    request.set_flags(pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)
    assert request.model_name() == "other"
    assert request.model_version() == -1
    assert request.requested_output_names() == ["y"]
    assert pb_utils.get_input_tensor_by_name(request, "x") is request.inputs()[0]
    assert (request.request_id(), request.correlation_id()) == ("r", 7)
    assert (request.flags(), request.timeout()) == (2, 5)
    assert request.parameters() == '{"k": "v"}'
    assert not request.is_cancelled()


def test_text_may_be_bytes_as_elements_of_bytes_tensors_are() -> None:
    """Triton's own example of calls between models passes on the name that a caller sent."""
    request = pb_utils.InferenceRequest(
        model_name=np.array([b"other"], object)[0],
        requested_output_names=[b"y"],
        inputs=[pb_utils.Tensor(b"x", X)],
        request_id=b"r",
    )
    assert (request.model_name(), request.request_id()) == ("other", "r")
    assert request.requested_output_names() == ["y"]
    assert request.inputs()[0].name() == "x"
    assert pb_utils.TritonError(b"no").message() == "no"


@pytest.mark.parametrize(
    ("name", "told"),
    [(b"\xff", "the name of a tensor is no UTF-8"), (3, "the name of a tensor has to be text")],
)
def test_what_is_no_text_is_told(name: Any, told: str) -> None:
    with pytest.raises(TritonModelException, match=told):
        pb_utils.Tensor(name, X)


def test_inputs_of_a_request_are_tensors() -> None:
    with pytest.raises(TritonModelException, match="has to be a Tensor, not NoneType"):
        pb_utils.InferenceRequest("other", ["y"], [None])  # type: ignore[list-item]  # that is the point


def test_levels_and_kinds_have_the_numbers_of_triton() -> None:
    assert [int(level) for level in pb_utils.Logger.LogLevel] == [0, 1, 2, 3]
    assert pb_utils.Logger.WARNING is pb_utils.Logger.LogLevel.WARNING
    assert [int(kind) for kind in pb_utils.MetricKind] == [0, 1, 2]
    assert pb_utils.MetricFamily.GAUGE is pb_utils.MetricKind.GAUGE


def test_names_that_models_import_are_all_there() -> None:
    """Also of what is not offered yet: it says so when used, and may never be."""
    names = """
    InferenceRequest InferenceResponse InferenceResponseSender InferenceTrace Logger MetricFamily
    MetricKind ModelConfig PreferredMemory ResponseIterator Tensor TritonError TritonModelException
    TRITONSERVER_MEMORY_CPU TRITONSERVER_MEMORY_GPU TRITONSERVER_REQUEST_FLAG_SEQUENCE_END
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_START TRITONSERVER_REQUEST_RELEASE_ALL
    TRITONSERVER_REQUEST_RELEASE_RESCHEDULE TRITONSERVER_RESPONSE_COMPLETE_FINAL
    deserialize_bytes_tensor get_input_config_by_name get_input_tensor_by_name get_model_dir
    get_output_config_by_name get_output_tensor_by_name is_model_ready load_model
    numpy_to_triton_type serialize_byte_tensor triton_string_to_numpy triton_to_numpy_type
    unload_model using_decoupled_model_transaction_policy
    """
    assert set(names.split()) <= set(pb_utils.__all__)
    assert all(hasattr(pb_utils, name) for name in pb_utils.__all__)
