"""Looks at the trees of an XGBoost model before they are walked.

XGBoost checks little of what it reads (3.2): a node that leads out of its tree, or back into it, is
found out by whoever predicts, and the process ends. So the model is asked for its content once
more, in UBJSON, whose arrays are cheap to read, and every tree is held to be one.

Source: UBJSON, "Type Reference", as far as XGBoost writes it; XGBoost, "Introduction to Model IO".
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from modelport.tensors import Array

__all__ = ["check_trees", "read_ubjson"]

DEEPEST = 100
"""Containers within containers; a model has ten."""


def check_trees(document: Mapping[str, Any]) -> None:
    """Refuse trees that lead out of themselves or in circles.

    Args:
        document: The whole model.

    Raises:
        ValueError: Naming the tree.
        KeyError: If the model lacks something.
    """
    learner = document["learner"]
    booster = learner["gradient_booster"]
    # A linear booster has no trees; one with dropouts has them one floor deeper.
    model = booster.get("gbtree", booster).get("model", {})
    if "trees" not in model:
        return
    shape = learner["learner_model_param"]
    features = int(shape["num_feature"])
    groups = max(1, int(shape["num_class"]), int(shape.get("num_target", 1)))
    trees, group_by_tree = model["trees"], np.asarray(model["tree_info"], np.int64)
    if len(group_by_tree) != len(trees) or not _is_within(group_by_tree, 0, groups):
        raise ValueError("its trees do not belong to its classes")
    starts = np.asarray(model.get("iteration_indptr", [0, len(trees)]), np.int64)
    if not len(starts) or starts[0] != 0 or starts[-1] != len(trees) or (np.diff(starts) < 0).any():
        raise ValueError("its rounds do not cover its trees")
    for number, tree in enumerate(trees):
        if not all(_problems(tree, features)):
            raise ValueError(f"tree {number} has nodes that lead nowhere")


def _problems(tree: Mapping[str, Any], features: int) -> Iterator[bool]:
    """Whether each thing that a walk relies on is so."""
    left, right, split = (
        np.asarray(tree[name], np.int64)
        for name in ("left_children", "right_children", "split_indices")
    )
    kinds = np.asarray(tree.get("split_type", []), np.int64)
    nodes = len(left)
    yield nodes > 0 and len(right) == len(split) == nodes
    is_inner = left >= 0
    # Where leaves are vectors, a leaf's right child is the number of its vector.
    vectors = len(tree["leaf_weights"]) // _vector_size(tree) if _vector_size(tree) > 1 else 0
    yield (
        _is_within(right[~is_inner], 0, vectors) if vectors else bool((right[~is_inner] < 0).all())
    )
    # With one parent for every node but the first, no walk from the first comes back.
    children = np.concatenate((left[is_inner], right[is_inner]))
    yield _is_within(children, 1, nodes) and len(np.unique(children)) == len(children)
    yield _is_within(split[is_inner], 0, features)
    yield len(kinds) in (0, nodes)
    if len(kinds):
        yield from _category_problems(tree, np.flatnonzero(is_inner & (kinds == 1)))


def _vector_size(tree: Mapping[str, Any]) -> int:
    return int(tree["tree_param"].get("size_leaf_vector", 1))


def _category_problems(tree: Mapping[str, Any], nodes: Array) -> Iterator[bool]:
    listed, starts, sizes, categories = (
        np.asarray(tree[name], np.int64)
        for name in ("categories_nodes", "categories_segments", "categories_sizes", "categories")
    )
    yield len(listed) == len(starts) == len(sizes)
    yield bool(np.isin(nodes, listed).all())
    yield bool((starts >= 0).all() and (sizes >= 0).all())
    yield bool((starts + sizes <= len(categories)).all())


def _is_within(values: Array, least: int, end: int) -> bool:
    return bool(((values >= least) & (values < end)).all())


def read_ubjson(data: bytes) -> Any:
    """Read a UBJSON document; arrays of one type become NumPy's, as views.

    Raises:
        ValueError: If it is none, or breaks off.
    """
    try:
        value, end = _value(data, 0, 0)
    except (IndexError, struct.error, KeyError) as exc:
        raise ValueError("it is no UBJSON, or breaks off") from exc
    if end != len(data):
        raise ValueError("something stands behind its end")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > DEEPEST:
        raise ValueError("its containers are too deep")
    mark = data[at : at + 1]
    at += 1
    match mark:
        case b"{":
            return _object(data, at, depth)
        case b"[":
            return _array(data, at, depth)
        case b"S":
            size, at = _size(data, at)
            return data[at : at + size].decode("utf-8", "replace"), at + size
        case b"C":
            return chr(data[at]), at + 1
        case b"T" | b"F":
            return mark == b"T", at
        case b"Z" | b"N":
            return None, at
    dtype = _DTYPES[mark]
    return np.frombuffer(_cut(data, at, dtype.itemsize), dtype)[0].item(), at + dtype.itemsize


def _object(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while data[at] != ord("}"):
        size, at = _size(data, at)
        name = data[at : at + size].decode("utf-8", "replace")
        found[name], at = _value(data, at + size, depth + 1)
    return found, at + 1


def _array(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if data[at] == ord("$"):
        dtype = _DTYPES[data[at + 1 : at + 2]]
        if data[at + 2] != ord("#"):
            raise ValueError("an array has a type and no length")
        count, at = _size(data, at + 3)
        size = count * dtype.itemsize
        return np.frombuffer(_cut(data, at, size), dtype), at + size
    values: list[Any] = []
    if data[at] == ord("#"):
        count, at = _size(data, at + 1)
        for _ in range(count):
            value, at = _value(data, at, depth + 1)
            values.append(value)
        return values, at
    while data[at] != ord("]"):
        value, at = _value(data, at, depth + 1)
        values.append(value)
    return values, at + 1


def _size(data: bytes, at: int) -> tuple[int, int]:
    size, at = _value(data, at, DEEPEST)
    if not isinstance(size, int) or size < 0:
        raise ValueError("a length is no number")
    return size, at


def _cut(data: bytes, at: int, size: int) -> memoryview:
    if at + size > len(data):
        raise ValueError("it breaks off")
    return memoryview(data)[at : at + size]


_DTYPES: Mapping[bytes, np.dtype[Any]] = {
    b"i": np.dtype("i1"),
    b"U": np.dtype("u1"),
    b"I": np.dtype(">i2"),
    b"l": np.dtype(">i4"),
    b"L": np.dtype(">i8"),
    b"d": np.dtype(">f4"),
    b"D": np.dtype(">f8"),
}
