"""What the guide to models shows has to work as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

from modelport.runtimes.python import PythonRuntime
from modelport.runtimes.python_files import models_in_file
from modelport.runtimes.registry import RUNTIMES
from modelport.specs import ModelConfig
from modelport.testing.fakes import FakeWork
from modelport.testing.runtime_suite import load_model, run

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "models.md").read_text()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    block = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert block is not None
    (tmp_path / "models.py").write_text(block[1])
    return tmp_path


def test_functions_of_the_guide_are_served(directory: Path) -> None:
    models = models_in_file(directory / "models.py")
    assert [model.name for model in models] == ["affine", "words"]
    config = ModelConfig(default_model_filename="models.py")
    affine = load_model(PythonRuntime, directory, config, attribute="affine")
    ones = np.ones((1, 10), np.float32)
    assert (affine.ask({"x": ones})["y"] == 3).all()
    words = load_model(PythonRuntime, directory, config, attribute="words")
    text = np.array([b"one two"], object)
    work: FakeWork = words.work({"text": text})
    run(words.instance, [work])
    assert [response.outputs[0].array[0] for response in work.responses] == [b"one", b"two"]


def test_every_runtime_and_extra_is_mentioned() -> None:
    for row in RUNTIMES:
        assert f"`{row.backend}`" in GUIDE
        assert not row.extra or f"modelport[{row.extra}]" in GUIDE


def test_every_session_parameter_is_mentioned() -> None:
    from modelport.runtimes.onnx_options import _APPLY_BY_NAME, ARENA_SHRINKAGE

    for name in (*_APPLY_BY_NAME, ARENA_SHRINKAGE):
        assert f"`{name}`" in GUIDE
