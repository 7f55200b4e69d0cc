import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_iris

from modelport.errors import LoadFailed
from modelport.runtimes.xgboost import XgboostRuntime
from modelport.runtimes.xgboost_file import check_trees, read_ubjson
from modelport.specs import ModelConfig
from modelport.testing.runtime_suite import load_model

IRIS = load_iris()
CONTENT = bytes(
    xgboost.XGBClassifier(n_estimators=3, max_depth=3, n_jobs=1)
    .fit(IRIS.data, IRIS.target)
    .get_booster()
    .save_raw("ubj")
)
Change = Callable[[Any, Any], object]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b"{i\x01aT}", {"a": True}),
        (b"{i\x01aZi\x01bF}", {"a": None, "b": False}),
        (b"[i\x05U\xffI\x01\x00]", [5, 255, 256]),
        (b"[#i\x02l\x00\x00\x00\x07L\x00\x00\x00\x00\x00\x00\x00\x08", [7, 8]),
        (b"[SU\x02hiCx]", ["hi", "x"]),
        (b"d\x3f\x80\x00\x00", 1.0),
        (b"D\x3f\xf0\x00\x00\x00\x00\x00\x00", 1.0),
    ],
)
def test_ubjson_is_read(data: bytes, value: object) -> None:
    assert read_ubjson(data) == value


def test_arrays_of_one_type_are_views() -> None:
    array = read_ubjson(b"[$l#i\x02\x00\x00\x00\x01\xff\xff\xff\xff")
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [1, -1]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"x", b"[$l#i\x02\x00", b"[$lX", b"{}{}", b"SU\x05ab"[:2], b"[" * 200, b"S[]"],
)
def test_what_is_no_ubjson_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_ubjson(data)


@given(st.binary(max_size=64), st.integers(0, len(CONTENT) - 1))
def test_no_content_raises_anything_else(noise: bytes, at: int) -> None:
    changed = CONTENT[:at] + noise + CONTENT[at + len(noise) :]
    try:
        check_trees(read_ubjson(changed))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        pass


def test_trees_of_xgboost_pass() -> None:
    check_trees(read_ubjson(CONTENT))


def tree_of(document: Any) -> Any:
    return document["learner"]["gradient_booster"]["model"]["trees"][0]


def set_first(name: str, value: int) -> Change:
    return lambda model, tree: tree[name].__setitem__(0, value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (set_first("left_children", 10**8), "tree 0 has nodes that lead nowhere"),
        (set_first("left_children", 0), "tree 0 has nodes that lead nowhere"),
        (set_first("right_children", 1), "tree 0 has nodes that lead nowhere"),
        (set_first("right_children", -1), "tree 0 has nodes that lead nowhere"),
        (set_first("split_indices", 4), "tree 0 has nodes that lead nowhere"),
        (set_first("split_type", 1), "tree 0 has nodes that lead nowhere|XGBoost cannot read"),
        (lambda model, tree: model["tree_info"].__setitem__(0, 3), "belong to its classes"),
        (
            lambda model, tree: model["iteration_indptr"].__setitem__(-1, 10**6),
            "cover its trees|indptr",
        ),
    ],
)
def test_tree_that_would_end_the_process_is_refused(
    tmp_path: Path, change: Change, told: str
) -> None:
    """Each of these loads in XGBoost 3.2, or nearly does, and is walked out of bounds."""
    booster = xgboost.Booster(model_file=bytearray(CONTENT))
    document = json.loads(bytes(booster.save_raw("json")))
    change(document["learner"]["gradient_booster"]["model"], tree_of(document))
    directory = tmp_path / "m" / "1"
    directory.mkdir(parents=True)
    (directory / "model.json").write_text(json.dumps(document))
    with pytest.raises(LoadFailed, match=told):
        load_model(XgboostRuntime, directory, ModelConfig(default_model_filename="model.json"))


@pytest.mark.parametrize("booster", ["gblinear", "dart", "categories", "targets"])
def test_other_boosters_pass(tmp_path: Path, booster: str) -> None:
    rows, target = IRIS.data.astype(np.float32), IRIS.target.astype(np.float32)
    options: dict[str, Any] = {"nthread": 1}
    data = xgboost.DMatrix(rows, target)
    if booster == "categories":
        rows = np.column_stack((rows[:, :3], IRIS.target % 3)).astype(np.float32)
        kinds = ["q", "q", "q", "c"]
        data = xgboost.DMatrix(rows, target, feature_types=kinds, enable_categorical=True)
        options |= {"tree_method": "hist", "max_cat_to_onehot": 1}
    elif booster == "targets":
        data = xgboost.DMatrix(rows, np.column_stack((target, -target)))
        options |= {"multi_strategy": "multi_output_tree", "tree_method": "hist"}
    else:
        options |= {"booster": booster}
    model = xgboost.train(options, data, 4)
    directory = tmp_path / "m" / "1"
    directory.mkdir(parents=True)
    model.save_model(directory / "model.ubj")
    answer = load_model(XgboostRuntime, directory, ModelConfig()).ask({"features": rows[:5]})
    expected = model.predict(xgboost.DMatrix(rows[:5]), validate_features=False).reshape(5, -1)
    np.testing.assert_allclose(answer["prediction"], expected, rtol=1e-5)
