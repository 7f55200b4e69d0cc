"""Rows and columns: literal bodies, both ways."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME
from modelport.errors import InvalidRequest, TooLarge
from modelport.messages import Response
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.tensors import Tensor
from modelport.wire import json as json_reader
from modelport.wire import json_arrays, v1
from modelport.wire.v1 import (
    MalformedJson,
    decode_predict_request,
    encode_predict_response,
    model_metadata,
    model_status,
    version_status,
)


def model(*inputs: tuple[str, str, tuple[int, ...]], batch: int = 8) -> ModelConfig:
    entries = []
    for name, kind, dims in inputs:
        options: Any = {"data_type": f"TYPE_{kind}"}
        entries.append(ModelInput(name=name, dims=dims, **options))
    return ModelConfig(name="m", max_batch_size=batch, input=tuple(entries))


ONE = model(("x", "FP32", (2,)))
TWO = model(("x", "FP32", (2,)), ("s", "STRING", (1,)))


def decode(body: Any, config: ModelConfig = ONE) -> dict[str, Tensor]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = decode_predict_request(data, config).request
    return {tensor.name: tensor for tensor in request.payload.tensors}


def encode(*tensors: Tensor, is_row: bool) -> Any:
    return json.loads(b"".join(encode_predict_response(Response(tensors), is_row=is_row)))


def tensor(name: str, values: Any, datatype: Any = dtypes.FP32) -> Tensor:
    return Tensor(name, datatype, np.asarray(values, datatype.numpy))


# Requests.


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1, 2], [3.5, 4]]},
        {"instances": [{"x": [1, 2]}, {"x": [3.5, 4]}]},
        {"inputs": [[1, 2], [3.5, 4]]},
        {"inputs": {"x": [[1, 2], [3.5, 4]]}},
        {"signature_name": "serving_default", "instances": [[1, 2], [3.5, 4]], "other": None},
    ],
)
def test_one_input_comes_in_rows_or_columns_with_or_without_its_name(body: Any) -> None:
    x = decode(body)["x"]
    assert (x.datatype, x.shape) == (dtypes.FP32, (2, 2))
    np.testing.assert_array_equal(x.array, np.array([[1, 2], [3.5, 4]], np.float32))


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"x": [1, 2], "s": ["a"]}, {"x": [3, 4], "s": ["b"]}]},
        {"instances": [{"x": [1, 2], "s": "a"}, {"s": "b", "x": [3, 4]}]},
        {"inputs": {"x": [[1, 2], [3, 4]], "s": [["a"], ["b"]]}},
        {"inputs": {"x": [[1, 2], [3, 4]], "s": ["a", "b"]}},
    ],
)
def test_several_inputs_come_by_name(body: Any) -> None:
    found = decode(body, TWO)
    assert found["x"].shape == (2, 2)
    assert (found["s"].shape, found["s"].array.tolist()) == ((2, 1), [[b"a"], [b"b"]])


def test_bytes_come_in_base64() -> None:
    b64 = {"b64": base64.b64encode(b"\xff\x00").decode()}
    config = model(("s", "STRING", (1,)))
    for body in (
        {"instances": [b64]},
        {"instances": [{"s": b64}]},
        {"inputs": {"s": [b64]}},
        {"inputs": {"s": b64}},
        {"inputs": b64},
    ):
        assert decode(body, config)["s"].array.tolist() == [[b"\xff\x00"]]
    mixed = decode({"instances": [b64, "text"]}, config)["s"]
    assert mixed.array.tolist() == [[b"\xff\x00"], [b"text"]]


def test_an_image_for_numbers_is_bytes_for_who_decodes_it() -> None:
    config = model(("x", "FP32", (2, 2, 3)))
    x = decode({"instances": [{"b64": ""}]}, config)["x"]
    assert (x.datatype, x.shape) == (dtypes.BYTES, (1,))


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]),
        arrays.array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_what_numpy_says_comes_back(values: Any) -> None:
    datatype = dtypes.DATATYPE_BY_NUMPY[values.dtype]
    config = model(("x", datatype.name, tuple(values.shape[1:])))
    body = {"instances": values.tolist()}
    found = decode(body, config)["x"]
    assert found.datatype is datatype
    np.testing.assert_array_equal(found.array, values)
    ((key, rows),) = encode(Tensor("y", datatype, values), is_row=True).items()
    assert key == "predictions"
    np.testing.assert_array_equal(np.array(rows, values.dtype).reshape(values.shape), values)


@given(st.binary(max_size=60))
def test_no_body_raises_anything_else(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["x", "s", "b64", "y"]), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.sampled_from(["instances", "inputs"]),
)
def test_no_json_raises_anything_else(value: Any, key: str) -> None:
    for config in (ONE, TWO):
        try:
            decode({key: value}, config)
        except InvalidRequest:
            continue


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Could not detect row or column format"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "got both"),
        ([], "The body must be a JSON object"),
        ({"instances": []}, "must be a list of at least one row"),
        ({"instances": {"x": [1, 2]}}, "must be a list of at least one row"),
        ({"instances": [[1, 2], [3]]}, "Encountered list of size: 1 where other lists have size"),
        ({"instances": [[1, 2], 3]}, "Encountered list beside values in input 'x'"),
        ({"instances": [{"x": [1, 2]}, {"y": [1, 2]}]}, "row 0 has ['x'], and row 1 is another"),
        ({"instances": [{"x": [1, 2]}, [1, 2]]}, "row 0 has ['x'], and row 1 is another"),
        ({"instances": [["a", "b"]]}, "JSON non-number as double"),
        ({"instances": [[True, 1.5]]}, "JSON non-number as double"),
        ({"instances": [[None, 1]]}, "JSON non-number as double"),
        ({"instances": [[{"x": 1}, 2]]}, "Unable to parse 'b64' of input 'x'"),
        ({"instances": [{"b64": "%"}]}, "Unable to base64 decode the value of 'b64'"),
        ({"instances": [{"b64": 7}]}, "Unable to parse 'b64' of input 'x'"),
        (
            {"signature_name": "other", "instances": [[1, 2]]},
            'name: "other" not found in signature',
        ),
    ],
)
def test_what_is_wrong_is_told(body: Any, text: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        decode(body)
    assert text in str(error.value)


def test_values_without_a_name_need_one_input() -> None:
    with pytest.raises(InvalidRequest, match=r"has \['x', 's'\]\. Give an object"):
        decode({"instances": [[1, 2]]}, TWO)


def test_what_is_no_json_is_an_error_of_its_own() -> None:
    with pytest.raises(MalformedJson, match=r"^The file is not valid json - failed to parse"):
        decode(b'{"instances": ')
    with pytest.raises(InvalidRequest, match="nesting depth") as error:
        decode(b"[" * 101)
    assert not isinstance(error.value, MalformedJson)


def test_nan_is_a_word() -> None:
    x = decode(b'{"instances": [[NaN, -Infinity]]}')["x"]
    assert np.isnan(x.array[0, 0])
    assert x.array[0, 1] == -math.inf
    body = b"".join(encode_predict_response(Response([x]), is_row=False))
    assert body == b'{"outputs":[[NaN,-Infinity]]}'
    rows = encode_predict_response(Response([x, Tensor("y", x.datatype, x.array)]), is_row=True)
    assert b"".join(rows) == b'{"predictions":[{"x":[NaN,-Infinity],"y":[NaN,-Infinity]}]}'


# Responses.


def test_one_output_has_no_name_and_several_have() -> None:
    y, z = tensor("y", [[1, 2], [3, 4]]), tensor("z", [5, 6], dtypes.INT64)
    assert encode(y, is_row=True) == {"predictions": [[1, 2], [3, 4]]}
    assert encode(y, is_row=False) == {"outputs": [[1, 2], [3, 4]]}
    assert encode(y, z, is_row=True) == {
        "predictions": [{"y": [1, 2], "z": 5}, {"y": [3, 4], "z": 6}]
    }
    assert encode(y, z, is_row=False) == {"outputs": {"y": [[1, 2], [3, 4]], "z": [5, 6]}}


def test_rows_need_outputs_of_as_many() -> None:
    with pytest.raises(InvalidRequest, match=r"inconsistent batch size: 'y' \[2\], 'z' \[1\]"):
        encode(tensor("y", [1, 2]), tensor("z", [1]), is_row=True)
    with pytest.raises(InvalidRequest, match=r"inconsistent batch size: 'y' \[\]"):
        encode(tensor("y", 1), is_row=True)
    assert encode(tensor("y", 1), is_row=False) == {"outputs": 1}


def test_strings_are_text_and_bytes_are_base64() -> None:
    values = np.array([b"caf\xc3\xa9", b"\xff"], object)
    assert encode(Tensor("y", dtypes.BYTES, values), is_row=True) == {
        "predictions": ["café", {"b64": "/w=="}]
    }
    assert encode(Tensor("y_bytes", dtypes.BYTES, values[:1]), is_row=True) == {
        "predictions": [{"b64": "Y2Fmw6k="}]
    }


@pytest.mark.parametrize("name", [n for n in DATATYPE_BY_NAME if n not in ("BYTES", "BOOL")])
def test_numbers_of_every_datatype_go_out(name: str) -> None:
    datatype = DATATYPE_BY_NAME[name]
    one = np.ones((1, 2), datatype.numpy)
    if datatype is dtypes.BF16:
        one = dtypes.bf16_from_float32(np.ones((1, 2), np.float32))
    assert encode(Tensor("y", datatype, one), is_row=True) == {"predictions": [[1, 1]]}


def test_what_lies_across_memory_goes_out_in_order() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert encode(Tensor("y", dtypes.FP32, values), is_row=True) == {
        "predictions": [[0, 3], [1, 4], [2, 5]]
    }


# Models.


def test_the_status_of_a_model_is_that_of_tensorflow_serving_and_of_kserve() -> None:
    rows = [
        ("1", "UNAVAILABLE", "unloaded"),
        ("10", "READY", ""),
        ("2", "UNAVAILABLE", "torn"),
        ("11", "READY", "serves as it was, and could not be loaded anew: torn"),
        ("3", "UNAVAILABLE", "unloaded, because model 'a', which it needs, was unloaded"),
    ]
    good = {"error_code": "OK", "error_message": "OK"}
    versions = [
        {"version": "11", "state": "AVAILABLE", "status": good},
        {"version": "10", "state": "AVAILABLE", "status": good},
        {"version": "3", "state": "END", "status": good},
        {
            "version": "2",
            "state": "END",
            "status": {"error_code": "UNKNOWN", "error_message": "torn"},
        },
        {"version": "1", "state": "END", "status": good},
    ]
    assert version_status(rows) == {"model_version_status": versions}
    assert model_status("m", rows, is_ready=True) == {
        "name": "m", "ready": True, "model_version_status": versions,
    }  # fmt: skip


def test_metadata_are_those_of_tensorflow_serving() -> None:
    config = ModelConfig(
        name="m",
        max_batch_size=8,
        input=(ModelInput(name="x", data_type="TYPE_FP16", dims=(2,)),),
        output=(ModelOutput(name="y", data_type="TYPE_STRING", dims=()),),
    )
    found = model_metadata(config, 3)
    assert found["modelSpec"] == {"name": "m", "signatureName": "", "version": "3"}
    signature = found["metadata"]["signature_def"]["signatureDef"]["serving_default"]
    assert signature["inputs"]["x"] == {
        "dtype": "DT_HALF",
        "tensorShape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
            "unknownRank": False,
        },
        "name": "x",
    }
    assert signature["outputs"]["y"]["dtype"] == "DT_STRING"


@pytest.mark.parametrize("is_row", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_long_answers_are_written_in_pieces(
    is_row: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call for all of their values would hold up everybody else, on whatever thread."""
    outputs = [tensor(name, np.arange(60).reshape(3, 20)) for name in "xy"[:count]]
    outputs[0].array[1, 1] = np.nan
    whole = encode(*outputs, is_row=is_row)
    monkeypatch.setattr(v1, "LONG_VALUES", 50)
    monkeypatch.setattr(json_arrays, "PIECE_VALUES", 8)
    pieces = encode_predict_response(Response(outputs), is_row=is_row)
    assert repr(json.loads(b"".join(pieces))) == repr(whole)
    assert max(piece.count(b",") for piece in map(bytes, pieces)) <= 20


@pytest.mark.parametrize("kind", ["FP32", "FP64", "FP16", "BF16", "INT64", "UINT8"])
@pytest.mark.parametrize(
    ("before", "after", "is_row"),
    [
        ('{"instances":', "}", True),
        (' {\n"signature_name" : "serving_default", "inputs" : ', " }\n", False),
        ('{"instances": ', ', "signature_name": ""}', True),
    ],
)
def test_long_lists_of_numbers_are_read_in_pieces_and_are_the_same(
    kind: str, before: str, after: str, is_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their length: only what is read in one go has a bound."""
    config = model(("x", kind, (3, 1)), batch=0x7FFFFFFF)
    text = json.dumps([[index % 200, 1, 2] for index in range(40)])
    body = f"{before}{text}{after}".encode()
    general = decode_predict_request(body, config)
    monkeypatch.setattr(v1, "LONG_BYTES", 1)
    monkeypatch.setattr(json_reader, "check_depth", refuse)
    quick = decode_predict_request(body, config, most_bytes=1)
    assert quick.is_row == general.is_row == is_row
    (one,), (other,) = quick.request.payload.tensors, general.request.payload.tensors
    assert (one.name, one.datatype, one.shape) == (other.name, other.datatype, (40, 3, 1))
    assert one.array.tobytes() == other.array.tobytes()


def refuse(*arguments: Any) -> None:
    raise AssertionError("it is not read in one go")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"instances":[[1,2],[3]]}', "Encountered list of size"),
        (b'{"instances":[[1,2],[3,"a"]]}', "must be a number, got a string"),
        (b'{"instances":[[1,2],[3,1e39]]}', "which FP32 cannot hold"),
        (b'{"instances":[[1,2]3]}', "not valid json"),
        (b'{"instances":[[1,2]]', "not valid json"),
        (b'{"instances":[[1,2]],"inputs":[1]}', "got both"),
        (b'{"inputs":[[1,2]],"signature_name":"no"}', "not found in signature def"),
        (b'{"instances":[[[[[[1]]]]]]}', "nesting depth exceeds"),
    ],
)
def test_errors_of_long_lists_are_those_of_short_ones(
    body: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v1, "LONG_BYTES", 1)
    with pytest.raises(InvalidRequest, match=text):
        decode_predict_request(body.ljust(300), ONE, most_depth=5)
    with pytest.raises(TooLarge):
        decode_predict_request(body.ljust(300), ONE, most_depth=5, most_bytes=299)
