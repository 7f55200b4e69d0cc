import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from modelport._version import __version__
from modelport.cli import VERBS, main
from tests.served import FREE_PORTS, bounded, clean_environment

HEAVY = ("numpy", "rich", "click", "google.protobuf", "yaml", "uvloop", "http.client")


def modules_after(code: str) -> set[str]:
    """Names of all modules that a fresh interpreter has loaded after running the code."""
    script = textwrap.dedent(code) + "\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import modelport.cli",
        "import modelport.cli as c; c.main(['--help'])",
        "import modelport.cli as c; c.main(['serve', '--help'])",
        "import modelport.cli as c; c.main(['config'])",
        "import modelport.cli as c; c.main(['serve', '--http-port=x'])",
    ],
)
def test_help_settings_and_mistakes_load_nothing_heavy(code: str) -> None:
    assert not modules_after(code).intersection(HEAVY)


def test_serving_starts_without_what_only_help_needs() -> None:
    loaded = modules_after("import modelport.cli as c; c.main(['serve'])")
    assert not loaded.intersection({"argparse", "pathlib", "json", "tomllib"})


def test_help_of_the_calling_verbs_loads_no_numpy() -> None:
    code = "import modelport.cli as c; c.main(['infer', '--help']); c.main(['models', '--help'])"
    assert not modules_after(code).intersection({"numpy", "rich", "google.protobuf"})


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for verb, summary in VERBS.items():
        assert f"  {verb.ljust(10)}  {summary}" in told


def test_without_a_verb_the_overview_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("Usage: modelport VERB")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_in_both_forms(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"Usage: modelport {verb}")
    assert main(["help", verb]) == 0
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("arguments", [["version"], ["--version"], ["-V"]])
def test_version_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"modelport {__version__} (Python 3.")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["serv"], 'modelport: "serv" is no verb; did you mean serve?\n'),
        (["version", "x"], "modelport version: takes no arguments, got x; leave it out\n"),
        (["models", "--jsn"], "modelport models: --jsn: is no option; did you mean --json?\n"),
        (["models", "--url"], "modelport models: --url: needs a value; write --url URL\n"),
        (
            ["models", "a", "b"],
            "modelport models: got 2 arguments beside options;"
            " usage: modelport models [NAME] [options]\n",
        ),
        (
            ["models", "--timeout", "0"],
            'modelport models: --timeout: expected a number of seconds above 0, got "0"\n',
        ),
        (
            ["models", "--json=maybe"],
            'modelport models: --json: expected true or false, got "maybe"; leave it out\n',
        ),
        (
            ["serve"],
            "modelport serve: TARGET: nothing to serve;"
            " name a model repository, a model file or a .py file\n",
        ),
        (
            ["serve", "m", "--htp-port=1", "--grpc-port=1", "--max-json-depth=x"],
            "modelport serve: --htp-port: is no option; did you mean --http-port?\n"
            "modelport serve: --max-json-depth: expected a whole number from 1 to 500,"
            ' got "x"; see modelport serve --help\n',
        ),
    ],
)
def test_mistakes_are_told_on_stderr_with_exit_code_2(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", text)


def test_an_unknown_verb_without_a_near_one_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zzzz"]) == 2
    assert "verbs are serve, models" in capsys.readouterr().err


def test_interrupting_exits_with_130_and_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from modelport.cli import version

    def interrupt(argv: list[str]) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal did not arrive")

    monkeypatch.setattr(version, "run", interrupt)
    assert main(["version"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_goes_away_is_no_error_of_ours() -> None:
    """As in ``modelport config | head -0``; buffered output meets the closed pipe at the end."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "modelport", "config"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [["version"], ["config"]], ids=["at the end", "in between"])
def test_a_full_disk_is_told_in_one_line(arguments: list[str]) -> None:
    """The buffer is written when it is full, and at the end."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "modelport", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
    assert done.returncode == 1
    assert done.stderr == "modelport: cannot write the output: No space left on device\n"


def test_streams_that_are_closed_are_written_nowhere() -> None:
    command = f"{sys.executable} -m modelport config 0<&- >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    command = f"{sys.executable} -m modelport config --nope 2>&-"
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (2, "")


def test_letters_that_the_terminal_lacks_are_shown_by_number() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelport", "config", "--server-name=größer"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfer" in done.stdout


def test_the_module_runs_like_the_script(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelport", "serve"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("modelport serve: TARGET")


def test_stopping_while_models_load_says_what_is_waited_for(tmp_path: Path) -> None:
    model = tmp_path / "slow" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text("import time\nprint('loading', flush=True)\ntime.sleep(1)\n")
    with (
        subprocess.Popen(
            [sys.executable, "-m", "modelport", "serve", str(tmp_path)],
            env=clean_environment() | FREE_PORTS,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        bounded(process),
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        assert "stopping: models that load are waited for" in process.communicate()[1]
    assert process.returncode == 0
