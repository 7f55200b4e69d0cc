"""What becomes of parameters that a runtime does not know.

Triton's backends look up the parameters that they know and pass over the others, and people keep
notes, settings of other backends and of earlier versions there. So a parameter that nobody knows
is no reason to refuse a model; a line in the log tells of it, as it may be a slip of the pen.
"""

import difflib
from collections.abc import Collection
from typing import Final

from modelport.runtimes.base import LoadContext

__all__ = ["tell_of_unknown"]


def tell_of_unknown(
    context: LoadContext, framework: str, known: Collection[str], *, prefixes: tuple[str, ...] = ()
) -> None:
    """Warn of each parameter that the framework does not know.

    Args:
        context: Of the instance that comes up; only the first one of a group tells.
        framework: As people call it.
        known: Names that it knows.
        prefixes: What further ones begin with.
    """
    if not context.instance_name.endswith("_0"):
        return
    for name in context.config.parameters:
        if name in known or name in _EVERYWHERE or name.startswith((*prefixes, "ovms_")):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(sorted(known))}"
        text = f"parameter '{name}' means nothing to {framework} and is passed over; {hint}"
        context.host.log("warning", text, model=context.source.name)


_EVERYWHERE: Final = frozenset(
    {
        # The engine's, see modelport.specs.Execution.
        "execution",
        # The protocols', which read images by them as OpenVINO Model Server does.
        "ovms",
        "layout",
        "color_format",
        # Triton's Python backend's: what is right here without it.
        "FORCE_CPU_ONLY_INPUT_TENSORS",
    }
)
"""What is acted on elsewhere, or needs no acting on."""
