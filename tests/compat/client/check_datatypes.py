"""Every datatype there and back, bit for bit."""

from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from tests.compat.client.tensors import tensor

VALUES = {
    "BOOL": np.array([True, False, True]),
    "UINT8": np.array([0, 255], np.uint8),
    "UINT16": np.array([0, 2**16 - 1], np.uint16),
    "UINT32": np.array([0, 2**32 - 1], np.uint32),
    "UINT64": np.array([0, 2**53 + 1, 2**64 - 1], np.uint64),
    "INT8": np.array([-128, 127], np.int8),
    "INT16": np.array([-(2**15), 2**15 - 1], np.int16),
    "INT32": np.array([-(2**31), 2**31 - 1], np.int32),
    "INT64": np.array([-(2**63), -(2**53) - 1, 2**63 - 1], np.int64),
    "FP16": np.array([0.1, -65504, np.inf, np.nan], np.float16),
    "FP32": np.array([0.1, -3.4e38, 1e-45, -np.inf, np.nan, -0.0], np.float32),
    "FP64": np.array([0.1, 1.7e308, 5e-324, np.inf, np.nan], np.float64),
    "BYTES": np.array([b"", "größer".encode(), b"\x00\xff"], np.object_),
}


@pytest.mark.parametrize("size", ["values", "one", "none"])
@pytest.mark.parametrize("datatype", VALUES)
def test_binary_data_come_back_to_the_bit(client: Any, datatype: str, size: str) -> None:
    values = VALUES[datatype][: {"values": None, "one": 1, "none": 0}[size]]
    result = ask(client, datatype, values, binary_in=True, binary_out=True)
    assert result.shape == values.shape
    assert result.dtype == values.dtype or not len(values)  # 2.24 makes a float64[0] of it
    assert result.tobytes() == values.tobytes() or result.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("binary_in", "binary_out"), [(False, False), (False, True), (True, False)]
)
@pytest.mark.parametrize("datatype", [name for name in VALUES if name != "FP16"])
def test_json_gives_the_same_values(
    client: Any, datatype: str, binary_in: bool, binary_out: bool
) -> None:
    values = VALUES[datatype]
    if datatype == "BYTES":
        values = values[:2]  # JSON holds text
    elif values.dtype.kind == "f" and not binary_in:
        values = values[np.isfinite(values)]  # the client refuses to write the others
    result = ask(client, datatype, values, binary_in=binary_in, binary_out=binary_out)
    if datatype == "BYTES":
        texts = [entry.decode() if isinstance(entry, bytes) else entry for entry in result]
        assert texts == [entry.decode() for entry in values]
    else:
        np.testing.assert_array_equal(result.astype(values.dtype), values)


def test_bf16_keeps_the_upper_half_of_a_float32(client: Any) -> None:
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    given = triton.InferInput("values", [3], "BF16")
    try:
        given.set_data_from_numpy(values)
    except Exception as exc:  # what it raises differs by version
        pytest.skip(f"this client has no BF16: {exc}")
    result = client.infer("same_bf16", [given]).as_numpy("result")
    np.testing.assert_array_equal(np.asarray(result, np.float32), values)


def ask(client: Any, datatype: str, values: Any, *, binary_in: bool, binary_out: bool) -> Any:
    answer = client.infer(
        f"same_{datatype.lower()}",
        [tensor("values", values, datatype, binary=binary_in)],
        outputs=[triton.InferRequestedOutput("result", binary_data=binary_out)],
    )
    return answer.as_numpy("result")
