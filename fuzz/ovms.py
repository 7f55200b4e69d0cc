"""Feed anything to the readers of what comes from clients and configurations of OVMS, and of V1.

The invariant: whatever the bytes, a reader gives a message or raises a ``ModelportError`` with a
text that can be sent, and nothing else. What V1 gives has arrays of the shapes and datatypes that
it says, and can be answered in rows or in columns, as JSON. What images and texts become has a
datatype of the model and no more bytes than are allowed. A list of models that was read can be held
against any model. The work is bounded by the bytes that came.

    python -m fuzz.ovms [RUNS]           with a plain mutator of its own
    python -m fuzz.ovms --atheris ...    guided by coverage, with libFuzzer's options;
                                         needs `pip install atheris`
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from fuzz import harness
from modelport import dtypes
from modelport.messages import Response
from modelport.specs import ModelConfig, ModelInput, Parameter
from modelport.tensors import Tensor
from modelport.wire import json as wire_json
from modelport.wire.model_config import decode_ovms, hold_to_forms
from modelport.wire.ovms_bytes import implied_size, sizes_of, split
from modelport.wire.ovms_images import ImageInputs, ImageLimits
from modelport.wire.v1 import decode_predict_request, encode_predict_response
from modelport.wire.v2_regions import decode_cuda_registration, decode_registration

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000002000000020802000000fdd49a7300000016494441"
    "54789c636064626661656360e7e0e4e2e60100018f004f0474adbd0000000049454e44ae426082"
)
BMP = (
    b"BM" + (58).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    + (40).to_bytes(4, "little") + (1).to_bytes(4, "little") * 2 + b"\x01\x00\x18\x00" + bytes(24)
    + b"\x01\x02\x03\x00"
)  # fmt: skip

SEEDS = (
    b'{"instances":[[1,2],[3,4.5]]}',
    b'{"instances":[{"f":[1,2],"text":"a"},{"f":[3,4],"text":{"b64":"AAE="}}]}',
    b'{"inputs":{"f":[[1,2]],"text":["a"],"n":[[1,2]]},"signature_name":"serving_default"}',
    b'{"inputs":[{"b64":"iVBORw0KGgo="},"\\u00e9"]}',
    b'{"inputs":[NaN,-Infinity,1e300,18446744073709551615]}',
    b'{"key":"/name","offset":0,"byte_size":8}',
    b'{"raw_handle":{"b64":"AAAA"},"device_id":0,"byte_size":8}',
    b'{"model_config_list":[{"config":{"name":"m","base_path":"/m","shape":"(1,3,224,224)",'
    b'"layout":"NHWC:NCHW","mean":"[1,2.5,3]","scale":255,"batch_size":"1:8","nireq":4}}]}',
    b'{"model_config_list":[{"config":{"name":"n","base_path":"n","shape":{"f":"(-1,2)","image":'
    b'"auto"},"model_version_policy":{"latest":{"num_versions":2}},"plugin_config":{}}}],'
    b'"monitoring":{}}',
    PNG,
    BMP,
    len(PNG).to_bytes(4, "little") + PNG + len(BMP).to_bytes(4, "little") + BMP,
    b"\3\0\0\0abc\0\0\0\0",
    b"370,480, 5",
)

WORDS = (
    b"{", b"}", b"[", b"]", b"[]", b":", b",", b'"', b"\\", b"\\ud800", b"null", b"true", b"NaN",
    b"-0", b"-1", b"1e400", b"0.1", b"9223372036854775808", b"[" * 101, b'{"b64":"', b'"AAAA"}',
    b'"instances":', b'"inputs":', b'"f":', b'"text":', b'"image":', b'"shape":"(', b",-1,?,1:9)",
    b'"mean":', b'"layout":', b'"precision":"u8",', b'"NCHW:NHWC"', b"\x00", b"\xff",
    b"\xff\xff\xff\x7f", b"IHDR",
    b"IDAT", b"\xff\xd8\xff", b"RIFF", b"WEBPVP8 ", PNG, BMP,
)  # fmt: skip


def _config(batch: int, *inputs: ModelInput, **parameters: str) -> ModelConfig:
    return ModelConfig(
        name="m",
        max_batch_size=batch,
        input=inputs,
        parameters={key: Parameter(string_value=value) for key, value in parameters.items()},
    )


CONFIGS = (
    _config(0, ModelInput(name="text", data_type="TYPE_STRING", dims=(-1,))),
    _config(8, ModelInput(name="f", data_type="TYPE_FP32", dims=(2,))),
    _config(
        4,
        ModelInput(name="f", data_type="TYPE_BF16", dims=(-1,)),
        ModelInput(name="text", data_type="TYPE_STRING", dims=(1,)),
        ModelInput(name="n", data_type="TYPE_UINT8", dims=(-1,), optional=True),
    ),
    _config(
        4,
        ModelInput(name="image", data_type="TYPE_FP32", dims=(3, -1, -1)),
        layout="NHWC:NCHW",
        ovms_mean="1,2,3",
        ovms_scale="2",
        ovms_precision="UINT8",
    ),
    _config(0, ModelInput(name="image", data_type="TYPE_UINT8", dims=(-1, 2, 3, 1))),
)

LIMITS = ImageLimits(pixels=1 << 12, tensor_bytes=1 << 16)

# Bytes that are no text may be quoted.
attempt = partial(harness.attempt, errors="surrogateescape")


def check(data: bytes) -> None:
    """Hold the invariant on one input.

    Raises:
        Exception: Whatever broke it.
    """
    with harness.in_time():
        attempt(lambda: decode_registration(data))
        attempt(lambda: decode_cuda_registration(data))
        attempt(lambda: _list(data))
        for config in CONFIGS:
            attempt(lambda config=config: _predict(data, config))  # type: ignore[misc]
            attempt(lambda config=config: _images(data, config))  # type: ignore[misc]
        attempt(lambda: _sizes(data))


def mutations(seed: int) -> Iterator[bytes]:
    """Give inputs without end."""
    return harness.mutations(seed, SEEDS, WORDS)


def _list(data: bytes) -> None:
    for model in decode_ovms(data.decode("utf-8", "surrogateescape")):
        for config in CONFIGS:
            parameters = {**config.parameters, **model.config.parameters}
            attempt(lambda c=config, p=parameters: hold_to_forms(replace(c, parameters=p)))  # type: ignore[misc]


def _predict(data: bytes, config: ModelConfig) -> None:
    prediction = decode_predict_request(data, config)
    tensors = prediction.request.payload.tensors
    for tensor in tensors:
        _check_tensor(tensor)
    _arrange(tensors, config)
    for is_row in (False, True):
        attempt(lambda is_row=is_row: _answer(tensors, is_row=is_row))  # type: ignore[misc]


def _answer(tensors: "list[Tensor]", *, is_row: bool) -> None:
    pieces = encode_predict_response(Response(tensors), is_row=is_row)
    (answer,) = json.loads(b"".join(pieces)).keys()
    assert answer == ("predictions" if is_row else "outputs")


def _images(data: bytes, config: ModelConfig) -> None:
    """Take the bytes for one image, for two of them, and for elements with their lengths."""
    name = config.input[-1].name
    for elements in ([data], [data[: len(data) // 2], data[len(data) // 2 :]], split(data, [], 2)):
        if elements is None:
            continue
        array = np.empty(len(elements), object)
        array[:] = elements
        tensor = Tensor(name, dtypes.BYTES, array)
        attempt(lambda tensor=tensor: _arrange([tensor], config))  # type: ignore[misc]


def _arrange(tensors: "list[Tensor]", config: ModelConfig) -> None:
    inputs = ImageInputs(config, LIMITS)
    if not inputs.concerns(tensors):
        return
    sent = {tensor.name: tensor for tensor in tensors}
    for tensor in inputs.decode(tensors):
        _check_tensor(tensor)
        if tensor.array is not sent[tensor.name].array:
            assert tensor.datatype in {entry.datatype for entry in config.input}
            assert tensor.array.nbytes <= max(LIMITS.tensor_bytes, sent[tensor.name].array.nbytes)


def _check_tensor(tensor: Tensor) -> None:
    assert tensor.array.shape == tensor.shape
    assert tensor.array.dtype == tensor.datatype.numpy
    if tensor.datatype is dtypes.BYTES:
        assert all(type(element) is bytes for element in tensor.array.ravel().tolist())


def _sizes(data: bytes) -> None:
    text = data.decode("latin-1")
    attempt(lambda: sizes_of(text, "x"))
    attempt(lambda: sizes_of(wire_json.decode(data), "x"))
    for count in (1, 2):
        elements = split(data, [len(data)] if count == 1 else [1, max(0, len(data) - 1)], count)
        assert elements is None or len(elements) == count
    assert implied_size(dtypes.BYTES, (1,), len(data)) == len(data)


if __name__ == "__main__":
    harness.main(check, mutations)
