"""What decoding and encoding V2 REST costs, without a socket or a model.

``python -m benchmarks.codec`` prints microseconds per call, the best of several rounds.
"""

import json
import timeit
from collections.abc import Callable

import numpy as np

from modelport import dtypes
from modelport.messages import Request, Response, Tensors
from modelport.tensors import Array, Tensor
from modelport.wire.v2_rest import CodecOptions, ResponseEncoder, decode_infer_request
from modelport.wire.v2_rest_client import encode_infer_request

ROUNDS = 5
ROUND_S = 0.1


def main() -> None:
    """Print one line per body: bytes, decode, encode."""
    source = np.random.default_rng(0)
    tiny = np.round(source.random((1, 10)), 4).astype(np.float32)
    image = source.random((1, 3, 224, 224)).astype(np.float32)
    words = np.array([b"word %d" % index for index in range(1000)], object)
    print(f"{'body':<34}{'bytes':>10}{'decode µs':>12}{'encode µs':>12}")
    _measure("FP32[1,10], JSON", tiny, is_binary=False)
    _measure("FP32[1,10], binary", tiny, is_binary=True)
    _measure("FP32[1,3,224,224], JSON", image, is_binary=False)
    _measure("FP32[1,3,224,224], binary", image, is_binary=True)
    _measure("BYTES[1000], JSON", words, is_binary=False)
    _measure("BYTES[1000], binary", words, is_binary=True)
    _measure_nested(image)


def _measure(title: str, array: Array, *, is_binary: bool) -> None:
    tensor = Tensor("INPUT0", dtypes.DATATYPE_BY_NUMPY[array.dtype], array)
    length, pieces = encode_infer_request(Request(Tensors([tensor])), is_binary=is_binary)
    response = Response([tensor])
    encoder = ResponseEncoder("model", "1")
    _print(title, b"".join(pieces), length, lambda: encoder.encode(response, "", is_binary))


def _measure_nested(array: Array) -> None:
    part = {"name": "I", "datatype": "FP32", "shape": array.shape, "data": array.tolist()}
    _print("FP32[1,3,224,224], nested JSON", json.dumps({"inputs": [part]}).encode(), None, None)


def _print(
    title: str, body: bytes, length: int | None, encode: Callable[[], object] | None
) -> None:
    options = CodecOptions()
    decoded = _us(lambda: decode_infer_request(body, length, "model", options))
    encoded = f"{_us(encode):12.2f}" if encode is not None else ""
    print(f"{title:<34}{len(body):>10}{decoded:12.2f}{encoded}")


def _us(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call)
    once = timer.timeit(3) / 3
    number = max(3, int(ROUND_S / once))
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


if __name__ == "__main__":
    main()
