"""The thread that writes, with destinations that are slow, broken, or moved away."""

import io
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelport.server.log_writer import Destination, LogFile, LogStream, LogWriter

PATIENCE_S = 10.0


class Memory:
    """Keeps what is written; may be told to wait, or to fail."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.is_closed = False
        self.may_write = threading.Event()
        self.may_write.set()
        self.is_writing = threading.Event()
        self.error: OSError | None = None

    def write(self, text: str) -> None:
        self.is_writing.set()
        assert self.may_write.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        self.texts.append(text)

    def close(self) -> None:
        self.is_closed = True


@contextmanager
def writing(destination: Destination, most_waiting: int = 1000) -> Iterator[LogWriter]:
    writer = LogWriter(
        destination,
        most_waiting=most_waiting,
        tell_lost=lambda count: f"lost {count}\n",
        redact=lambda text: text.replace("secret", "***"),
    )
    writer.open()
    try:
        yield writer
    finally:
        writer.close(PATIENCE_S)


def test_lines_are_written_in_their_order_and_all_before_the_end() -> None:
    memory = Memory()
    with writing(memory, most_waiting=10_000) as writer:
        for number in range(5000):
            writer.put(f"{number}\n")
    assert "".join(memory.texts) == "".join(f"{number}\n" for number in range(5000))
    assert memory.is_closed


def test_flush_returns_when_all_is_written() -> None:
    memory = Memory()
    with writing(memory) as writer:
        for number in range(3):
            writer.put(f"{number}\n")
            writer.flush(PATIENCE_S)
            assert "".join(memory.texts).endswith(f"{number}\n")


def test_lines_that_come_together_are_written_together() -> None:
    memory = Memory()
    memory.may_write.clear()
    with writing(memory) as writer:
        writer.put("first\n")
        assert memory.is_writing.wait(PATIENCE_S)
        for _ in range(100):
            writer.put("more\n")
        memory.may_write.set()
    assert memory.texts == ["first\n", "more\n" * 100]


def test_a_slow_disk_holds_nobody_up_and_what_is_too_much_is_counted() -> None:
    memory = Memory()
    memory.may_write.clear()
    with writing(memory, most_waiting=2) as writer:
        writer.put("first\n")
        assert memory.is_writing.wait(PATIENCE_S)
        for number in range(5):
            writer.put(f"{number}\n")
        memory.may_write.set()
    assert "".join(memory.texts) == "first\n0\n1\nlost 3\n"


def test_a_full_disk_is_told_of_when_there_is_room_again() -> None:
    memory = Memory()
    memory.error = OSError(28, "No space left on device")
    with writing(memory) as writer:
        writer.put("1\n")
        writer.flush(PATIENCE_S)
        writer.put("2\n")
        writer.flush(PATIENCE_S)
        memory.error = None
        writer.put("3\n")
        writer.flush(PATIENCE_S)
    assert "".join(memory.texts) == "3\nlost 2\n"


def test_a_disk_that_hangs_does_not_keep_the_server_from_stopping() -> None:
    memory = Memory()
    memory.may_write.clear()
    with writing(memory) as writer:
        writer.put("first\n")
        assert memory.is_writing.wait(PATIENCE_S)
        writer.flush(0)
        writer.close(0)
        assert memory.texts == []
        memory.may_write.set()
    assert memory.texts == ["first\n"]


def test_secrets_do_not_reach_the_destination() -> None:
    memory = Memory()
    with writing(memory) as writer:
        writer.put("a secret\n")
    assert memory.texts == ["a ***\n"]


def test_a_closed_writer_can_be_closed_and_flushed_again() -> None:
    with writing(Memory()) as writer:
        writer.close(PATIENCE_S)
        writer.flush(PATIENCE_S)
        writer.put("to nobody\n")


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    with writing(LogFile(str(path))) as writer:
        writer.put("after\n")
    assert path.read_text() == "before\nafter\n"


def test_a_file_that_was_rotated_is_made_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    with writing(LogFile(str(path))) as writer:
        writer.put("old\n")
        writer.flush(PATIENCE_S)
        os.rename(path, moved)
        writer.put("new\n")
        writer.flush(PATIENCE_S)
        os.remove(path)
        writer.put("newest\n")
    assert (moved.read_text(), path.read_text()) == ("old\n", "newest\n")


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        LogFile(str(tmp_path / "missing" / "log"))


def test_a_folder_that_is_gone_loses_lines_only_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "log"
    with writing(LogFile(str(path))) as writer:
        os.rename(folder, tmp_path / "away")
        writer.put("1\n")
        writer.flush(PATIENCE_S)
        folder.mkdir()
        writer.put("2\n")
    assert path.read_text() == "2\nlost 1\n"


def test_a_stream_is_flushed_and_left_open() -> None:
    stream = io.StringIO()
    with writing(LogStream(stream)) as writer:
        writer.put("line\n")
    assert stream.getvalue() == "line\n"
    assert not stream.closed


def test_a_stream_that_was_closed_loses_lines_and_nothing_else() -> None:
    stream = io.StringIO()
    stream.close()
    with writing(LogStream(stream)) as writer:
        writer.put("line\n")
        writer.flush(PATIENCE_S)


def test_full_disk_costs_the_lines_that_it_does_not_take(tmp_path: Path) -> None:
    """And neither a later line nor the end; a line that is torn stays one of its own."""
    path = tmp_path / "log"
    file = LogFile(str(path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    file.write("first\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="too large"):
                file.write("second\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.write("third\n")
    file.close()
    assert path.read_text() == "first\nseco\nthird\n"


def test_disk_that_takes_nothing_does_not_fail_the_end() -> None:
    file = LogFile("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        file.write("line\n")
    file.close()
