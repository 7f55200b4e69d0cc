"""What the pages show is what happens: every block of every page is run, page by page.

A page is a story: its blocks run in order in one directory, with the servers that it starts and
the port 8000 replaced by a free one. ``make run`` means the example models.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelport.server.settings import SETTINGS, Group
from tests.docs.blocks import Block, blocks_of
from tests.served import FREE_PORTS, Served, clean_environment, serving

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs" / "guide").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
    *sorted((ROOT / "docs" / "reference").glob("*.md")),
]
PLAYED = [
    page
    for page in PAGES
    if any(block.language in ("sh", "python") for block in blocks_of(page, ROOT))
]
NEEDED = {"serve-pytorch.md": "torch"}
"""Modules that are too large to be installed for everybody who runs the tests."""

LANGUAGES = {"sh", "python", "text", "toml", "json", "http", "protobuf", "yaml"}
EXAMPLE_COMMANDS = {"make run", "modelport serve example-models"}
WORDS = {"server", "refused", "fails", "by-hand", "output"}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", PLAYED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_does_what_it_shows(
    page: Path, example_models: Path, example_server: Served, tmp_path: Path
) -> None:
    needed = NEEDED.get(page.name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"this page needs '{needed}', which make test does not install")
    with Story(example_models, example_server, tmp_path) as story:
        for block in blocks_of(page, ROOT):
            story.play(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks_of(page, ROOT):
        where = f"{block.page}:{block.line}"
        assert block.language in LANGUAGES, where
        assert all(word in WORDS or word.startswith("file=") for word in block.words), where


def test_links_lead_somewhere() -> None:
    pages = [*PAGES, *ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            there = (page.parent / path) if path else page
            if not there.exists() or (anchor and anchor not in anchors_of(there)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_how_to_is_listed() -> None:
    listed = set(re.findall(r"docs/how-to/([\w-]+\.md)", (ROOT / "README.md").read_text("utf-8")))
    assert listed == {page.name for page in (ROOT / "docs" / "how-to").glob("*.md")}


def test_every_limit_is_told() -> None:
    told = (ROOT / "docs" / "how-to" / "limits.md").read_text("utf-8")
    limits = [option for option in SETTINGS if option.group is Group.LIMITS]
    assert limits
    assert [option.name for option in limits if f"`{option.flags[0]}`" not in told] == []


def anchors_of(page: Path) -> set[str]:
    """Names that headings get."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Story:
    """Plays the blocks of one page."""

    def __init__(self, example_models: Path, example_server: Served, directory: Path) -> None:
        self.directory = directory
        self._models = example_models
        self._example_server = example_server
        self._servers = contextlib.ExitStack()
        self._served: Served | None = None
        self._printed = ""

    def __enter__(self) -> "Story":
        # The pages are read from the root of a checkout.
        (self.directory / "examples").symlink_to(ROOT / "examples")
        (self.directory / "example-models").symlink_to(self._models)
        return self

    def __exit__(self, *exc: object) -> None:
        self._servers.__exit__(None, None, None)

    def play(self, block: Block) -> None:
        where = f"{block.page}:{block.line}"
        if block.file:
            path = self.directory / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif "by-hand" in block.words:
            return
        elif "server" in block.words:
            self._serve(block.text)
        elif "output" in block.words:
            expected = self._with_port(block.text).strip()
            pattern = re.escape(expected).replace(r"\.\.\.", ".*?")
            assert re.fullmatch(pattern, self._printed.strip(), re.S), (
                f"{where} shows\n{expected}\nand what is printed is\n{self._printed}"
            )
        elif block.language == "sh":
            script = f"set -euo pipefail\n{self._with_port(block.text)}"
            self._run(["bash", "-c", script], where, fails="fails" in block.words)
            is_refused = self._printed.startswith('{"error"')
            assert is_refused == ("refused" in block.words), f"{where} answers {self._printed}"
        elif block.language == "python":
            python = self._python(block.text)
            self._run(
                [python, "-W", "error::SyntaxWarning", "-c", self._with_port(block.text)], where
            )

    def _serve(self, text: str) -> None:
        """Start the server of a block; the one before it is stopped."""
        *preparing, command = text.strip().replace("\\\n", " ").splitlines()
        for line in preparing:
            self._run(["bash", "-euc", line], line)
        self._servers.close()
        if command in EXAMPLE_COMMANDS:
            self._served = self._example_server
            return
        self._served = self._servers.enter_context(
            serving(
                f"exec {command}",
                command=("bash", "-c"),
                environment=self._path(),
                directory=self.directory,
            )
        )

    def _run(self, command: list[str], where: str, *, fails: bool = False) -> None:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",  # answers may be binary
            timeout=60,
        )
        told = f"{where} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        assert (done.returncode != 0) == fails, told
        self._printed = done.stdout + (done.stderr if fails else "")

    def _environment(self) -> dict[str, str]:
        environment = clean_environment() | FREE_PORTS | self._path()
        if self._served is not None:
            environment["MODELPORT_URL"] = self._served.url
        return environment

    def _path(self) -> dict[str, str]:
        here = Path(sys.executable).parent
        return {
            "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
            # This checkout, wherever the installed package lies.
            "PYTHONPATH": f"{self.directory}{os.pathsep}{ROOT / 'src'}",
        }

    def _with_port(self, text: str) -> str:
        if self._served is None:
            return text
        port = self._served.address.rpartition(":")[2]
        metrics = self._served.metrics_url.partition("://")[2].partition("/")[0].rpartition(":")[2]
        grpc = self._served.grpc_address.rpartition(":")[2]
        for shown, real in (("8000", port), ("8001", grpc), ("8002", metrics)):
            text = text.replace(f"localhost:{shown}", f"localhost:{real}")
        return text

    def _python(self, text: str) -> str:
        """The interpreter that has what a block imports."""
        if "tritonclient" not in text:
            return sys.executable
        python = ROOT / ".venv-compat" / "current" / "bin" / "python"
        if not python.exists():
            pytest.skip("this page needs .venv-compat/current: make compat")
        return str(python)


def test_curl_is_there() -> None:
    """The pages use it; without it they would fail one by one."""
    assert shutil.which("curl")
