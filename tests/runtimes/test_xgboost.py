from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from modelport.errors import InvalidRequest, LoadFailed
from modelport.runtimes.registry import find_runtime
from modelport.runtimes.xgboost import XgboostRuntime
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
FLOWERS = IRIS.data.astype(np.float32)
CELLS = CANCER.data.astype(np.float32)


@pytest.fixture(scope="module")
def iris() -> Any:
    return xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(FLOWERS, IRIS.target)


@pytest.fixture(scope="module")
def cancer() -> Any:
    return xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(CELLS, CANCER.target)


def save(directory: Path, model: Any, filename: str = "model.ubj") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    # XGBoost knows two endings; others are called for by whoever renames the file.
    saved = directory / ("saved.json" if filename.endswith(".json") else "saved.ubj")
    model.save_model(saved)
    saved.rename(directory / filename)


def load(
    directory: Path, model: Any, config: ModelConfig | None = None, filename: str = "model.ubj"
) -> LoadedModel:
    save(directory, model, filename)
    given = config or ModelConfig(default_model_filename=filename)
    return load_model(XgboostRuntime, directory, given)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tried" / "1"


def classifier_example(model: Any, rows: slice) -> Example:
    features = FLOWERS[rows]
    return Example(
        {"features": features},
        {
            "label": model.predict(features).astype(np.int64).reshape(-1, 1),
            "probabilities": model.predict_proba(features),
        },
    )


class TestClassifier(RuntimeSuite):
    @pytest.fixture
    def case(self, iris: Any) -> RuntimeCase:
        return RuntimeCase(
            runtime=XgboostRuntime,
            filename="model.ubj",
            write=lambda directory: save(directory, iris),
            examples=[
                classifier_example(iris, slice(0, 1)),
                classifier_example(iris, slice(70, 73)),
            ],
            break_file=lambda directory: (directory / "model.ubj").write_bytes(b"{no forest"),
            row=find_runtime("xgboost"),
            framework="xgboost",
        )


class TestRegressor(RuntimeSuite):
    @pytest.fixture
    def case(self) -> RuntimeCase:
        features = DIABETES.data.astype(np.float32)
        model = xgboost.XGBRegressor(n_estimators=5, max_depth=3, n_jobs=1)
        model.fit(features, DIABETES.target)

        def example(rows: slice) -> Example:
            return Example(
                {"features": features[rows]},
                {"prediction": model.predict(features[rows]).reshape(-1, 1)},
            )

        return RuntimeCase(
            runtime=XgboostRuntime,
            filename="model.json",
            write=lambda directory: save(directory, model, "model.json"),
            examples=[example(slice(0, 2)), example(slice(5, 6))],
            break_file=lambda directory: (directory / "model.json").write_bytes(b'{"a": 1}'),
        )


def described(entries: Sequence[ModelInput] | Sequence[ModelOutput]) -> list[str]:
    return [f"{each.name} {each.datatype}{list(each.dims)}" for each in entries]


def parameters(**texts: str) -> dict[str, Parameter]:
    return {name: Parameter(string_value=text) for name, text in texts.items()}


def test_file_tells_features_classes_and_batching(directory: Path, iris: Any) -> None:
    config = load(directory, iris).config
    assert described(config.input) == ["features FP32[4]"]
    assert described(config.output) == ["label INT64[1]", "probabilities FP32[3]"]
    assert config.max_batch_size == 1024
    assert config.dynamic_batching is not None


def test_two_classes_have_two_probabilities(directory: Path, cancer: Any) -> None:
    answer = load(directory, cancer).ask({"features": CELLS[:20]})
    np.testing.assert_allclose(answer["probabilities"], cancer.predict_proba(CELLS[:20]), rtol=1e-5)
    np.testing.assert_array_equal(answer["label"][:, 0], cancer.predict(CELLS[:20]))


@pytest.mark.parametrize("objective", ["multi:softmax", "multi:softprob"])
def test_probabilities_do_not_depend_on_what_the_objective_tells(
    directory: Path, iris: Any, objective: str
) -> None:
    booster = xgboost.train(
        {"objective": objective, "num_class": 3, "max_depth": 3},
        xgboost.DMatrix(FLOWERS, IRIS.target),
        8,
    )
    answer = load(directory, booster).ask({"features": FLOWERS})
    np.testing.assert_allclose(answer["probabilities"], iris.predict_proba(FLOWERS), rtol=1e-5)


def test_threshold_moves_the_label(directory: Path, cancer: Any) -> None:
    config = ModelConfig(parameters=parameters(threshold="0.9"))
    answer = load(directory, cancer, config).ask({"features": CELLS})
    expected = cancer.predict_proba(CELLS)[:, 1] > 0.9
    assert answer["label"][:, 0].tolist() == expected.tolist()
    assert answer["label"][:, 0].tolist() != cancer.predict(CELLS).tolist()


def test_margins_leaves_and_contributions_can_be_had(directory: Path, iris: Any) -> None:
    config = ModelConfig(
        output=tuple(ModelOutput(name=name) for name in ("margin", "leaf", "contributions"))
    )
    loaded = load(directory, iris, config)
    assert described(loaded.config.output) == [
        "margin FP32[3]",
        "leaf INT64[24]",
        "contributions FP32[3, 5]",
    ]
    answer = loaded.ask({"features": FLOWERS[:5]})
    np.testing.assert_allclose(
        answer["margin"], iris.predict(FLOWERS[:5], output_margin=True), rtol=1e-5
    )
    np.testing.assert_array_equal(answer["leaf"], iris.apply(FLOWERS[:5]))
    np.testing.assert_allclose(answer["contributions"].sum(axis=2), answer["margin"], rtol=1e-4)


def test_missing_values_are_nan(directory: Path, iris: Any) -> None:
    rows = FLOWERS[:3].copy()
    rows[:, 2] = np.nan
    answer = load(directory, iris).ask({"features": rows})
    np.testing.assert_allclose(answer["probabilities"], iris.predict_proba(rows), rtol=1e-5)


def test_early_stopped_forest_answers_with_its_best_round(directory: Path) -> None:
    model = xgboost.XGBRegressor(
        n_estimators=40, early_stopping_rounds=3, learning_rate=1.0, n_jobs=1
    )
    train, held_out = slice(0, 300), slice(300, None)
    model.fit(
        DIABETES.data[train],
        DIABETES.target[train],
        eval_set=[(DIABETES.data[held_out], DIABETES.target[held_out])],
        verbose=False,
    )
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    rows = DIABETES.data[held_out].astype(np.float32)
    answer = load(directory, model).ask({"features": rows})
    np.testing.assert_allclose(answer["prediction"][:, 0], model.predict(rows), rtol=1e-5)


@pytest.mark.parametrize("filename", ["model.xgb", "model.bst", "model.json"])
def test_other_endings_are_read(directory: Path, iris: Any, filename: str) -> None:
    answer = load(directory, iris, filename=filename).ask({"features": FLOWERS[:2]})
    assert answer["label"].tolist() == [[0], [0]]


class TestConfigurationsForFil:
    """Repositories that Triton serves with its backend for forests."""

    def asked(
        self, directory: Path, model: Any, rows: Any, *, dims: int = 0, **options: str
    ) -> tuple[LoadedModel, Any]:
        output = (ModelOutput(name="output__0", data_type="TYPE_FP32", dims=(dims,)),)
        config = ModelConfig(
            backend="fil",
            max_batch_size=64,
            input=(ModelInput(name="input__0", data_type="TYPE_FP32", dims=(rows.shape[1],)),),
            output=output if dims else (),
            parameters=parameters(model_type="xgboost_ubj", **options),
        )
        loaded = load(directory, model, config)
        return loaded, loaded.ask({"input__0": rows})["output__0"]

    def test_output_class_gives_the_class_as_a_float(self, directory: Path, iris: Any) -> None:
        _, answer = self.asked(directory, iris, FLOWERS[::10], dims=1, output_class="true")
        assert answer.dtype == np.float32
        assert answer[:, 0].tolist() == iris.predict(FLOWERS[::10]).tolist()

    def test_predict_proba_gives_all_classes(self, directory: Path, iris: Any) -> None:
        _, answer = self.asked(
            directory, iris, FLOWERS[:9], dims=3, is_classifier="true", predict_proba="true"
        )
        np.testing.assert_allclose(answer, iris.predict_proba(FLOWERS[:9]), rtol=1e-5)

    @pytest.mark.parametrize("dims", [1, 2])
    def test_two_classes_are_one_column_or_two(
        self, directory: Path, cancer: Any, dims: int
    ) -> None:
        _, answer = self.asked(
            directory, cancer, CELLS[:9], dims=dims, output_class="true", predict_proba="true"
        )
        np.testing.assert_allclose(answer, cancer.predict_proba(CELLS[:9])[:, -dims:], rtol=1e-5)

    def test_output_that_is_not_listed_is_completed(self, directory: Path, iris: Any) -> None:
        loaded, _ = self.asked(
            directory, iris, FLOWERS[:1], output_class="true", predict_proba="true"
        )
        assert described(loaded.config.output) == ["output__0 FP32[3]"]

    def test_regression_is_what_the_objective_says(self, directory: Path, cancer: Any) -> None:
        _, answer = self.asked(directory, cancer, CELLS[:9], dims=1, output_class="false")
        np.testing.assert_allclose(answer[:, 0], cancer.predict_proba(CELLS[:9])[:, 1], rtol=1e-5)

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"is_classifier": "yes"}, "'is_classifier' is 'yes'; it has to be one of true, false"),
            (
                {"threshold": "high", "output_class": "true"},
                "'threshold' is 'high'; it has to be a number",
            ),
        ],
    )
    def test_wrong_parameter_is_refused(
        self, directory: Path, cancer: Any, options: dict[str, str], told: str
    ) -> None:
        with pytest.raises(LoadFailed, match=told):
            self.asked(directory, cancer, CELLS[:1], dims=1, **options)


def test_unknown_parameter_is_passed_over_and_told_of(directory: Path, iris: Any) -> None:
    config = ModelConfig(parameters={"treshold": Parameter(string_value="0.3")})
    [(level, text, _)] = load(directory, iris, config).host.lines
    assert level == "warning"
    assert "'treshold' means nothing to a model of trees and is passed over" in text
    assert "did you mean 'threshold'?" in text


def test_wrong_number_of_features_is_told(directory: Path, iris: Any) -> None:
    config = ModelConfig(input=(ModelInput(name="features", dims=(5,)),))
    with pytest.raises(LoadFailed, match="has 5 features, and the model was trained on 4"):
        load(directory, iris, config)
    config = ModelConfig(input=(ModelInput(name="features", dims=(-1,)),))
    with pytest.raises(InvalidRequest, match="has 3 features, and the model was trained on 4"):
        load(directory, iris, config).ask({"features": FLOWERS[:2, :3]})


def test_labels_of_a_regression_are_refused(directory: Path) -> None:
    model = xgboost.XGBRegressor(n_estimators=1).fit(DIABETES.data, DIABETES.target)
    with pytest.raises(LoadFailed, match="'label' needs a classifier"):
        load(directory, model, ModelConfig(output=(ModelOutput(name="label"),)))


def test_output_made_of_nothing_is_refused(directory: Path, iris: Any) -> None:
    with pytest.raises(LoadFailed, match=r"'odds' is made of nothing; use one of label"):
        load(directory, iris, ModelConfig(output=(ModelOutput(name="odds"),)))


def test_two_dimensions_switch_batching_off(directory: Path, iris: Any) -> None:
    config = ModelConfig(input=(ModelInput(name="features", dims=(-1, 4)),))
    loaded = load(directory, iris, config)
    assert loaded.config.max_batch_size == 0
    assert described(loaded.config.output) == ["label INT64[-1, 1]", "probabilities FP32[-1, 3]"]
    assert loaded.ask({"features": FLOWERS[:5]})["label"].shape == (5, 1)
