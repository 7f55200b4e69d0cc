"""OVMS's own client, over REST: status, metadata, predictions of pictures and of numbers."""

import os
from typing import Any

import numpy as np
import pytest
from ovmsclient import make_http_client
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError

from tests.compat.pictures import png


@pytest.fixture
def client() -> Any:
    return make_http_client(os.environ["OVMS_ADDRESS"])


def test_a_model_tells_how_it_is(client: Any) -> None:
    good = {"state": "AVAILABLE", "error_code": 0, "error_message": "OK"}
    assert client.get_model_status("colors") == {1: good}
    assert client.get_model_status("colors", 1) == {1: good}


def test_a_model_tells_what_it_takes(client: Any) -> None:
    assert client.get_model_metadata("colors") == {
        "inputs": {"image": {"dtype": "DT_FLOAT", "shape": [-1, 6, 4, 3]}},
        "outputs": {"mean": {"dtype": "DT_FLOAT", "shape": [-1, 3]}},
        "model_version": 1,
    }


def test_one_picture_is_decoded_blue_first(client: Any) -> None:
    found = client.predict({"image": png(9, 5, (1, 2, 3))}, "colors")
    np.testing.assert_array_equal(found, [[3, 2, 1]])


def test_pictures_of_any_size_make_a_batch(client: Any) -> None:
    pictures = [png(9, 5, (1, 2, 3)), png(50, 40, (4, 5, 6))]
    found = client.predict({"image": pictures}, "colors", model_version=1)
    np.testing.assert_array_equal(found, [[3, 2, 1], [6, 5, 4]])


def test_numbers_are_taken_as_they_are(client: Any) -> None:
    found = client.predict({"image": np.full((2, 6, 4, 3), 7, np.float32)}, "colors")
    np.testing.assert_array_equal(found, np.full((2, 3), 7))


def test_errors_are_of_the_classes_that_the_client_has(client: Any) -> None:
    with pytest.raises(ModelNotFoundError, match="Model with requested name is not found"):
        client.get_model_status("nobody")
    with pytest.raises(ModelNotFoundError, match="Model with requested version is not found"):
        client.get_model_metadata("colors", 7)
    with pytest.raises(InvalidInputError, match="Image parsing failed"):
        client.predict({"image": b"no picture"}, "colors")
    with pytest.raises(InvalidInputError, match="unexpected shape for input 'image'"):
        client.predict({"image": np.zeros((2, 2), np.float32)}, "colors")
