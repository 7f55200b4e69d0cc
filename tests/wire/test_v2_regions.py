import base64
import json
from typing import Any

import pytest

from modelport.errors import InvalidRequest
from modelport.wire.v2_regions import (
    Registration,
    decode_cuda_registration,
    decode_registration,
)

HANDLE = {"b64": base64.b64encode(b"h" * 64).decode()}
CUDA = {"raw_handle": HANDLE, "device_id": 0, "byte_size": 4}


def test_a_registration_is_read() -> None:
    assert decode_registration(b'{"key": "/k", "byte_size": 4}') == Registration("/k", 0, 4)
    asked = decode_registration(b'{"key": "k", "offset": 8, "byte_size": 4, "more": null}')
    assert asked == Registration("k", 8, 4)
    decode_cuda_registration(json.dumps(CUDA).encode())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Shared memory register request has no 'key' field"),
        (b'{"byte_size": 1}', "Shared memory register request has no 'key' field"),
        (b'{"key": "/k"}', "Shared memory register request has no 'byte_size' field"),
        (b'{"key": 1, "byte_size": 1}', "Unable to parse 'key': attempt to access JSON non-string"),
        (b'{"key": "/k", "byte_size": 1.5}', "Unable to parse 'byte_size': attempt to access"),
        (b'{"key": "/k", "byte_size": -1}', "Unable to parse 'byte_size': attempt to access"),
        (b'{"key": "/k", "byte_size": 1, "offset": true}', "Unable to parse 'offset': attempt to"),
        (b"[]", "attempt to get members for non-object"),
        (b"{", "failed to parse the request JSON buffer"),
        (b"[" * 200, "JSON nesting depth exceeds maximum allowed limit"),
    ],
)
def test_what_is_no_registration_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{text}"):
        decode_registration(body)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"raw_handle": ...}, "Shared memory register request has no 'raw_handle' field"),
        ({"device_id": ...}, "Shared memory register request has no 'device_id' field"),
        ({"raw_handle": {}}, "Shared memory register request has no 'b64' field"),
        ({"raw_handle": {"b64": "?"}}, "'b64' of 'raw_handle' is not base64"),
        ({"raw_handle": {"b64": "aGk="}}, "'raw_handle' must be 64 bytes in base64, got 2"),
        ({"byte_size": "4"}, "Unable to parse 'byte_size': attempt to access"),
    ],
)
def test_what_is_no_registration_of_gpu_memory_is_refused(change: Any, text: str) -> None:
    merged = {key: value for key, value in {**CUDA, **change}.items() if value is not ...}
    with pytest.raises(InvalidRequest, match=f"^{text}"):
        decode_cuda_registration(json.dumps(merged).encode())
