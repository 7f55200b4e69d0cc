"""What all fuzzers have in common: a plain mutator, and the two ways to run.

::

    python -m fuzz.websocket [RUNS]           with the mutator
    python -m fuzz.websocket --atheris ...    guided by coverage, with libFuzzer's options;
                                              needs `pip install atheris`
"""

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from modelport.errors import ModelportError

__all__ = ["attempt", "check_text", "in_time", "main", "mutated", "mutations"]

Check = Callable[[bytes], object]

LONGEST_TEXT = 20_000
"""Bytes of an error: what is sent may be quoted in it, but not at any length."""
LONGEST_S = 2.0
"""For one input, on a machine that has other things to do."""


def attempt(read: Callable[[], object], *, errors: str = "strict") -> None:
    """Read something, or be refused with a text that can be sent.

    Args:
        read: May raise ``ModelportError``, and nothing else.
        errors: ``surrogateescape`` where bytes that are no text may be quoted.
    """
    try:
        read()
    except ModelportError as exc:
        check_text(exc, errors=errors)


def check_text(error: ModelportError, *, errors: str = "strict") -> None:
    """Hold the text of an error to what can be sent."""
    assert 0 < len(str(error).encode(errors=errors)) < LONGEST_TEXT


@contextmanager
def in_time(now_s: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    """Be over within ``LONGEST_S`` seconds of this clock."""
    started_s = now_s()
    yield
    assert now_s() - started_s < LONGEST_S, "too slow"


def mutations(
    seed: int, seeds: Sequence[bytes], words: Sequence[bytes], *, settings: int = 0
) -> Iterator[bytes]:
    """Give inputs without end: seeds with pieces cut, doubled, swapped and put in.

    Args:
        seed: Of the random numbers; the same one gives the same inputs.
        seeds: Inputs that are understood.
        words: Pieces that mean something to what is tried.
        settings: Bytes in front that say how to run, and are no input; they become random.
    """
    source = random.Random(seed)
    while True:
        data = bytearray(source.choice(seeds))
        data[:settings] = source.randbytes(settings)
        yield mutated(source, data, seeds, words, settings)


def mutated(
    source: random.Random,
    data: bytearray,
    seeds: Sequence[bytes],
    words: Sequence[bytes],
    settings: int = 0,
) -> bytes:
    """Change an input in up to eight places, behind its settings."""
    for _ in range(source.choice((0, 1, 1, 2, 3, 8))):
        start = source.randrange(settings, len(data) + 1)
        stop = min(len(data), start + source.choice((0, 1, 1, 2, 5, 20, 100)))
        match source.randrange(6):
            case 0:
                del data[start:stop]
            case 1:
                data[start:start] = source.choice(words)
            case 2:
                data[start:stop] = source.choice(words)
            case 3:
                data[start:start] = data[start:stop] * source.choice((1, 2, 50))
            case 4:
                data[start:stop] = source.randbytes(stop - start)
            case 5:
                other = source.choice(seeds)
                at = source.randrange(min(settings, len(other) - 1), len(other))
                data[start:stop] = other[at : at + 50]
    return bytes(data)


def main(check: Check, inputs: Callable[[int], Iterator[bytes]]) -> None:
    """Run with coverage, or as many inputs as the command line says.

    Args:
        check: Raises if an input breaks the invariant.
        inputs: Gives inputs without end, by the seed of the random numbers.
    """
    if "--atheris" in sys.argv:
        import atheris  # type: ignore[import-untyped]  # it has no types

        sys.argv.remove("--atheris")
        atheris.instrument_all()
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()
        return
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for number, data in enumerate(islice(inputs(runs), runs), start=1):
        try:
            check(data)
        except BaseException:
            print(f"broken by input {number}: {data!r}")
            raise
    print(f"{runs} inputs, nothing broken")
