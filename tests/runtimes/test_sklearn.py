import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.covariance import EllipticEnvelope
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidRequest, LoadFailed
from modelport.runtimes.registry import RUNTIMES
from modelport.runtimes.sklearn import SklearnRuntime
from modelport.specs import ModelConfig, ModelInput, ModelOutput, Parameter
from modelport.testing.runtime_suite import (
    Example,
    LoadedModel,
    RuntimeCase,
    RuntimeSuite,
    load_model,
)

IRIS = load_iris()
NAMES = IRIS.target_names[IRIS.target]
TEXTS = ["good and kind", "kind words", "bad and rude", "rude words"]


def save(directory: Path, model: Any, filename: str = "model.skops") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    skops.io.dump(model, directory / filename)


def as_bytes(texts: Sequence[str]) -> Any:
    array = np.empty((len(texts), 1), object)
    array[:, 0] = [text.encode() for text in texts]
    return array


@pytest.fixture(scope="module")
def iris() -> Any:
    """A classifier whose classes are names."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(IRIS.data, NAMES)


@pytest.fixture(scope="module")
def reviews() -> Any:
    """A classifier of texts, whose classes are numbers."""
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, [1, 1, 0, 0])


def iris_example(model: Any, rows: slice) -> Example:
    features = IRIS.data[rows].astype(np.float32)
    return Example(
        {"features": features},
        {
            "label": as_bytes(model.predict(features)),
            "probabilities": model.predict_proba(features).astype(np.float32),
        },
    )


def write_identity(directory: Path, datatype: DataType) -> ModelConfig:
    """A transformer that does nothing."""
    save(directory, FunctionTransformer().fit(np.zeros((1, 1))))
    return ModelConfig(
        input=(ModelInput(name="x", data_type=datatype.config_name, dims=(-1,)),),
        output=(ModelOutput(name="y", data_type=datatype.config_name, dims=(-1,)),),
        parameters={"method.y": Parameter(string_value="transform")},
    )


class TestClassifier(RuntimeSuite):
    @pytest.fixture
    def case(self, iris: Any) -> RuntimeCase:
        return RuntimeCase(
            runtime=SklearnRuntime,
            filename="model.skops",
            write=lambda directory: save(directory, iris),
            examples=[iris_example(iris, slice(0, 1)), iris_example(iris, slice(70, 73))],
            poison={"features": np.full((1, 4), np.nan, np.float32)},
            break_file=lambda directory: (directory / "model.skops").write_bytes(b"no zip"),
            row=RUNTIMES[1],
            framework="skops",
        )


class TestTextClassifier(RuntimeSuite):
    @pytest.fixture
    def case(self, reviews: Any) -> RuntimeCase:
        def example(*texts: str) -> Example:
            return Example(
                {"text": as_bytes(texts)},
                {
                    "label": reviews.predict(texts).reshape(-1, 1),
                    "probabilities": reviews.predict_proba(texts).astype(np.float32),
                },
            )

        return RuntimeCase(
            runtime=SklearnRuntime,
            filename="model.skops",
            write=lambda directory: save(directory, reviews),
            examples=[example("a kind word"), example("how rude", "and bad")],
            poison={"text": np.array([[b"\xff"]], object)},
            row=RUNTIMES[1],
            framework="sklearn",
        )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tried" / "1"


def load(
    directory: Path, model: Any, config: ModelConfig | None = None, **options: Any
) -> LoadedModel:
    save(directory, model)
    return load_model(SklearnRuntime, directory, config or ModelConfig(), **options)


def described(entries: Sequence[ModelInput] | Sequence[ModelOutput]) -> list[str]:
    return [f"{each.name} {each.datatype}{list(each.dims)}" for each in entries]


def test_numbers_come_in_one_input_of_all_features(directory: Path, iris: Any) -> None:
    config = load(directory, iris).config
    assert described(config.input) == ["features FP32[4]"]
    assert described(config.output) == ["label BYTES[1]", "probabilities FP32[3]"]


def test_models_without_a_configured_batch_take_large_batches(directory: Path, iris: Any) -> None:
    config = load(directory, iris).config
    assert config.max_batch_size == 1024
    assert config.dynamic_batching is not None


def test_configured_batch_size_stays(directory: Path, iris: Any) -> None:
    config = load(directory, iris, ModelConfig(max_batch_size=8)).config
    assert config.max_batch_size == 8
    assert config.dynamic_batching is None


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (LinearRegression(), ["prediction FP32[1]"]),
        (PCA(2), ["output FP32[2]"]),
        (KMeans(3, n_init=1), ["label INT64[1]"]),
        (EllipticEnvelope(random_state=0), ["label INT64[1]"]),
        (Perceptron(), ["label INT64[1]"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_outputs_follow_from_the_kind_of_model(
    directory: Path, model: Any, outputs: Sequence[str]
) -> None:
    loaded = load(directory, model.fit(IRIS.data, IRIS.target))
    assert described(loaded.config.output) == outputs
    answer = loaded.ask({"features": IRIS.data[:2].astype(np.float32)})
    assert [array.shape[0] for array in answer.values()] == [2]


def test_several_targets_of_a_regression_are_one_row(directory: Path) -> None:
    model = LinearRegression().fit(IRIS.data, np.column_stack([IRIS.target, -IRIS.target]))
    assert described(load(directory, model).config.output) == ["prediction FP32[2]"]


def test_sparse_output_is_made_dense(directory: Path) -> None:
    loaded = load(directory, TfidfVectorizer().fit(TEXTS))
    answer = loaded.ask({"text": as_bytes(["good words"])})
    assert answer["output"].shape == (1, 6)
    assert np.count_nonzero(answer["output"]) == 2


def test_names_of_outputs_imply_their_method(directory: Path, iris: Any) -> None:
    config = ModelConfig(output=(ModelOutput(name="decision"), ModelOutput(name="label")))
    loaded = load(directory, iris, config)
    assert described(loaded.config.output) == ["decision FP32[3]", "label BYTES[1]"]


def test_parameter_gives_an_output_its_method(directory: Path, iris: Any) -> None:
    config = ModelConfig(
        output=(ModelOutput(name="odds"),),
        parameters={"method.odds": Parameter(string_value="predict_log_proba")},
    )
    answer = load(directory, iris, config).ask({"features": IRIS.data[:1].astype(np.float32)})
    np.testing.assert_allclose(
        answer["odds"], iris.predict_log_proba(IRIS.data[:1]).astype(np.float32), rtol=1e-5
    )


def test_output_without_a_method_is_refused(directory: Path, iris: Any) -> None:
    with pytest.raises(LoadFailed, match=r"'odds' comes from no method.*'method.odds' to one of"):
        load(directory, iris, ModelConfig(output=(ModelOutput(name="odds"),)))


def test_parameters_reach_no_other_attributes(directory: Path, iris: Any) -> None:
    config = ModelConfig(
        output=(ModelOutput(name="x"),),
        parameters={"method.x": Parameter(string_value="set_params")},
    )
    with pytest.raises(LoadFailed, match="comes from no method"):
        load(directory, iris, config)


def test_method_that_the_model_lacks_is_refused(directory: Path) -> None:
    model = Perceptron().fit(IRIS.data, IRIS.target)
    with pytest.raises(LoadFailed, match="'probabilities' needs predict_proba"):
        load(directory, model, ModelConfig(output=(ModelOutput(name="probabilities"),)))


def test_input_has_the_name_and_type_that_the_operator_gave(directory: Path, iris: Any) -> None:
    config = ModelConfig(input=(ModelInput(name="flower", data_type="TYPE_FP64"),))
    loaded = load(directory, iris, config)
    assert described(loaded.config.input) == ["flower FP64[4]"]
    loaded.ask({"flower": IRIS.data[:1]})


def test_several_inputs_are_columns_in_their_order(directory: Path, iris: Any) -> None:
    config = ModelConfig(
        input=(ModelInput(name="sepal", dims=(2,)), ModelInput(name="petal", dims=(2,)))
    )
    features = IRIS.data[:3].astype(np.float32)
    answer = load(directory, iris, config).ask(
        {"petal": features[:, 2:], "sepal": features[:, :2]}, outputs=["probabilities"]
    )
    np.testing.assert_allclose(answer["probabilities"], iris.predict_proba(features), rtol=1e-5)


def test_wrong_number_of_features_is_refused(directory: Path, iris: Any) -> None:
    config = ModelConfig(input=(ModelInput(name="features", dims=(5,)),))
    with pytest.raises(LoadFailed, match=r"have 5 features together, .* fitted on 4"):
        load(directory, iris, config)


def test_two_dimensions_switch_batching_off(directory: Path, iris: Any) -> None:
    config = ModelConfig(input=(ModelInput(name="features", dims=(-1, 4)),))
    loaded = load(directory, iris, config)
    assert loaded.config.max_batch_size == 0
    assert described(loaded.config.output) == ["label BYTES[-1, 1]", "probabilities FP32[-1, 3]"]
    answer = loaded.ask({"features": IRIS.data[:5].astype(np.float32)})
    assert answer["probabilities"].shape == (5, 3)


def test_categories_are_texts_where_the_operator_says_so(directory: Path) -> None:
    colours = np.array([["red", "small"], ["blue", "large"]], object)
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(colours, [True, False])
    config = ModelConfig(input=(ModelInput(name="colours", data_type="TYPE_STRING", dims=(2,)),))
    config = ModelConfig(
        input=config.input,
        output=(ModelOutput(name="label", data_type="TYPE_BOOL", dims=(1,)),),
    )
    answer = load(directory, model, config).ask(
        {"colours": np.array([[b"red", b"small"], [b"blue", b"large"]], object)}
    )
    assert answer["label"].tolist() == [[True], [False]]


def test_model_that_cannot_be_tried_says_what_to_write(directory: Path) -> None:
    model = OneHotEncoder().fit(np.array([["red"], ["blue"]], object))
    with pytest.raises(LoadFailed, match=r"could not be tried with 1 zeros .* config\.pbtxt"):
        load(directory, model)


def test_methods_that_answer_one_array_per_target_are_refused(directory: Path) -> None:
    targets = np.column_stack([IRIS.target, IRIS.target])
    model = MultiOutputClassifier(LogisticRegression(max_iter=1000)).fit(IRIS.data, targets)
    with pytest.raises(LoadFailed, match="one array per target"):
        load(directory, model)


def test_support_vectors_without_probabilities_have_a_label_only(directory: Path) -> None:
    model = SVC().fit(IRIS.data, IRIS.target)
    assert described(load(directory, model).config.output) == ["label INT64[1]"]


def test_values_that_the_model_refuses_are_the_callers_fault(directory: Path, iris: Any) -> None:
    loaded = load(directory, iris)
    with pytest.raises(InvalidRequest, match="Input X contains NaN") as failed:
        loaded.ask({"features": np.full((1, 4), np.nan, np.float32)})
    assert "\n" not in str(failed.value)


def test_model_fitted_on_named_columns_does_not_warn(directory: Path, iris: Any) -> None:
    """Warnings are errors here; scikit-learn would give one at every request."""
    model = LinearRegression().fit(IRIS.data, IRIS.target)
    model.feature_names_in_ = np.array(IRIS.feature_names, object)
    load(directory, model).ask({"features": IRIS.data[:1].astype(np.float32)})


def test_untrusted_types_are_listed_and_refused(directory: Path) -> None:
    save(directory, FunctionTransformer(pickle.loads))
    with pytest.raises(
        LoadFailed, match=r"'model\.skops' holds types .* _pickle\.loads\. A forged"
    ):
        load_model(SklearnRuntime, directory, ModelConfig())


def test_untrusted_types_are_taken_where_the_operator_says_so(directory: Path) -> None:
    save(directory, FunctionTransformer(os.path.normcase).fit(np.zeros((1, 1))))
    config = ModelConfig(output=(ModelOutput(name="output", data_type="TYPE_FP32", dims=(1,)),))
    with pytest.raises(LoadFailed, match="normcase"):
        load_model(SklearnRuntime, directory, config)
    loaded = load_model(SklearnRuntime, directory, config, allow_pickle=True)
    assert loaded.instance.is_ready()


def test_trees_are_refused_because_a_forged_one_crashes_the_process(directory: Path) -> None:
    model = DecisionTreeClassifier().fit(IRIS.data, IRIS.target)
    with pytest.raises(LoadFailed, match=r"sklearn\.tree\._tree\.Tree.*ONNX with skl2onnx"):
        load(directory, model)


def test_plain_python_of_scikit_learn_is_taken(directory: Path) -> None:
    """skops does not know the optimizers of a neural network, which hold numbers only."""
    model = MLPClassifier((2,), max_iter=1000, tol=1, random_state=0).fit(IRIS.data, IRIS.target)
    assert described(load(directory, model).config.output) == [
        "label INT64[1]",
        "probabilities FP32[3]",
    ]


def test_file_that_holds_no_model_is_refused(directory: Path) -> None:
    with pytest.raises(LoadFailed, match="a dict can neither predict nor transform"):
        load(directory, {"a": 1})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_model_gets_the_precision_that_it_was_fitted_in(directory: Path, dtype: type) -> None:
    """KMeans takes no other: its compiled loops exist for equal types only."""
    features = IRIS.data.astype(dtype)
    model = KMeans(3, n_init=1, random_state=0).fit(features)
    answer = load(directory, model).ask({"features": IRIS.data.astype(np.float32)})
    assert (answer["label"][:, 0] == model.predict(features)).mean() > 0.99


@pytest.mark.parametrize("name", ["model.pkl", "model.pickle", "model.joblib"])
def test_pickles_are_refused_unread(directory: Path, name: str) -> None:
    directory.mkdir(parents=True)
    (directory / name).write_bytes(pickle.dumps(print))
    with pytest.raises(LoadFailed, match=rf"'{name}' is a pickle.*skops.*--allow-pickle-models"):
        load_model(SklearnRuntime, directory, ModelConfig(default_model_filename=name))


@pytest.mark.parametrize("name", ["INT32", "FP32", "FP64", "BOOL", "UINT8"])
def test_numbers_of_other_types_are_taken(directory: Path, name: str) -> None:
    datatype = DATATYPE_BY_NAME[name]
    loaded = load_model(SklearnRuntime, directory, write_identity(directory, datatype))
    values = np.array([[0, 1, 1]], datatype.numpy)
    assert loaded.ask({"x": values})["y"].tolist() == values.tolist()


@pytest.mark.parametrize("filename", ["model.joblib", "model.pkl"])
def test_pickle_is_refused_before_it_is_opened(directory: Path, filename: str) -> None:
    directory.mkdir(parents=True)
    marker = directory / "was-run"
    (directory / filename).write_bytes(pickle.dumps(RunsWhenRead(str(marker))))
    config = ModelConfig(default_model_filename=filename)
    with pytest.raises(LoadFailed, match=r"is a pickle.* there is --allow-pickle-models"):
        load_model(SklearnRuntime, directory, config)
    assert not marker.exists()


class RunsWhenRead:
    """What a forged pickle does."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("filename", ["model.joblib", "model.pkl", "model.pickle"])
def test_pickle_is_served_where_the_operator_allows_it(directory: Path, filename: str) -> None:
    model = RandomForestClassifier(5, random_state=0).fit(IRIS.data, NAMES)
    directory.mkdir(parents=True)
    if filename == "model.joblib":
        joblib.dump(model, directory / filename, compress=3)
    else:
        (directory / filename).write_bytes(pickle.dumps(model))
    config = ModelConfig(default_model_filename=filename)
    loaded = load_model(SklearnRuntime, directory, config, allow_pickle=True)
    features = IRIS.data[::20].astype(np.float32)
    answer = loaded.ask({"features": features})
    assert answer["label"].tolist() == as_bytes(model.predict(features)).tolist()
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(features), rtol=1e-5)


def test_broken_pickle_is_told_without_its_path(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "model.pkl").write_bytes(b"no pickle")
    config = ModelConfig(default_model_filename="model.pkl")
    with pytest.raises(LoadFailed, match=r"'model\.pkl' cannot be read as a pickle") as failed:
        load_model(SklearnRuntime, directory, config, allow_pickle=True)
    assert str(directory) not in str(failed.value)
