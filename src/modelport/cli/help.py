"""Help texts from the tables of options and settings; pure, so that the documentation uses them."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelport.cli.options import Option

__all__ = ["Entry", "Section", "options_section", "render"]

_INDENT = 2
_NAMES_WIDTH = 30


@dataclass(frozen=True, slots=True)
class Entry:
    """One option: how it is written, what it does, what is worth knowing in brackets."""

    names: str
    help: str
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with its options."""

    title: str
    entries: Sequence[Entry]


def options_section(options: Iterable[Option]) -> Section:
    """Describe a verb's own options."""
    entries = []
    for option in options:
        facts = []
        if option.is_repeatable:
            facts.append("repeatable")
        if option.default is not None:
            facts.append(f"default: {option.default}")
        if option.variable is not None:
            facts.append(f"env: {option.variable}")
        names = option.flag if option.metavar is None else f"{option.flag} {option.metavar}"
        entries.append(Entry(names, option.help, tuple(facts)))
    entries.append(Entry("-h, --help", "Print this"))
    return Section("Options", entries)


def render(
    usage: str,
    summary: str,
    sections: Sequence[Section],
    *,
    notes: Sequence[str] = (),
    width: int = 100,
    is_bold: bool = False,
) -> str:
    """Lay out a verb's help.

    Args:
        usage: After "Usage: ".
        summary: What the verb does.
        sections: In their order.
        notes: Paragraphs at the end; one with a line break is printed as it is.
        width: Columns to fill at most.
        is_bold: Whether headings are marked for a terminal.
    """

    def heading(text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if is_bold else text

    lines = [f"{heading('Usage:')} {usage}", "", *textwrap.wrap(summary, width)]
    for section in sections:
        lines += ["", heading(section.title)]
        for entry in section.entries:
            lines += _entry_lines(entry, width)
    for note in notes:
        lines.append("")
        lines += note.splitlines() if "\n" in note else textwrap.wrap(note, width)
    return "\n".join(lines)


def _entry_lines(entry: Entry, width: int) -> list[str]:
    facts = f" [{', '.join(entry.facts)}]" if entry.facts else ""
    left = " " * (_INDENT + _NAMES_WIDTH)
    text = textwrap.wrap(
        entry.help + facts,
        max(width, 60),
        initial_indent=left,
        subsequent_indent=left,
        break_on_hyphens=False,
        break_long_words=False,
    )
    names = " " * _INDENT + entry.names
    if len(names) + 2 > len(left):
        return [names, *text]
    return [names.ljust(len(left)) + text[0].strip(), *text[1:]]
