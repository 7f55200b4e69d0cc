"""A short run of fuzz/ovms.py, so that its invariant is held by every change."""

from itertools import islice

import numpy as np
import pytest

from fuzz import ovms as fuzz
from modelport import dtypes
from modelport.tensors import Tensor
from modelport.wire.model_config import decode_ovms
from modelport.wire.ovms_images import ImageInputs
from modelport.wire.v1 import decode_predict_request
from modelport.wire.v2_regions import decode_registration


def test_seeds_are_read_as_what_they_are() -> None:
    """A fuzzer whose seeds are all refused looks at error paths only."""
    for seed in fuzz.SEEDS:
        fuzz.check(seed)
    text, f, three, image, _ = fuzz.CONFIGS
    assert decode_predict_request(fuzz.SEEDS[0], f).is_row
    assert decode_predict_request(fuzz.SEEDS[1], three).is_row
    assert not decode_predict_request(fuzz.SEEDS[3], text).is_row
    assert decode_registration(fuzz.SEEDS[5]).byte_size == 8
    for seed in fuzz.SEEDS[7:9]:
        assert len(decode_ovms(seed.decode())) == 1
    for seed in (fuzz.PNG, fuzz.BMP):
        sent = Tensor("image", dtypes.BYTES, np.array([seed], object))
        (tensor,) = ImageInputs(image, fuzz.LIMITS).decode([sent])
        assert tensor.shape[:2] == (1, 3)


@pytest.mark.slow
def test_no_bytes_give_anything_but_a_message_or_an_error_of_ours() -> None:
    for data in islice(fuzz.mutations(seed=1), 1500):
        fuzz.check(data)
