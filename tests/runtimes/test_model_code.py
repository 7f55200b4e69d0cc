"""The files of models as modules, while other models come and go."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from modelport.runtimes.model_code import Home, import_model


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_a_model_is_forgotten_while_others_import(tmp_path: Path) -> None:
    """A dictionary that grows while it is walked through ended loads that had gone well."""
    file = tmp_path / "model.py"
    file.write_text("")
    is_over = threading.Event()

    def import_and_drop() -> None:
        while not is_over.is_set():
            for number in range(50):
                sys.modules[f"others_{number}"] = ModuleType("others")
            for number in range(50):
                del sys.modules[f"others_{number}"]

    other = threading.Thread(target=import_and_drop)
    other.start()
    try:
        for _ in range(200):
            home = Home(tmp_path, model_name="m", host=None)
            import_model(home, file, tmp_path)
            home.forget()
            assert not any(name.startswith(home.package) for name in list(sys.modules))
    finally:
        is_over.set()
        other.join()
