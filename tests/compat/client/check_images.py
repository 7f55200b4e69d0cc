"""Pictures as BYTES for a model of numbers, as tritonclient sends them to OVMS."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_triton
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.compat.pictures import png

PICTURES = [png(9, 5, (1, 2, 3)), png(50, 40, (4, 5, 6))]


@pytest.fixture(params=["http", "grpc"])
def ovms(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """A client of either kind, and its module."""
    module = triton if request.param == "http" else grpc_triton
    client = module.InferenceServerClient(os.environ["OVMS_ADDRESS"])
    yield client, module
    client.close()


def infer(ovms: tuple[Any, Any], pictures: list[bytes], **options: Any) -> Any:
    client, module = ovms
    tensor = module.InferInput("image", [len(pictures)], "BYTES")
    tensor.set_data_from_numpy(np.array(pictures, object))
    return client.infer("colors", [tensor], **options).as_numpy("mean")


def test_pictures_are_decoded(ovms: tuple[Any, Any]) -> None:
    np.testing.assert_array_equal(infer(ovms, PICTURES), [[3, 2, 1], [6, 5, 4]])


def test_version_0_is_the_default_one(ovms: tuple[Any, Any]) -> None:
    client, _ = ovms
    found = infer(ovms, PICTURES[:1], model_version="0")
    np.testing.assert_array_equal(found, [[3, 2, 1]])
    assert client.is_model_ready("colors", "0")


def test_what_is_no_picture_is_told(ovms: tuple[Any, Any]) -> None:
    with pytest.raises(InferenceServerException, match="Image parsing failed"):
        infer(ovms, [b"no picture"])


def test_a_picture_without_its_length_is_of_the_older_kind(ovms: tuple[Any, Any]) -> None:
    """So did the samples of OVMS 2022.3, with the same client."""
    client, module = ovms
    tensor = module.InferInput("image", [1], "BYTES")
    if module is triton:
        tensor._raw_data = PICTURES[0]
        tensor._parameters = {"binary_data_size": len(PICTURES[0])}
    else:
        tensor._raw_content = PICTURES[0]
    found = client.infer("colors", [tensor]).as_numpy("mean")
    np.testing.assert_array_equal(found, [[3, 2, 1]])
