import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelport.dtypes import DATATYPE_BY_NAME
from tests.served import Served, serving

collect_ignore = ["client", "bentoml_client", "ovms_client"]
"""Run by the clients' own environments."""

ECHO = """

@modelport.model(inputs={{"values": "{name}[-1]"}}, outputs={{"result": "{name}[-1]"}})
def same_{lower}(values):
    return values
"""


@pytest.fixture(scope="session")
def clients_server(
    example_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The example models, one that gives back each datatype, and some that misbehave."""
    file = tmp_path_factory.mktemp("compat") / "models.py"
    echoes = "".join(ECHO.format(name=name, lower=name.lower()) for name in DATATYPE_BY_NAME)
    file.write_text((Path(__file__).parent / "models.py").read_text() + echoes)
    sequences = tmp_path_factory.mktemp("sequences")
    write_running_sum(sequences)
    with serving(str(example_models), str(file), str(sequences), "--allow-client-shm") as served:
        yield served


def write_running_sum(repository: Path) -> None:
    """Write a model that adds up the numbers of each sequence."""
    directory = repository / "running_sum" / "1"
    directory.mkdir(parents=True)
    (directory / "model.py").write_text((Path(__file__).parent / "running_sum.py").read_text())
    (directory.parent / "config.pbtxt").write_text(RUNNING_SUM)


RUNNING_SUM = """
max_batch_size: 8
input { name: "x" data_type: TYPE_INT32 dims: 1 }
output { name: "sum" data_type: TYPE_INT32 dims: 1 }
sequence_batching {
  oldest { max_candidate_sequences: 16 }
  max_sequence_idle_microseconds: 60000000
  control_input { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }
  control_input { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }
}
"""


@pytest.fixture(scope="session")
def controlled_server(
    example_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The example models, none of them loaded at start."""
    copy = tmp_path_factory.mktemp("controlled") / "models"
    shutil.copytree(example_models, copy)
    with serving(str(copy), "--model-control-mode=explicit") as served:
        yield served


@pytest.fixture(scope="session")
def ovms_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """What a ``config.json`` of OVMS lists: one model, which takes pictures."""
    directory = tmp_path_factory.mktemp("ovms")
    (directory / "colors" / "1").mkdir(parents=True)
    code = (Path(__file__).parent / "mean_color.py").read_text()
    (directory / "colors" / "1" / "model.py").write_text(code)
    entry = {"config": {"name": "colors", "base_path": "colors", "nireq": 4}}
    (directory / "config.json").write_text(json.dumps({"model_config_list": [entry]}))
    with serving(str(directory / "config.json")) as served:
        yield served


@pytest.fixture(scope="session")
def addresses(
    clients_server: Served, controlled_server: Served, ovms_server: Served, example_models: Path
) -> dict[str, str]:
    """The environment of the client's side."""
    return {
        "SERVER_ADDRESS": clients_server.address,
        "CONTROLLED_ADDRESS": controlled_server.address,
        "OVMS_ADDRESS": ovms_server.address,
        "EXAMPLE_MODELS": str(example_models),
    }
