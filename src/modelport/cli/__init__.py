"""The command line: a table of verbs, each in a file of its own, imported when it is called.

Exit codes, the same for every verb: 0 done; 1 it could not be done; 2 the command line, the
environment or a file is wrong; 130 interrupted; 141 the reader of our output has gone away.
"""

import errno
import io
import sys
from collections.abc import Sequence

__all__ = ["VERBS", "main"]

# Name, one line for the overview. The module of the same name has ``run(argv) -> int``.
VERBS = {
    "serve": "Serve models over every protocol",
    "models": "List a server's models, or describe one",
    "infer": "Send one inference request and print the outputs",
    "tasks": "List, watch, cancel and retry tasks on a server",
    "config": "Show the server's settings and where each comes from",
    "completion": "Print completions for bash, zsh or fish",
    "version": "Print the version",
}

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + 2
EXIT_BROKEN_PIPE = 128 + 13

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and give the exit code; the console script ``modelport``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the terminal has no letter for what a server says, its number is shown.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()  # a reader that has gone away shows here, while we can still handle it
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return EXIT_BROKEN_PIPE
    except OSError as exc:
        if exc.errno not in _NO_ROOM:
            raise
        _discard_output()
        print(f"modelport: cannot write the output: {exc.strerror}", file=sys.stderr)
        return EXIT_FAILED


def _dispatch(arguments: list[str]) -> int:
    match arguments:
        case [] | ["-h" | "--help" | "help"]:
            print(_overview())
            return 0 if arguments else EXIT_USAGE
        case ["-V" | "--version", *_]:
            return _run("version", [])
        case ["help", verb]:
            return _dispatch([verb, "--help"])
        case [verb, *rest] if verb in VERBS:
            return _run(verb, rest)
    print(f"modelport: {_unknown(arguments[0])}", file=sys.stderr)
    return EXIT_USAGE


def _run(verb: str, argv: list[str]) -> int:
    from importlib import import_module

    from modelport.cli.options import UsageError

    try:
        code: int = import_module(f"modelport.cli.{verb}").run(argv)
    except UsageError as exc:
        for line in str(exc).splitlines():
            print(f"modelport {verb}: {line}", file=sys.stderr)
        return EXIT_USAGE
    return code


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = ["Usage: modelport VERB ...", ""]
    lines += [f"  {verb.ljust(width)}  {summary}" for verb, summary in VERBS.items()]
    lines += ["", "modelport VERB --help tells more."]
    return "\n".join(lines)


def _unknown(verb: str) -> str:
    import difflib

    nearest = difflib.get_close_matches(verb, VERBS, n=1)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"verbs are {', '.join(VERBS)}"
    return f'"{verb}" is no verb; {remedy}'


def _open_closed_streams() -> None:
    """Point streams that whoever started us has closed nowhere.

    Python has none then, and the first file or socket that is opened would get the number of one,
    and with it what is printed.
    """
    import os

    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, "r" if number == 0 else "w"))  # noqa: SIM115


def _discard_output() -> None:
    """Point standard output nowhere, or Python would complain once more when it closes it."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
