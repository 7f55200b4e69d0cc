"""What may be printed where: colour for people only, tables that line up."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

__all__ = ["columns", "is_coloured", "paint", "table"]

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


def table(
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    colour_by_cell: Mapping[str, str] | None = None,
    is_on: bool = False,
) -> str:
    """Line up rows under a heading; the last column may be as long as it likes.

    Args:
        heading: Of each column.
        rows: As many cells each.
        colour_by_cell: Colours for whole cells with these texts.
        is_on: Whether to colour at all.
    """
    widths = [max(len(row[at]) for row in (heading, *rows)) for at in range(len(heading))]
    lines = [paint(_padded(heading, widths), "bold", is_on=is_on)]
    for row in rows:
        cells = _padded_cells(row, widths)
        for at, text in enumerate(row):
            colour = (colour_by_cell or {}).get(text)
            if colour:
                cells[at] = cells[at].replace(text, paint(text, colour, is_on=is_on))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(_padded_cells(row, widths)).rstrip()


def _padded_cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
