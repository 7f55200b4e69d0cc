import json

import numpy as np
import orjson
import pytest

from modelport.tensors import Array
from modelport.wire import json_arrays
from modelport.wire.json_arrays import in_pieces


def encode(part: Array) -> bytes:
    return orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)


SHAPES = [(0,), (1,), (7,), (8,), (9,), (100,), (1, 40), (40, 1), (3, 0, 5), (0, 50), (1, 1, 60),
          (5, 7), (5, 8), (5, 9), (2, 3, 4, 5), (3, 17, 1, 3)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_pieces_together_are_the_whole(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_arrays, "PIECE_VALUES", 8)
    array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    assert json.loads(b"".join(in_pieces(array, encode))) == array.tolist()


@pytest.mark.parametrize("shape", [(100,), (1, 100), (4, 5, 5), (2, 9, 3)])
def test_no_piece_holds_more_values_than_it_may(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_arrays, "PIECE_VALUES", 8)
    sizes: list[int] = []

    def counting(part: Array) -> bytes:
        sizes.append(part.size)
        return encode(part)

    array = np.zeros(shape)
    list(in_pieces(array, counting))
    assert max(sizes) <= 8
    assert sum(sizes) == array.size


def test_a_value_alone_is_a_piece() -> None:
    assert list(in_pieces(np.array(7), lambda array: str(array.item()).encode())) == [b"7"]
