"""PyTorch is large, so ``make test`` does not install it; with it these run like all the others."""

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from modelport.dtypes import BYTES, DataType
from modelport.errors import InvalidRequest, LoadFailed, ModelFailed
from modelport.runtimes.registry import find_runtime
from modelport.specs import ModelConfig, ModelInput, ModelOutput, Parameter
from modelport.testing.runtime_suite import (
    Example,
    LoadedModel,
    RuntimeCase,
    RuntimeSuite,
    load_model,
)

torch: Any = pytest.importorskip(
    "torch", reason="PyTorch is not installed; install it with: pip install 'modelport[torch]'"
)
TorchRuntime = pytest.importorskip("modelport.runtimes.torch").TorchRuntime
Module: Any = torch.nn.Module

DIGITS = load_digits()
PIXELS = (DIGITS.data / 16).astype(np.float32)

pytestmark = [
    # Of PyTorch 2.13 itself, about its own TorchScript and its own use of the standard library.
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch.*"),
]


class Digits(Module):  # type: ignore[misc]  # PyTorch is not followed by the checker
    """A network with the weights that scikit-learn learned."""

    def __init__(self, learned: Any) -> None:
        super().__init__()
        first, second = (
            torch.tensor(np.ascontiguousarray(each.T), dtype=torch.float32)
            for each in learned.coefs_
        )
        self.hidden = torch.nn.Linear(64, first.shape[0])
        self.out = torch.nn.Linear(first.shape[0], 10)
        for layer, weight, bias in zip(
            (self.hidden, self.out), (first, second), learned.intercepts_, strict=True
        ):
            layer.weight = torch.nn.Parameter(weight)
            layer.bias = torch.nn.Parameter(torch.tensor(bias, dtype=torch.float32))

    def forward(self, pixels: Any) -> Any:
        logits = self.out(torch.relu(self.hidden(pixels)))
        return torch.softmax(logits, -1), torch.argmax(logits, -1, keepdim=True)


@pytest.fixture(scope="module")
def digits() -> Any:
    learned = MLPClassifier((16,), max_iter=60, tol=1, random_state=0).fit(PIXELS, DIGITS.target)
    return Digits(learned).eval()


def save_export(directory: Path, module: Any, *inputs: Any, **options: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    options.setdefault("dynamic_shapes", tuple({0: torch.export.Dim("batch")} for _ in inputs))
    program = torch.export.export(module, inputs, **options)
    torch.export.save(program, directory / "model.pt2")
    return directory / "model.pt2"


def save_digits(directory: Path, module: Any) -> Path:
    return save_export(directory, module, torch.zeros(2, 64))


def save_script(directory: Path, module: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    torch.jit.trace(module, (torch.zeros(2, 64),)).save(str(directory / "model.pt"))
    return directory / "model.pt"


def example(module: Any, rows: slice, name: str = "pixels") -> Example:
    with torch.no_grad():
        probabilities, label = module(torch.tensor(PIXELS[rows]))
    return Example(
        {name: PIXELS[rows]},
        {"output__0": probabilities.numpy(), "output__1": label.numpy()},
    )


def script_config(**given: Any) -> ModelConfig:
    """What an operator of Triton has beside a TorchScript file."""
    given.setdefault("max_batch_size", 8)
    return ModelConfig(
        platform="pytorch_libtorch",
        input=(ModelInput(name="input__0", data_type="TYPE_FP32", dims=(64,)),),
        output=(
            ModelOutput(name="output__0", data_type="TYPE_FP32", dims=(10,)),
            ModelOutput(name="output__1", data_type="TYPE_INT64", dims=(1,)),
        ),
        **given,
    )


def write_identity(directory: Path, datatype: DataType) -> ModelConfig:
    dtype = {"BOOL": "bool", "BF16": "bfloat16"}.get(datatype.name) or datatype.numpy.name
    module = torch.jit.trace(Same(), (torch.zeros(1),))
    directory.mkdir(parents=True, exist_ok=True)
    module.save(str(directory / "model.pt"))
    assert getattr(torch, dtype)
    return ModelConfig(
        input=(ModelInput(name="x", data_type=datatype.config_name, dims=(-1,)),),
        output=(ModelOutput(name="y", data_type=datatype.config_name, dims=(-1,)),),
    )


class Same(Module):  # type: ignore[misc]  # PyTorch is not followed by the checker
    def forward(self, x: Any) -> Any:
        return x


class TestExport(RuntimeSuite):
    @pytest.fixture
    def case(self, digits: Any) -> RuntimeCase:
        return RuntimeCase(
            runtime=TorchRuntime,
            filename="model.pt2",
            write=lambda directory: save_digits(directory, digits),
            examples=[example(digits, slice(0, 1)), example(digits, slice(70, 73))],
            break_file=lambda directory: (directory / "model.pt2").write_bytes(b"no archive"),
            row=find_runtime("pytorch"),
            framework="torch",
        )

    # Taking PyTorch out of a process, and putting it back, is more than it stands.
    test_missing_framework_is_told_with_the_command_that_installs_it = None  # type: ignore[assignment]  # not run here


class TestScript(RuntimeSuite):
    @pytest.fixture
    def case(self, digits: Any) -> RuntimeCase:
        return RuntimeCase(
            runtime=TorchRuntime,
            filename="model.pt",
            write=lambda directory: save_script(directory, digits),
            examples=[
                example(digits, slice(0, 1), "input__0"),
                example(digits, slice(70, 73), "input__0"),
            ],
            config=script_config(),
            completes=False,
            break_file=lambda directory: (directory / "model.pt").write_bytes(b"PK no archive"),
            identity=write_identity,
            refused=frozenset({BYTES}),
        )


class Lookup(Module):  # type: ignore[misc]  # PyTorch is not followed by the checker
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding.from_pretrained(torch.tensor([[1.0], [2.0], [4.0]]))

    def forward(self, x: Any) -> Any:
        return self.table(x).squeeze(-1)


class TestLookup(RuntimeSuite):
    """An index out of range fails the run, and with it only the request that has it."""

    @pytest.fixture
    def case(self) -> RuntimeCase:
        def example(*rows: Sequence[int]) -> Example:
            given = np.array(rows)
            return Example({"x": given}, {"output__0": (2.0**given).astype(np.float32)})

        return RuntimeCase(
            runtime=TorchRuntime,
            filename="model.pt2",
            write=lambda directory: save_export(
                directory, Lookup(), torch.zeros(2, 2, dtype=torch.int64)
            ),
            examples=[example((0, 2)), example((1, 1), (2, 0))],
            poison={"x": np.array([[0, 99]])},
        )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tried" / "1"


def load(directory: Path, config: ModelConfig | None = None, **options: Any) -> LoadedModel:
    filename = next(file.name for file in directory.iterdir() if file.suffix in (".pt", ".pt2"))
    config = config or ModelConfig(default_model_filename=filename)
    return load_model(TorchRuntime, directory, config, **options)


def described(entries: Sequence[ModelInput] | Sequence[ModelOutput]) -> list[str]:
    return [f"{each.name} {each.datatype}{list(each.dims)}" for each in entries]


class TestInputsAndOutputs:
    def test_export_tells_everything(self, directory: Path, digits: Any) -> None:
        save_digits(directory, digits)
        config = load(directory).config
        assert described(config.input) == ["pixels FP32[64]"]
        assert described(config.output) == ["output__0 FP32[10]", "output__1 INT64[1]"]
        assert config.max_batch_size == 4
        assert config.dynamic_batching is not None

    def test_dict_of_results_gives_its_keys_as_names(self, directory: Path) -> None:
        class Both(Module):  # type: ignore[misc]  # as above
            def forward(self, x: Any, y: Any) -> Any:
                return {"sum": x + y, "difference": x - y}

        save_export(directory, Both(), torch.zeros(2, 3), torch.zeros(2, 3))
        loaded = load(directory)
        x, y = np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32)
        answer = loaded.ask({"y": y, "x": x})
        assert answer["sum"].tolist() == (x + y).tolist()
        assert answer["difference"].tolist() == (x - y).tolist()

    def test_names_of_the_configuration_go_by_their_number(
        self, directory: Path, digits: Any
    ) -> None:
        save_digits(directory, digits)
        config = ModelConfig(
            default_model_filename="model.pt2",
            max_batch_size=16,
            input=(ModelInput(name="input__0"),),
            output=(ModelOutput(name="label__1"),),
        )
        loaded = load(directory, config)
        assert described(loaded.config.output) == ["label__1 INT64[1]"]
        answer = loaded.ask({"input__0": PIXELS[:9]})
        assert (
            answer["label__1"].tolist()
            == example(digits, slice(0, 9)).outputs["output__1"].tolist()
        )

    def test_other_names_go_by_their_order(self, directory: Path, digits: Any) -> None:
        save_script(directory, digits)
        config = ModelConfig(
            max_batch_size=8,
            input=(ModelInput(name="image", data_type="TYPE_FP32", dims=(64,)),),
            output=(ModelOutput(name="share", data_type="TYPE_FP32", dims=(10,)),),
        )
        answer = load(directory, config).ask({"image": PIXELS[:3]})
        np.testing.assert_allclose(
            answer["share"], example(digits, slice(0, 3)).outputs["output__0"], rtol=1e-5
        )

    def test_script_without_a_configuration_says_what_to_write(
        self, directory: Path, digits: Any
    ) -> None:
        save_script(directory, digits)
        told = r"its arguments are pixels.*list input and output .* torch\.export\.save"
        with pytest.raises(LoadFailed, match=told):
            load(directory)

    def test_number_beyond_the_arguments_is_refused(self, directory: Path, digits: Any) -> None:
        save_digits(directory, digits)
        config = ModelConfig(
            default_model_filename="model.pt2", input=(ModelInput(name="input__3"),)
        )
        with pytest.raises(LoadFailed, match=r"'input__3' is number 3, .* has only 1: pixels"):
            load(directory, config)

    def test_program_may_write_into_its_inputs(self, directory: Path) -> None:
        class Overwrites(Module):  # type: ignore[misc]  # as above
            def forward(self, x: Any) -> Any:
                return x.mul_(2)

        directory.mkdir(parents=True)
        torch.jit.trace(Overwrites(), (torch.ones(1, 2),)).save(str(directory / "model.pt"))
        config = ModelConfig(
            max_batch_size=4,
            input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(2,)),),
            output=(ModelOutput(name="y", data_type="TYPE_FP32", dims=(2,)),),
        )
        x = np.ones((1, 2), np.float32)
        assert load(directory, config).ask({"x": x})["y"].tolist() == [[2, 2]]
        assert x.tolist() == [[1, 1]]


class TestFailures:
    def test_shape_that_the_program_cannot_take_fails_the_request(
        self, directory: Path, digits: Any
    ) -> None:
        save_script(directory, digits)
        config = ModelConfig(
            max_batch_size=8,
            input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(-1,)),),
            output=(ModelOutput(name="y", data_type="TYPE_FP32", dims=(10,)),),
        )
        loaded = load(directory, config)
        with pytest.raises(ModelFailed, match="PyTorch: mat1 and mat2 shapes") as failed:
            loaded.ask({"x": PIXELS[:1, :5]})
        assert "Traceback" not in str(failed.value)
        assert loaded.ask({"x": PIXELS[:1]})["y"].shape == (1, 10)

    def test_shape_that_it_was_not_exported_for_is_the_callers_fault(self, directory: Path) -> None:
        class Double(Module):  # type: ignore[misc]  # as above
            def forward(self, x: Any) -> Any:
                return x * 2

        width = torch.export.Dim("width", min=4, max=8)
        save_export(directory, Double(), torch.zeros(1, 6), dynamic_shapes=({1: width},))
        loaded = load(directory)
        assert loaded.ask({"x": np.ones((1, 4), np.float32)})["output__0"].shape == (1, 4)
        with pytest.raises(InvalidRequest, match="not exported for such a shape"):
            loaded.ask({"x": np.ones((1, 9), np.float32)})

    @pytest.mark.parametrize(
        ("parameters", "told"),
        [
            ({"INFERENCE_MODE": "maybe"}, "'INFERENCE_MODE' is 'maybe'; it has to be true or"),
            ({"INTRA_OP_THREAD_COUNT": "0"}, "has to be a number from 1"),
        ],
    )
    def test_wrong_parameter_is_refused(
        self, directory: Path, digits: Any, parameters: dict[str, str], told: str
    ) -> None:
        save_script(directory, digits)
        texts = {name: Parameter(string_value=text) for name, text in parameters.items()}
        with pytest.raises(LoadFailed, match=told):
            load(directory, script_config(parameters=texts))

    def test_unknown_parameter_is_passed_over_and_told_of(
        self, directory: Path, digits: Any
    ) -> None:
        save_script(directory, digits)
        given = {"FOO": Parameter(string_value="1")}
        lines = load(directory, script_config(parameters=given)).host.lines
        assert [level for level, _, _ in lines] == ["warning"]
        assert (
            "'FOO' means nothing to PyTorch and is passed over; known are: DISABLE" in lines[0][1]
        )

    def test_parameters_of_triton_are_taken(self, directory: Path, digits: Any) -> None:
        save_script(directory, digits)
        texts = {
            "DISABLE_OPTIMIZED_EXECUTION": "true",
            "INFERENCE_MODE": "false",
            "ENABLE_WEIGHT_SHARING": "true",
            "INTRA_OP_THREAD_COUNT": str(torch.get_num_threads()),
        }
        config = script_config(
            parameters={name: Parameter(string_value=text) for name, text in texts.items()}
        )
        expected = example(digits, slice(0, 2), "input__0")
        answer = load(directory, config).ask(expected.inputs)
        np.testing.assert_allclose(answer["output__0"], expected.outputs["output__0"], rtol=1e-5)


class RunsWhenRead:
    """What a forged pickle does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def rewrite(file: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Give the records of an archive another content; ``None`` leaves one out."""
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            changed = change(name.partition("/")[2], content)
            if changed is not None:
                archive.writestr(name, changed)


class TestForgedExports:
    """An exported program becomes Python while it is read: nothing of that may be anybody's."""

    @pytest.fixture
    def file(self, directory: Path, digits: Any) -> Path:
        return save_digits(directory, digits)

    def refused(self, file: Path, told: str) -> None:
        marker = file.parent / "was-run"
        with pytest.raises(LoadFailed, match=told):
            load(file.parent)
        assert not marker.exists()

    def graph(self, file: Path, change: Callable[[str], str]) -> None:
        def changed(name: str, content: bytes) -> bytes:
            if not name.startswith("models/"):
                return content
            text = change(content.decode())
            assert text != content.decode()
            json.loads(text)
            return text.encode()

        rewrite(file, changed)

    def call(self, file: Path) -> str:
        return f"__import__('os').mkdir('{file.parent / 'was-run'}')"

    def test_what_an_export_writes_is_taken(self, file: Path) -> None:
        assert load(file.parent).instance.is_ready()

    def test_size_that_is_a_program(self, file: Path) -> None:
        self.graph(
            file, lambda text: re.sub(r"Symbol\('s\d+'[^)]*\)", self.call(file), text, count=1)
        )
        self.refused(file, r"holds '__import__.* as its expr_str, which could run code")

    @pytest.mark.parametrize(
        "size", ["().__class__", "Symbol.mro()", "x[0]", "exec('1')", "(lambda: 1)()", "[1][0]"]
    )
    def test_size_that_is_no_arithmetic(self, file: Path, size: str) -> None:
        self.graph(file, lambda text: re.sub(r"Symbol\('s\d+'[^)]*\)", size, text, count=1))
        self.refused(file, "as its expr_str")

    def add_guard(self, file: Path, guard: str) -> None:
        guards = f'"guards_code": [{json.dumps(guard)}]'
        self.graph(file, lambda text: text.replace('"guards_code": []', guards))

    def test_guard_that_is_a_program(self, file: Path) -> None:
        guard = json.dumps(self.call(file))
        self.graph(
            file, lambda text: text.replace('"guards_code": []', f'"guards_code": [{guard}]')
        )
        self.refused(file, "as its guards_code")

    def test_guard_that_breaks_out_of_its_message(self, file: Path) -> None:
        guard = json.dumps("L['pixels'].size()[0] == '\"'")
        self.graph(
            file, lambda text: text.replace('"guards_code": []', f'"guards_code": [{guard}]')
        )
        self.refused(file, "as its guards_code")

    @pytest.mark.parametrize(
        "target",
        [
            "torch.hub.load",
            "torch.load",
            "torch.ops.aten.from_file.default",
            "torch.ops.aten.linear.default.__class__",
            "_operator.methodcaller",
            "math.__loader__.load_module",
            "#triton_kernel.x",
            "os.system",
        ],
    )
    def test_operator_that_is_another_function(self, file: Path, target: str) -> None:
        self.graph(file, lambda text: text.replace("torch.ops.aten.linear.default", target, 1))
        self.refused(file, "as its target")

    def test_name_that_is_a_program(self, file: Path) -> None:
        name = f"pixels={self.call(file)}"
        self.graph(
            file, lambda text: text.replace('"name": "pixels"', json.dumps({"name": name})[1:-1])
        )
        self.refused(file, "as its name")

    def test_argument_whose_name_is_a_program(self, file: Path) -> None:
        self.graph(
            file,
            lambda text: text.replace(
                '"name": "dim", "arg"', '"name": "dim=print(1), x", "arg"', 1
            ),
        )
        self.refused(file, "as its name")

    def test_tree_that_imports_modules(self, file: Path) -> None:
        tree = json.dumps(
            json.dumps(
                [1, {"type": "collections.defaultdict", "context": "[]", "children_spec": []}]
            )
        )
        self.graph(
            file,
            lambda text: re.sub(
                r'"out_spec": "(\\.|[^"])*"', lambda _: f'"out_spec": {tree}', text
            ),
        )
        self.refused(file, "as its out_spec")

    def test_weight_that_is_a_pickle(self, file: Path) -> None:
        def change(name: str, content: bytes) -> bytes:
            if name.endswith("weights_config.json"):
                return content.replace(b'"use_pickle": false', b'"use_pickle": true')
            if name == "data/weights/weight_0":
                return pickle.dumps(RunsWhenRead(file.parent / "was-run"))
            return content

        rewrite(file, change)
        self.refused(file, r"holds 'hidden\.weight' as a pickle")

    def test_constant_that_is_a_pickle(self, file: Path) -> None:
        def change(name: str, content: bytes) -> bytes:
            if not name.endswith("constants_config.json"):
                return content
            return b'{"config": {"c": {"path_name": "opaque_obj_0", "use_pickle": true}}}'

        rewrite(file, change)
        self.refused(file, "holds 'c' as a pickle")

    def test_example_inputs_that_are_no_tensors(self, file: Path) -> None:
        forged = pickle.dumps(RunsWhenRead(file.parent / "was-run"))
        rewrite(
            file, lambda name, content: forged if name.startswith("data/sample_inputs") else content
        )
        self.refused(file, "example inputs that are not tensors alone")

    @pytest.mark.parametrize("name", ["data/weights/model.pt", "data/other/x.so", "data.pkl"])
    def test_record_that_no_export_has(self, file: Path, name: str) -> None:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(f"model/{name}", b"")
        self.refused(file, f"holds a record '{name}'")

    def test_operator_of_the_server_may_allow_it(self, file: Path, digits: Any) -> None:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("model/notes.txt", b"")
        loaded = load(file.parent, allow_pickle=True)
        assert loaded.instance.is_ready()


class TestForgedScripts:
    def test_program_that_reaches_files_is_refused(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        secret = directory.parent / "secret"
        secret.write_bytes(bytes(8))

        class Reads(Module):  # type: ignore[misc]  # as above
            def forward(self, x: Any) -> Any:
                return x + torch.from_file(str(secret), False, 1)

        torch.jit.trace(Reads(), (torch.zeros(1),)).save(str(directory / "model.pt"))
        with pytest.raises(LoadFailed, match=r"uses .*from_file, which reaches beyond the model"):
            load(directory)

    def test_program_that_writes_files_is_refused(self, directory: Path, digits: Any) -> None:
        file = save_script(directory, digits)
        rewrite(
            file,
            lambda name, content: (
                content.replace(b"torch.softmax(", b"torch.save(")
                if name.startswith("code/")
                else content
            ),
        )
        with pytest.raises(LoadFailed, match="uses save, which reaches beyond"):
            load(directory)

    def test_pickles_in_the_archive_import_no_python(self, directory: Path, digits: Any) -> None:
        """PyTorch's reader in C++ knows tensors and TorchScript classes, and nothing else."""
        file = save_script(directory, digits)
        marker = directory / "was-run"
        forged = pickle.dumps(RunsWhenRead(marker), protocol=2)
        rewrite(file, lambda name, content: forged if name == "data.pkl" else content)
        with pytest.raises(LoadFailed, match=r"PyTorch cannot load 'model\.pt'"):
            load(directory, script_config())
        assert not marker.exists()


@pytest.mark.parametrize("what", ["state", "module"])
def test_what_torch_save_wrote_is_refused(directory: Path, digits: Any, what: str) -> None:
    directory.mkdir(parents=True)
    torch.save(digits.state_dict() if what == "state" else {"module": [1]}, directory / "model.pt")
    with pytest.raises(LoadFailed, match=r"no program that PyTorch saved.*torch\.export\.save"):
        load(directory)
