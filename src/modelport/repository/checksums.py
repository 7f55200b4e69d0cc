"""Whether a model's files are those that its configuration was written for.

The one repository agent that Triton ships with: ``checksum``, whose parameters give the MD5 of
files as ``MD5:<path below the model's directory>``. It tells damage and mix-ups; whoever can change
a file on purpose can change the configuration beside it.

Source: Triton, "Repository Agents"; the agent's own repository, ``checksum_repository_agent``.
"""

import hashlib
from pathlib import Path
from typing import Final

from modelport.errors import LoadFailed
from modelport.repository.layout import check_filename
from modelport.specs import ModelConfig

__all__ = ["check_sums"]

_AGENT: Final = "checksum"
_KIND: Final = "MD5:"


def check_sums(directory: Path, config: ModelConfig) -> None:
    """Hold the files of a model's directory against ``model_repository_agents``. Reads them.

    Raises:
        LoadFailed: If a file is missing or another one, or another agent is asked for; the text
            names it.
    """
    given = config.model_repository_agents
    for index, agent in enumerate(given.agents if given is not None else ()):
        where = f"model_repository_agents.agents[{index}]"
        if agent.name != _AGENT:
            raise LoadFailed(
                f"{where} is '{agent.name}', and there is no agent but '{_AGENT}'; check the files "
                "before they are put there, and remove it"
            )
        for key, expected in agent.parameters.items():
            filename = key.removeprefix(_KIND)
            if filename == key or not filename:
                raise LoadFailed(
                    f"{where} has the parameter '{key}'; they are called MD5:<path>, such as "
                    "MD5:1/model.onnx"
                )
            check_filename(f"{where}: MD5", filename)
            found = _md5(directory / filename, filename)
            if found != expected.strip().lower():
                raise LoadFailed(
                    f"the MD5 of '{filename}' is {found}, and the configuration expects "
                    f"{expected}; bring the file that was meant, or its MD5"
                )


def _md5(path: Path, title: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as exc:
        reason = (exc.strerror or type(exc).__name__).lower()
        raise LoadFailed(
            f"'{title}', whose MD5 is to be checked, cannot be read: {reason}"
        ) from exc
