"""The options of the verbs that call a server: a table each, read the way ``serve`` reads its own.

``serve`` and ``config`` have the table of settings instead (:mod:`modelport.server.settings`).
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from modelport.server.flags import SWITCH_WORDS, Takes, split

__all__ = ["SERVER_OPTIONS", "Option", "Options", "UsageError", "asks_for_help", "parse"]


class UsageError(Exception):
    """The command line is wrong; one line for each problem, in the form "where: what; remedy"."""


class Option(Struct, frozen=True):
    """One option of a verb.

    Attributes:
        flag: ``--url``.
        metavar: What stands for its value; ``None`` for a switch.
        help: One or two sentences; ends without a full stop.
        default: Its text where nothing is said.
        is_repeatable: Whether each occurrence counts.
        variable: In the environment, asked before the default.
    """

    flag: str
    metavar: str | None
    help: str
    default: str | None = None
    is_repeatable: bool = False
    variable: str | None = None


class Options(Struct, frozen=True):
    """What was written, by flag.

    Attributes:
        texts_by_flag: Only of options that were given, or have a variable or default.
        words: The arguments that are no options.
    """

    texts_by_flag: Mapping[str, Sequence[str]]
    words: Sequence[str]

    def text(self, flag: str) -> str | None:
        """Give the last value of an option, or ``None`` without one."""
        texts = self.texts_by_flag.get(flag)
        return texts[-1] if texts else None

    def texts(self, flag: str) -> Sequence[str]:
        """Give every value of an option."""
        return self.texts_by_flag.get(flag, ())

    def is_on(self, flag: str) -> bool:
        """Whether a switch is on."""
        text = self.text(flag)
        return text is not None and SWITCH_WORDS[text.lower()]

    def seconds(self, flag: str) -> float:
        """Give the value of an option that has a default as seconds above 0.

        Raises:
            UsageError: For anything else.
        """
        text = self.text(flag) or ""
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise UsageError(f'{flag}: expected a number of seconds above 0, got "{text}"')
        return value


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether ``--help`` or ``-h`` stands before a ``--``."""
    before = argv[: argv.index("--")] if "--" in argv else argv
    return "--help" in before or "-h" in before


def parse(
    argv: Sequence[str],
    options: Sequence[Option],
    environ: Mapping[str, str],
    *,
    words: tuple[int, int],
    usage: str,
) -> Options:
    """Read a verb's arguments.

    Args:
        argv: Without the verb.
        options: Its table.
        environ: The environment.
        words: The fewest and the most arguments beside options.
        usage: What to show when that number is wrong.

    Raises:
        UsageError: With every problem found.
    """
    option_by_flag = {option.flag: option for option in options}
    flags, found = split(argv, lambda flag: _takes(option_by_flag.get(flag)))
    texts: dict[str, list[str]] = {}
    problems: list[str] = []
    for flag in flags:
        option = option_by_flag.get(flag.name)
        if option is None:
            problems.append(_unknown(flag.name, list(option_by_flag)))
            continue
        text = "true" if flag.value is None and option.metavar is None else flag.value
        if text is None:
            problems.append(f"{flag.name}: needs a value; write {flag.name} {option.metavar}")
        elif option.metavar is None and text.lower() not in SWITCH_WORDS:
            problems.append(f'{flag.name}: expected true or false, got "{text}"; leave it out')
        elif option.is_repeatable:
            texts.setdefault(flag.name, []).append(text)
        else:
            texts[flag.name] = [text]
    # The value of an option that is not known looks like an argument: one complaint is enough.
    if not problems and not words[0] <= len(found) <= words[1]:
        problems.append(f"got {len(found)} arguments beside options; usage: {usage}")
    if problems:
        raise UsageError("\n".join(problems))
    for option in options:
        fallback = environ.get(option.variable) if option.variable else None
        fallback = fallback or option.default
        if option.flag not in texts and fallback:
            texts[option.flag] = [fallback]
    return Options(texts, found)


def _takes(option: Option | None) -> Takes | None:
    if option is None:
        return None
    return Takes.SWITCH if option.metavar is None else Takes.VALUE


def _unknown(flag: str, flags: list[str]) -> str:
    import difflib

    nearest = difflib.get_close_matches(flag, flags, n=1, cutoff=0.7)
    remedy = f"did you mean {nearest[0]}?" if nearest else "--help lists the options"
    return f"{flag}: is no option; {remedy}"


# Of every verb that calls a server.
SERVER_OPTIONS = (
    Option(
        "--url",
        "URL",
        "The server, any that speaks the V2 protocol",
        default="http://localhost:8000",
        variable="MODELPORT_URL",
    ),
    Option(
        "--api-key",
        "KEY",
        "Sent as 'Authorization: Bearer KEY'",
        variable="MODELPORT_API_KEY",
    ),
    Option("--timeout", "SECONDS", "Longest wait for the server", default="60"),
)
