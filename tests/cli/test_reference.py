import subprocess
from pathlib import Path

import pytest

from modelport.cli import completion
from modelport.cli.reference import pages
from modelport.server.settings import SETTINGS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", pages())
def test_the_reference_page_is_current(name: str) -> None:
    """If this fails: python -m modelport.cli.reference docs/reference."""
    assert (REFERENCE / name).read_text(encoding="utf-8") == pages()[name]


def test_every_setting_is_in_the_reference_with_all_its_spellings() -> None:
    page = pages()["settings.md"]
    for setting in SETTINGS:
        assert f"`{setting.variables[0]}`" in page
        assert all(f"`{flag}" in page for flag in setting.flags)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completions_know_every_setting(shell: str) -> None:
    script = completion.script(shell)
    for setting in SETTINGS:
        name = setting.name.replace("_", "-")
        assert (f"-l {name} " if shell == "fish" else f"--{name} ") in script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["modelport", "se"], "serve"),
        (["modelport", "serve", "--http-p"], "--http-port"),
        (["modelport", "infer", "--raw"], "--raw-response"),
        (["modelport", "completion", "f"], "fish"),
    ],
)
def test_bash_completes(words: list[str], expected: str) -> None:
    script = completion.script("bash") + (
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1};"
        ' _modelport; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
