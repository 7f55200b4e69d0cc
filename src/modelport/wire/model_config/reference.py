"""Write the reference page of configurations from the tables of what becomes of each field.

``python -m modelport.wire.model_config.reference docs/reference/model-configuration.md``; a test
compares them.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from modelport.wire.model_config.support import ACTED_ON, FASTER, GPU_ONLY, HINTS, NOT_YET

__all__ = ["page"]


def page() -> str:
    """Give the text of the page."""
    parts = [
        "<!-- Made by `python -m modelport.wire.model_config.reference"
        " docs/reference/model-configuration.md`; edit the tables. -->",
        "# Model configuration",
        "Every field of Triton's `ModelConfig`, and what becomes of it. Fields may be given as"
        " `config.pbtxt`, `config.json` or `config.yaml`, in the model's directory, and as the"
        " parameter `config` of a load request. `GET /v2/models/MODEL/config` shows the result,"
        " with everything filled in. How models are laid out stands in"
        " [the guide](../how-to/serve-a-model-repository.md).",
        "## Acted on",
        "With all that is below them.",
        "\n".join(f"- `{path}`" for path in sorted(ACTED_ON)),
        "## Passed over",
        "They promise nothing that a caller could see.",
        _fields(HINTS, "why"),
        "## Left out",
        "They make a model faster where Triton runs it, and its answers are the same without. The"
        " log tells of them when the model is loaded, of those for GPUs if it is on one.",
        _fields(FASTER, "instead"),
        "## Passed over on the CPU",
        "They concern instances on GPUs. A model with an instance group that is `KIND_GPU`, or"
        " becomes it, does not load with them.",
        _fields(GPU_ONLY, "on a GPU"),
        "## Refused",
        "A model whose configuration gives one of these does not load, and says why.",
        _fields(NOT_YET, "why, and what to do"),
    ]
    return "\n\n".join(parts) + "\n"


def _fields(text_by_path: Mapping[str, str], heading: str) -> str:
    rows = [f"| `{path}` | {text} |" for path, text in sorted(text_by_path.items())]
    return "\n".join([f"| field | {heading} |", "|---|---|", *rows])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
