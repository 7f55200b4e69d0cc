from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from modelport.errors import LoadFailed
from modelport.runtimes.lightgbm import LightgbmRuntime
from modelport.runtimes.registry import find_runtime
from modelport.specs import ModelConfig, ModelInput, ModelOutput, Parameter
from modelport.testing.runtime_suite import (
    Example,
    LoadedModel,
    RuntimeCase,
    RuntimeSuite,
    load_model,
)

IRIS = load_iris()
CANCER = load_breast_cancer()
DIABETES = load_diabetes()
OPTIONS = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1, "verbose": -1}


def grow(kind: type, data: Any) -> Any:
    model = kind(**OPTIONS)
    # Through the booster: the wrappers warn of arrays without names.
    return model.fit(data.data, data.target).booster_


@pytest.fixture(scope="module")
def iris() -> Any:
    return grow(lightgbm.LGBMClassifier, IRIS)


@pytest.fixture(scope="module")
def cancer() -> Any:
    return grow(lightgbm.LGBMClassifier, CANCER)


@pytest.fixture(scope="module")
def diabetes() -> Any:
    return grow(lightgbm.LGBMRegressor, DIABETES)


def save(directory: Path, booster: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    booster.save_model(directory / "model.txt")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tried" / "1"


def load(directory: Path, booster: Any, config: ModelConfig | None = None) -> LoadedModel:
    save(directory, booster)
    return load_model(LightgbmRuntime, directory, config or ModelConfig())


class TestClassifier(RuntimeSuite):
    @pytest.fixture
    def case(self, iris: Any) -> RuntimeCase:
        def example(rows: slice) -> Example:
            probabilities = iris.predict(IRIS.data[rows])
            return Example(
                {"features": IRIS.data[rows]},
                {
                    "label": probabilities.argmax(axis=1, keepdims=True),
                    "probabilities": probabilities,
                },
            )

        return RuntimeCase(
            runtime=LightgbmRuntime,
            filename="model.txt",
            write=lambda directory: save(directory, iris),
            examples=[example(slice(0, 1)), example(slice(70, 73))],
            break_file=lambda directory: (directory / "model.txt").write_bytes(b"tree\nhalf"),
            row=find_runtime("lightgbm"),
            framework="lightgbm",
            tolerance=1e-12,
        )


class TestRegressor(RuntimeSuite):
    @pytest.fixture
    def case(self, diabetes: Any) -> RuntimeCase:
        def example(rows: slice) -> Example:
            features = DIABETES.data[rows]
            return Example(
                {"features": features}, {"prediction": diabetes.predict(features).reshape(-1, 1)}
            )

        return RuntimeCase(
            runtime=LightgbmRuntime,
            filename="model.txt",
            write=lambda directory: save(directory, diabetes),
            examples=[example(slice(0, 2)), example(slice(5, 6))],
            tolerance=1e-12,
        )


def test_two_classes_have_two_probabilities(directory: Path, cancer: Any) -> None:
    loaded = load(directory, cancer)
    assert [each.dims for each in loaded.config.output] == [(1,), (2,)]
    answer = loaded.ask({"features": CANCER.data})
    second = cancer.predict(CANCER.data)
    np.testing.assert_allclose(answer["probabilities"], np.stack((1 - second, second), 1))
    assert answer["label"][:, 0].tolist() == (second > 0.5).tolist()


def test_no_rows_are_an_answer_without_rows(directory: Path, iris: Any) -> None:
    answer = load(directory, iris).ask({"features": IRIS.data[:0]})
    assert answer["probabilities"].shape == (0, 3)


def test_margins_leaves_and_contributions_can_be_had(directory: Path, iris: Any) -> None:
    names = ("margin", "leaf", "contributions")
    config = ModelConfig(output=tuple(ModelOutput(name=name) for name in names))
    rows = IRIS.data[:5]
    answer = load(directory, iris, config).ask({"features": rows})
    np.testing.assert_allclose(answer["margin"], iris.predict(rows, raw_score=True))
    np.testing.assert_array_equal(answer["leaf"], iris.predict(rows, pred_leaf=True))
    np.testing.assert_allclose(answer["contributions"].sum(axis=2), answer["margin"])


def test_configuration_for_fil_is_obeyed(directory: Path, cancer: Any) -> None:
    texts = {"model_type": "lightgbm", "output_class": "true", "predict_proba": "true"}
    config = ModelConfig(
        backend="fil",
        max_batch_size=32,
        input=(ModelInput(name="input__0", data_type="TYPE_FP32", dims=(30,)),),
        output=(
            ModelOutput(name="output__0", data_type="TYPE_FP32", dims=(2,)),
            ModelOutput(name="treeshap_output", data_type="TYPE_FP32", dims=(31,)),
        ),
        parameters={name: Parameter(string_value=text) for name, text in texts.items()},
    )
    rows = CANCER.data[:9].astype(np.float32)
    answer = load(directory, cancer, config).ask({"input__0": rows})
    second = cancer.predict(rows)
    np.testing.assert_allclose(answer["output__0"], np.stack((1 - second, second), 1), rtol=1e-5)
    np.testing.assert_allclose(
        answer["treeshap_output"].sum(axis=1), cancer.predict(rows, raw_score=True), rtol=1e-4
    )


def test_file_that_was_cut_off_is_refused_wherever_it_ends(directory: Path, iris: Any) -> None:
    """LightGBM itself ends the process over some of them."""
    save(directory, iris)
    file = directory / "model.txt"
    whole = file.read_bytes()
    end = whole.index(b"\nend of trees")
    for length in range(0, end, max(1, end // 40)):
        file.write_bytes(whole[:length])
        with pytest.raises(LoadFailed, match=r"LightGBM cannot read 'model\.txt'"):
            load_model(LightgbmRuntime, directory, ModelConfig())


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("left_child", "left_child=99"),
        ("left_child", "left_child=0"),
        ("right_child", "right_child=-99"),
        ("split_feature", "split_feature=1000"),
        ("leaf_value", "leaf_value=0.5"),
    ],
)
def test_tree_that_leads_nowhere_is_refused(
    directory: Path, iris: Any, line: str, instead: str
) -> None:
    """LightGBM itself would follow it, out of its memory or for ever."""
    save(directory, iris)
    file = directory / "model.txt"
    lines = file.read_text().splitlines()
    index = next(number for number, text in enumerate(lines) if text.startswith(f"{line}="))
    count = len(lines[index].split())
    lines[index] = " ".join([instead, *[instead.partition("=")[2]] * (count - 1)])
    if line == "leaf_value":
        lines[index] = instead
    file.write_text("\n".join(lines))
    with pytest.raises(LoadFailed, match="tree 0 has n"):
        load_model(LightgbmRuntime, directory, ModelConfig())


def grown_on_categories() -> Any:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 40, (400, 1)).astype(float)
    target = np.isin(kinds[:, 0], (1, 5, 7, 33)).astype(float)
    data = lightgbm.Dataset(kinds, target, categorical_feature=[0], params={"verbose": -1})
    options = {"verbose": -1, "min_data_in_leaf": 1, "min_data_per_group": 1, "num_threads": 1}
    return lightgbm.train(options, data, 3), kinds


def test_categories_are_understood(directory: Path) -> None:
    booster, kinds = grown_on_categories()
    answer = load(directory, booster).ask({"features": kinds})
    np.testing.assert_allclose(answer["prediction"][:, 0], booster.predict(kinds))


@pytest.mark.parametrize("line", ["cat_boundaries", "cat_threshold", "num_cat"])
def test_categories_that_lead_nowhere_are_refused(directory: Path, line: str) -> None:
    booster, _ = grown_on_categories()
    save(directory, booster)
    file = directory / "model.txt"
    lines = file.read_text().splitlines()
    index = next(
        number
        for number, text in enumerate(lines)
        if text.startswith(f"{line}=") and not text.endswith("=0")
    )
    lines[index] = f"{line}=0" if line == "num_cat" else lines[index].rpartition(" ")[0] + " 9999"
    if line == "cat_threshold":
        lines[index] = f"{line}=1"
        lines[index - 1] = lines[index - 1].rpartition(" ")[0] + " 9"
    file.write_text("\n".join(lines))
    with pytest.raises(LoadFailed, match=r"tree \d+ has nodes that lead nowhere"):
        load_model(LightgbmRuntime, directory, ModelConfig())
