"""What may be printed where: colour for people only, tables that line up and fit."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

__all__ = ["columns", "is_coloured", "paint", "plain", "redrawn", "table", "terminal_width"]

_GAP = 2
_NARROWEST = 6
_CODE_BY_COLOUR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def is_coloured(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether colour is welcome: a terminal, and nobody said no (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, colour: str, *, is_on: bool) -> str:
    """Colour a text, or leave it."""
    return f"\x1b[{_CODE_BY_COLOUR[colour]}m{text}\x1b[0m" if is_on and text else text


def columns() -> int:
    """Give the width of the terminal; 100 where there is none."""
    try:
        return max(60, min(120, os.get_terminal_size(sys.stdout.fileno()).columns))
    except (OSError, ValueError):
        return 100


def terminal_width(stream: TextIO) -> int | None:
    """Give the columns that a line may have; ``None`` where nobody looks at a terminal."""
    try:
        # A terminal that nobody has told its size says 0.
        return (os.get_terminal_size(stream.fileno()).columns or 80) if stream.isatty() else None
    except (OSError, ValueError):
        return None


def redrawn(text: str) -> str:
    """Give what shows a text in place of all that a terminal shows, as far as there is room."""
    lines = text.split("\n")
    most = max(2, (os.get_terminal_size(sys.stdout.fileno()).lines or 24) - 1)
    if len(lines) > most:
        lines[most - 1 :] = [f"… {len(lines) - most + 1} more lines"]
    # To the first place, and what is left over cleared behind each line: nothing flickers.
    return "\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[K\x1b[J"


def plain(text: str) -> str:
    r"""Take out of a text from elsewhere what a terminal would obey instead of showing it.

    >>> plain("red: \x1b[31m, line\nend")
    'red: \\x1b[31m, line\nend'
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char == "\n" or char.isprintable()
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def table(
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    colour_by_cell: Mapping[str, str] | None = None,
    is_on: bool = False,
    most: int | None = None,
    firm: int = 0,
) -> str:
    """Line up rows under a heading; the last column may be as long as it likes.

    Args:
        heading: Of each column.
        rows: As many cells each.
        colour_by_cell: Colours for whole cells with these texts.
        is_on: Whether to colour at all.
        most: Characters that a line may have; cells that have no room end in an ellipsis.
        firm: The first so many columns give way only when the others have nothing to spare.
    """
    widths = [max(len(row[at]) for row in (heading, *rows)) for at in range(len(heading))]
    if most is not None:
        room = most - _GAP * (len(widths) - 1)
        widths = [*widths[:firm], *_fitting(widths[firm:], room - sum(widths[:firm]))]
        widths = _fitting(widths, room)
        heading = _cut_all(heading, widths)
        rows = [_cut_all(row, widths) for row in rows]
    lines = [paint(_padded(heading, widths), "bold", is_on=is_on)]
    for row in rows:
        cells = _padded_cells(row, widths)
        for at, text in enumerate(row):
            colour = (colour_by_cell or {}).get(text)
            if colour:
                cells[at] = cells[at].replace(text, paint(text, colour, is_on=is_on))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _fitting(widths: Sequence[int], most: int) -> list[int]:
    """Take from the widest column until all of them fit, or none has anything to spare."""
    fitting = list(widths)
    while fitting and sum(fitting) > most:
        at = max(range(len(fitting)), key=fitting.__getitem__)
        if fitting[at] <= _NARROWEST:
            break
        fitting[at] -= 1
    return fitting


def _cut_all(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        text if len(text) <= width else f"{text[: width - 1]}…"
        for text, width in zip(row, widths, strict=True)
    ]


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(_padded_cells(row, widths)).rstrip()


def _padded_cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
