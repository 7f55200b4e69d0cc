import json
from pathlib import Path

import pytest

from modelport.cli import main
from modelport.server.settings import SETTINGS, Group


def lines(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}


def test_every_setting_is_shown_with_value_and_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("modelport.toml").write_text("max_json_depth = 7\n")
    monkeypatch.setenv("MODELPORT_QUIET", "1")
    assert main(["config", "models", "--http-port=9000"]) == 0
    line_by_name = lines(capsys.readouterr().out)
    assert {setting.name for setting in SETTINGS} <= set(line_by_name)
    assert line_by_name["host"] == ["host", "default", "127.0.0.1"]
    assert line_by_name["targets"] == ["targets", "flag:", "TARGET", "models"]
    assert line_by_name["http_port"] == ["http_port", "flag:", "--http-port", "9000"]
    assert line_by_name["quiet"] == ["quiet", "environment:", "MODELPORT_QUIET", "true"]
    assert line_by_name["max_json_depth"] == [
        "max_json_depth", "file:", "modelport.toml:", "max_json_depth", "7",
    ]  # fmt: skip


def test_each_group_stands_once_over_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    group_by_name: dict[str, str] = {}
    headings = []
    for line in capsys.readouterr().out.splitlines()[1:]:
        if line and line.split()[0] not in {setting.name for setting in SETTINGS}:
            headings.append(line)
        elif line:
            group_by_name[line.split()[0]] = headings[-1]
    assert headings == [str(group) for group in Group]
    assert group_by_name == {setting.name: str(setting.group) for setting in SETTINGS}


def test_a_value_of_several_lines_stays_on_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--server-name=a\nb\x1b[31m"]) == 0
    told = lines(capsys.readouterr().out)
    assert told["server_name"][-1] == "a\\nb\\x1b[31m"


def test_json_has_the_same_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--json", "--api-key=hush", "--metrics-port=off", "m"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == [setting.name for setting in SETTINGS]
    assert told["api_key"] == {"value": ["***"], "origin": "flag", "where": "--api-key"}
    assert told["metrics_port"]["value"] is None
    assert told["http_port"] == {"value": 8000, "origin": "default", "where": "http_port"}
    assert told["metrics_config"]["value"]["histogram_latencies"] is True


def test_keys_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("keys").write_text("hush1\nhush2\n")
    assert main(["config", "--api-key=@keys", "--http-restricted-api=health:k=hush3"]) == 0
    told = capsys.readouterr().out
    assert "hush" not in told
    assert lines(told)["api_key"][-2:] == ["***", "***"]
    assert lines(told)["http_restricted_api"][-1] == "health:k=***"


def test_variables_that_are_no_setting_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPORT_HTP_PORT", "1")
    assert main(["config"]) == 0
    assert capsys.readouterr().err == (
        "MODELPORT_HTP_PORT is set in the environment, and is no setting\n"
    )


def test_a_contradiction_is_an_error_here_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--host", "0.0.0.0"]) == 2
    assert "--allow-insecure-bind" in capsys.readouterr().err
