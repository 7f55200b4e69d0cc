import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.server.flags import SWITCH_WORDS, Flag, Takes, split

TAKES = {"--port": Takes.VALUE, "--quiet": Takes.SWITCH}


@pytest.mark.parametrize(
    ("argv", "flags", "words"),
    [
        ([], [], []),
        (["--port", "1"], [Flag("--port", "1")], []),
        (["--port=1"], [Flag("--port", "1")], []),
        (["--port="], [Flag("--port", "")], []),
        (["--port=a=b"], [Flag("--port", "a=b")], []),
        (["--port", "-1"], [Flag("--port", "-1")], []),
        (["--port", "-"], [Flag("--port", "-")], []),
        (["--port"], [Flag("--port", None)], []),
        (["--port", "--quiet"], [Flag("--port", None), Flag("--quiet", None)], []),
        (["--quiet", "word"], [Flag("--quiet", None)], ["word"]),
        (["--quiet", "OFF", "word"], [Flag("--quiet", "OFF")], ["word"]),
        (["--quiet=x"], [Flag("--quiet", "x")], []),
        (["--other", "word"], [Flag("--other", None)], ["word"]),
        (["--other=1"], [Flag("--other", "1")], []),
        (["a", "--quiet", "b", "-"], [Flag("--quiet", None)], ["a", "b", "-"]),
        (["--", "--port", "1"], [], ["--port", "1"]),
    ],
)
def test_arguments_are_cut_by_what_each_option_takes(
    argv: list[str], flags: list[Flag], words: list[str]
) -> None:
    assert split(argv, TAKES.get) == (flags, words)


ARGUMENTS = st.sampled_from(["--port", "--quiet", "--port=1", "--x", "--", "-", "-y", "on", "word"])


@given(st.lists(ARGUMENTS, max_size=8))
def test_no_argument_is_lost_or_counted_twice(argv: list[str]) -> None:
    flags, words = split(argv, TAKES.get)
    pieces = [flag.name for flag in flags]
    pieces += [flag.value for flag in flags if flag.value is not None]
    pieces += [part for word in words for part in word.split("=")]
    expected = [part for each in argv for part in each.split("=")]
    if "--" in expected:
        expected.remove("--")  # the first one only ends the options
    assert sorted(pieces) == sorted(expected)


def test_switch_words_are_in_lower_case() -> None:
    assert all(word == word.lower() for word in SWITCH_WORDS)
