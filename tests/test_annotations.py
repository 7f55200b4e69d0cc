from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import numpy as np
import pytest
from numpy.typing import NDArray

from modelport.annotations import tensors_of
from modelport.signature import TensorSignature

Array = np.ndarray[Any, np.dtype[Any]]


def described(tensors: Sequence[TensorSignature]) -> list[str]:
    return [
        f"{each.name} {each.datatype}{list(each.dims)} {each.form}{' text' * each.is_text}"
        for each in tensors
    ]


def read(function: Callable[..., Any], *, is_batching: bool = False) -> tuple[list[str], list[str]]:
    inputs, outputs = tensors_of(
        function, without=frozenset({"parameters"}), is_batching=is_batching
    )
    return described(inputs), described(outputs)


def test_arrays_tell_their_type_and_perhaps_their_shape() -> None:
    def model(
        declared: Annotated[Array, "FP16[-1, 3]"],
        shaped: Annotated[NDArray[np.float32], (2, -1)],
        plain: NDArray[np.int64],
        ranked: np.ndarray[tuple[int, Literal[3]], np.dtype[np.uint8]],
        text: NDArray[np.str_],
        blobs: NDArray[np.bytes_],
    ) -> NDArray[np.float64]:
        raise NotImplementedError

    inputs, outputs = read(model)
    assert inputs == [
        "declared FP16[-1, 3] array",
        "shaped FP32[2, -1] array",
        "plain INT64[-1] array",
        "ranked UINT8[-1, 3] array",
        "text BYTES[-1] array",
        "blobs BYTES[-1] array",
    ]
    assert outputs == ["output FP64[-1] array"]


def test_values_are_one_element_and_lists_have_a_dimension_each() -> None:
    def model(
        a: bool,
        b: int,
        c: float,
        d: str,
        e: bytes,
        f: np.float32,
        g: list[float],
        h: list[list[str]],
        i: Sequence[int],
        j: int | None = None,
    ) -> str:
        raise NotImplementedError

    inputs, outputs = read(model)
    assert inputs == [
        "a BOOL[1] value",
        "b INT64[1] value",
        "c FP64[1] value",
        "d BYTES[1] value text",
        "e BYTES[1] value",
        "f FP32[1] value",
        "g FP64[-1] list",
        "h BYTES[-1, -1] list text",
        "i INT64[-1] list",
        "j INT64[1] value",
    ]
    assert outputs == ["output BYTES[1] value text"]


def test_anything_else_is_json() -> None:
    def model(a: dict[str, Any], b: list[dict[str, int]], c: Any) -> dict[str, float]:
        raise NotImplementedError

    inputs, outputs = read(model)
    assert inputs == ["a BYTES[1] json", "b BYTES[1] json", "c BYTES[1] json"]
    assert outputs == ["output BYTES[1] json"]


@dataclass
class Found:
    label: str
    scores: list[float]


class Pair(NamedTuple):
    left: int
    right: float


class Answer(TypedDict):
    text: str
    tokens: int


@pytest.mark.parametrize(
    ("result", "outputs"),
    [
        (Found, ["label BYTES[1] value text", "scores FP64[-1] list"]),
        (Pair, ["left INT64[1] value", "right FP64[1] value"]),
        (Answer, ["text BYTES[1] value text", "tokens INT64[1] value"]),
        (tuple[int, str], ["output__0 INT64[1] value", "output__1 BYTES[1] value text"]),
        (Iterator[str], ["output BYTES[1] value text"]),
        (AsyncIterator[Found], ["label BYTES[1] value text", "scores FP64[-1] list"]),
    ],
)
def test_results_of_several_parts_are_several_outputs(result: Any, outputs: list[str]) -> None:
    def model(x: int) -> Any: ...

    model.__annotations__["return"] = result
    assert read(model)[1] == outputs


def test_batches_are_arrays_whose_first_dimension_is_left_out() -> None:
    def model(
        x: Annotated[Array, "FP32[-1, 10]"], y: NDArray[np.float32]
    ) -> Annotated[NDArray[np.float32], (-1, 2)]:
        raise NotImplementedError

    inputs, outputs = read(model, is_batching=True)
    assert inputs == ["x FP32[10] array", "y FP32[-1] array"]
    assert outputs == ["output FP32[2] array"]


def test_arguments_that_are_no_inputs_need_no_annotation() -> None:
    def model(x: int, parameters, *rest, **others) -> int:  # type: ignore[no-untyped-def]  # that is the point
        raise NotImplementedError

    assert read(model)[0] == ["x INT64[1] value"]


def no_annotation(x) -> int:  # type: ignore[no-untyped-def]  # that is the point
    raise NotImplementedError


def no_result(x: int): ...  # type: ignore[no-untyped-def]  # that is the point
def gives_none(x: int) -> None: ...
def any_array(x: Array) -> int:
    raise NotImplementedError


def bare_array(x: np.ndarray) -> int:
    raise NotImplementedError


def open_tuple(x: int) -> tuple[int, ...]:
    raise NotImplementedError


def unknown(x: "Nowhere") -> int:  # type: ignore[name-defined]  # noqa: F821
    raise NotImplementedError


def value(x: float) -> NDArray[np.float32]:
    raise NotImplementedError


def short(x: Annotated[NDArray[np.float32], (3, 2)]) -> NDArray[np.float32]:
    raise NotImplementedError


def unfit(x: NDArray[np.datetime64]) -> int:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "is_batching", "told"),
    [
        (no_annotation, False, "argument 'x' has no annotation; write one"),
        (no_result, False, "its result has no annotation"),
        (gives_none, False, "its result is None; a model gives at least one output"),
        (any_array, False, "'x' is an array of typing.Any, which no datatype is for"),
        (bare_array, False, "'x' is an array of anything; write Annotated"),
        (open_tuple, False, "its result is a tuple of any length"),
        (unknown, False, "annotations cannot be read .NameError: name 'Nowhere'"),
        (value, True, "'x' is no array, and with max_batch_size all inputs"),
        (short, True, r"'x' has the shape \[3, 2\]; with max_batch_size its first"),
        (unfit, False, "'x' is an array of .*datetime64"),
    ],
)
def test_what_is_no_tensor_is_told(
    function: Callable[..., Any], is_batching: bool, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        read(function, is_batching=is_batching)
