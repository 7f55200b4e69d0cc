from pathlib import Path

import pytest

from modelport.errors import Overloaded
from modelport.server.uploads import Spool


def test_directories_are_private_and_end_with_their_call(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", most_bytes=1000, most_principal_bytes=1000)
    folder = spool.folder()
    file = folder.new_file("../a.txt")
    file.write_text("x")
    assert file.name.endswith("a.txt")
    assert (tmp_path / "spool") in file.parents
    assert folder.path.stat().st_mode & 0o077 == 0
    folder.close()
    folder.close()
    assert not file.exists()
    spool.close()
    assert not list((tmp_path / "spool").iterdir())


def test_bytes_are_counted_for_all_and_for_each(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=100, most_principal_bytes=60)
    first, second = spool.folder("a"), spool.folder("b")
    first.count(60)
    with pytest.raises(Overloaded, match="your files"):
        first.count(1)
    with pytest.raises(Overloaded, match="--max-spool-size"):
        second.count(41)
    first.close()
    second.count(41)
    second.close()


def test_what_a_crash_has_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "calls-999999999-abc"
    left.mkdir()
    (left / "file").write_text("x")
    spool = Spool(tmp_path, most_bytes=100, most_principal_bytes=100)
    folder = spool.folder()
    assert folder.path.exists()
    assert not left.exists()
    folder.close()
    spool.close()


def test_a_call_that_never_began_is_cleaned_up_after(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=100, most_principal_bytes=100)
    waiting, begun = spool.folder(), spool.folder()
    paths = (waiting.path, begun.path)
    begun.claim()
    for folder in (waiting, begun):
        folder.close_unclaimed()
    assert [path.exists() for path in paths] == [False, True]
    begun.close()
