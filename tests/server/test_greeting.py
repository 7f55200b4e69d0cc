"""What the greeting shows can be pasted, and works."""

import subprocess
from types import SimpleNamespace
from typing import Any, cast

import pytest

from examples.prepare import MODELS
from modelport.engine.engine import Engine
from modelport.server.config import resolve
from modelport.server.greeting import greeting
from modelport.wire import model_config
from tests.served import Served

ADDRESSES = {
    "http": [("127.0.0.1", 8000)],
    "grpc": [("127.0.0.1", 8001)],
    "metrics": [("127.0.0.1", 8002)],
}


def engine_of(*names: str) -> Engine:
    """An engine that serves some of the example models."""

    def served(name: str) -> Any:
        text = (MODELS / name / "config.pbtxt").read_text()
        config = model_config.complete(model_config.decode_pbtxt(text), name=name)
        return SimpleNamespace(name=name, config=config, is_decoupled=config.is_decoupled)

    return cast(Engine, SimpleNamespace(deployments=lambda: [served(name) for name in names]))


def greet(*names: str, options: tuple[str, ...] = ()) -> str:
    settings = resolve(["models", *options], {}).settings
    return greeting(engine_of(*names), ADDRESSES, settings)


def test_it_says_where_and_what() -> None:
    told = greet("iris", "add_sub").splitlines()
    assert (
        "is ready on http://localhost:8000 (gRPC: localhost:8001, metrics: http://localhost:8002/metrics)"
        in told[0]
    )
    assert told[1] == "  models: add_sub, iris"


@pytest.mark.parametrize(
    ("mode", "told"),
    [("none", "start again"), ("explicit", "NAME/load"), ("poll", "they are found")],
)
def test_without_models_it_says_how_to_get_some(mode: str, told: str) -> None:
    models = greet(options=("--model-control-mode", mode)).splitlines()[1]
    assert models.startswith("  models: none")
    assert told in models


def test_without_http_it_names_the_other_ports_alone() -> None:
    settings = resolve(["models"], {}).settings
    told = greeting(engine_of("iris"), {**ADDRESSES, "http": []}, settings).splitlines()
    assert "is ready (gRPC: localhost:8001, metrics: " in told[0]
    assert len(told) == 2


def test_it_calls_one_model_of_each_kind_and_the_simplest_first() -> None:
    told = greet("add_sub", "linear_regression_model", "iris", "sentiment")
    asked = [
        line.split("/models/")[1].split("/")[0] for line in told.splitlines() if "infer" in line
    ]
    assert asked == ["iris", "sentiment", "add_sub"]


def test_it_leaves_out_what_it_cannot_make_up() -> None:
    told = greet("digit_photo", "photo_decode", "digits", "digit_label", "digit_resize", "repeat")
    assert "/infer" not in told


def test_where_keys_are_asked_for_the_calls_bring_one() -> None:
    told = greet("iris", options=("--api-key=secret",))
    assert 'Authorization: Bearer $MODELPORT_API_KEY"' in told
    assert "secret" not in told


def test_the_command_is_called_as_the_server_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr("sys.argv", [".venv/bin/modelport", "serve", "models"])
    assert ".venv/bin/modelport models --url" in greet()
    monkeypatch.setattr("sys.argv", ["/usr/bin/modelport", "serve", "models"])
    assert "    modelport models --url" in greet()


@pytest.mark.slow
def test_the_calls_of_the_example_models_work(example_server: Served) -> None:
    calls = [line.strip() for line in example_server.lines if line.strip().startswith("curl ")]
    assert len(calls) >= 4
    for call in calls:
        done = subprocess.run(
            ["bash", "-c", call], capture_output=True, text=True, timeout=20, check=True
        )
        assert '"error"' not in done.stdout, call
