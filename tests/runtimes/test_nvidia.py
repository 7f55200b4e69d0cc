import os

import pytest

from modelport.runtimes.nvidia import count_gpus


@pytest.mark.parametrize(
    ("files", "visible", "count"),
    [
        (["null", "nvidiactl", "nvidia-uvm"], None, 0),
        (["nvidia0", "nvidia1", "nvidiactl"], None, 2),
        (["nvidia0", "nvidia1"], "1", 1),
        (["nvidia0", "nvidia1"], "", 0),
        (["nvidia0", "nvidia1"], "0,-1,1", 1),
        (["nvidia0"], "GPU-8932f937", 1),
    ],
)
def test_gpus_are_those_of_the_driver_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, files: list[str], visible: str | None, count: int
) -> None:
    monkeypatch.setattr(os, "listdir", lambda path: files)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_machine_without_device_files_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def listdir(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert count_gpus() == 0
