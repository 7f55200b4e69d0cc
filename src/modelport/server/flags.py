"""Split an argument vector into options and words, knowing only what each option takes.

Not ``argparse``: an option's text must stay text here, because the same table of settings also
reads the environment and a file, and each value has to remember which spelling brought it. Both
forms of tritonserver are understood, ``--name=value`` and ``--name value``, and so is its bare
``--name`` for a switch.
"""

import enum
from collections.abc import Callable, Sequence

from msgspec import Struct

__all__ = ["SWITCH_WORDS", "Flag", "Takes", "split"]

SWITCH_WORDS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


class Takes(enum.Enum):
    """What follows the name of an option."""

    VALUE = "a value, always"
    SWITCH = "one of SWITCH_WORDS, or nothing, which means true"


class Flag(Struct, frozen=True):
    """One option as it was written.

    Attributes:
        name: With its dashes, ``--http-port``.
        value: ``None`` where none was given: a bare switch, or a value that is missing.
    """

    name: str
    value: str | None


def split(
    argv: Sequence[str], takes: Callable[[str], Takes | None]
) -> tuple[list[Flag], list[str]]:
    """Give the options and the remaining words, each in their order.

    Args:
        argv: Without the program's and the verb's name.
        takes: What an option takes, by its name with dashes; ``None`` for one that is not known,
            which then keeps only a value written with ``=``.
    """
    flags: list[Flag] = []
    words: list[str] = []
    position = 0
    while position < len(argv):
        argument = argv[position]
        position += 1
        if argument == "--":
            words.extend(argv[position:])
            break
        if not argument.startswith("-") or argument == "-":
            words.append(argument)
            continue
        name, has_value, value = argument.partition("=")
        if has_value:
            flags.append(Flag(name, value))
        elif position < len(argv) and _is_value(argv[position], takes(name)):
            flags.append(Flag(name, argv[position]))
            position += 1
        else:
            flags.append(Flag(name, None))
    return flags, words


def _is_value(word: str, takes: Takes | None) -> bool:
    match takes:
        case Takes.VALUE:
            # "-1" is a value and "--http-port" is the next option: only the latter is refused.
            return not word.startswith("--")
        case Takes.SWITCH:
            return word.lower() in SWITCH_WORDS
        case None:
            return False
