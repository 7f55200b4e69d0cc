"""Code blocks of Markdown pages, and what the words after the language mean.

=====================  ===========================================================================
``sh``                 run by bash; has to succeed
``sh server``          the last line starts a server, what stands before it prepares it
``sh refused``         succeeds, and what it prints is an error of the server
``sh fails``           has to fail
``sh by-hand``         for people only: it installs things, or asks for what a test cannot have
``python``             run by Python
``python file=x.py``   written to that file, and so is any other language with ``file=``
``text output``        what the block before it prints; ``...`` stands for anything
=====================  ===========================================================================
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        page: Where it stands.
        line: Of its fence.
        language: The first word after the fence.
        words: The others.
        text: Between the fences.
    """

    page: str
    line: int
    language: str
    words: frozenset[str]
    text: str = field(repr=False)

    @property
    def file(self) -> str:
        """Where it is to be written; "" for nowhere."""
        found = [word.partition("=")[2] for word in self.words if word.startswith("file=")]
        return found[0] if found else ""


def blocks_of(page: Path, root: Path) -> list[Block]:
    """Read the blocks of a page in their order."""
    return list(_blocks(page.relative_to(root).as_posix(), page.read_text(encoding="utf-8")))


def _blocks(page: str, text: str) -> Iterator[Block]:
    for match in _FENCED.finditer(text):
        language, *words = match["info"].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, language, frozenset(words), match["text"])


_FENCED = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.M | re.S)
