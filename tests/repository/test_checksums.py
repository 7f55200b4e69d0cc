import hashlib
from pathlib import Path

import pytest

from modelport.errors import LoadFailed
from modelport.repository.checksums import check_sums
from modelport.specs import Agent, ModelConfig, RepositoryAgents

WEIGHTS = b"weights" * 100_000
SUM = hashlib.md5(WEIGHTS).hexdigest()


def config(sums: dict[str, str], name: str = "checksum") -> ModelConfig:
    agent = Agent(name=name, parameters=sums)
    return ModelConfig(name="m", model_repository_agents=RepositoryAgents(agents=(agent,)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "weights").write_bytes(WEIGHTS)
    return tmp_path / "m"


@pytest.mark.parametrize("given", [SUM, f" {SUM.upper()}"])
def test_files_that_are_the_right_ones_pass(model: Path, given: str) -> None:
    check_sums(model, config({"MD5:1/weights": given}))


def test_who_asks_for_nothing_is_asked_nothing(model: Path) -> None:
    check_sums(model, ModelConfig())
    check_sums(model, config({}))


def test_another_file_is_told_with_both_sums(model: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        check_sums(model, config({"MD5:1/weights": "0" * 32}))
    assert caught.value.text.startswith(f"the MD5 of '1/weights' is {SUM}, and the configuration")
    assert "0" * 32 in caught.value.text


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            config({"MD5:1/nothing": SUM}),
            "'1/nothing', whose MD5 is to be checked, cannot be rea",
        ),
        (config({"MD5:1": SUM}), "'1', whose MD5 is to be checked, cannot be read: is a direct"),
        (config({"MD5:../m/1/weights": SUM}), "leads out of the model's directory"),
        (config({"MD5:/etc/passwd": SUM}), "leads out of the model's directory"),
        (
            config({"SHA256:1/weights": SUM}),
            "has the parameter 'SHA256:1/weights'; they are call",
        ),
        (config({"MD5:": SUM}), "has the parameter 'MD5:'"),
        (
            config({}, "decrypt"),
            "agents[0] is 'decrypt', and there is no agent but 'checksum'",
        ),
    ],
)
def test_what_cannot_be_checked_is_told(model: Path, asked: ModelConfig, text: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        check_sums(model, asked)
    assert text in caught.value.text
    assert str(model) not in caught.value.text
