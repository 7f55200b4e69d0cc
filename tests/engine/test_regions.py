import os
from functools import partial
from pathlib import Path

import pytest

from modelport.engine import regions as module
from modelport.engine.regions import MOST_REGIONS, Hold, Regions
from modelport.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    RegionFailed,
    TooLarge,
)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """A directory of shared memory with one object, of the bytes 0 to 99."""
    directory = tmp_path / "shm"
    directory.mkdir()
    (directory / "numbers").write_bytes(bytes(range(100)))
    return directory


@pytest.fixture
def regions(memory: Path) -> Regions:
    made = Regions(memory)
    made.register("r", "/numbers", 10, 50)
    return made


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_part_of_an_object_is_read_and_written(regions: Regions, memory: Path) -> None:
    held = regions.hold(["r"])
    copy = held.read("r", 5, 3)
    assert (bytes(copy), copy.readonly) == (bytes([15, 16, 17]), True)
    held.write("r", 0, 50, b"\xff\xfe")
    assert (memory / "numbers").read_bytes()[9:13] == bytes([9, 255, 254, 12])
    assert bytes(copy) == bytes([15, 16, 17]), "a copy, which the client cannot change"
    assert bytes(held.read("r", 50, 0)) == b""
    held.release()


def test_what_is_registered_is_told(regions: Regions) -> None:
    regions.register("s", "numbers", 0, 100)
    first = {"name": "r", "key": "/numbers", "offset": 10, "byte_size": 50}
    second = {"name": "s", "key": "numbers", "offset": 0, "byte_size": 100}
    assert regions.status() == [first, second]
    assert regions.status("s") == [second]
    with pytest.raises(NotFound, match=r"^Unable to find system shared memory region: 't'$"):
        regions.status("t")
    regions.unregister("r")
    assert regions.status() == [second]
    regions.unregister("never")
    regions.unregister()
    assert regions.status() == []


def test_a_name_is_registered_once(regions: Regions) -> None:
    with pytest.raises(Conflict, match=r"^shared memory region 'r' already in manager"):
        regions.register("r", "/numbers", 0, 1)


@pytest.mark.parametrize(
    "key",
    ["/", "", "//", "/a/b", "../shm/numbers", "/../shm/numbers", ".", "..", "/..", "a\0b",
     "/" + "x" * 255, "/missing"],
)  # fmt: skip
def test_a_key_is_one_name_of_an_object_that_there_is(regions: Regions, key: str) -> None:
    before = open_files()
    with pytest.raises(RegionFailed, match=r"^Unable to open shared memory region: '"):
        regions.register("s", key, 0, 1)
    assert open_files() == before


def test_keys_of_tritons_workers_are_refused(regions: Regions, memory: Path) -> None:
    (memory / "triton_python_backend_shm_region_1").write_bytes(b"1")
    with pytest.raises(InvalidRequest, match="is reserved"):
        regions.register("s", "/triton_python_backend_shm_region_1", 0, 1)


def test_links_and_what_is_no_memory_are_refused(regions: Regions, memory: Path) -> None:
    secret = memory.parent / "secret"
    secret.write_bytes(b"secret")
    (memory / "link").symlink_to(secret)
    (memory / "directory").mkdir()
    os.mkfifo(memory / "fifo")
    before = open_files()
    for key in ("/link", "/directory", "/fifo"):
        with pytest.raises(RegionFailed, match=f"^Unable to open shared memory region: '{key}'"):
            regions.register("s", key, 0, 1)
    assert open_files() == before


@pytest.mark.parametrize(
    ("offset", "byte_size"),
    [(0, 101), (100, 1), (1, 100), (2**64 - 1, 1), (0, 2**64 - 1), (2**64 - 1, 2**64 - 1), (0, 0)],
)
def test_a_region_lies_inside_its_object(regions: Regions, offset: int, byte_size: int) -> None:
    before = open_files()
    with pytest.raises(RegionFailed, match=r"^Invalid shared memory region: '/numbers'. It has"):
        regions.register("s", "/numbers", offset, byte_size)
    assert open_files() == before


def test_a_tensor_lies_inside_its_region(regions: Regions) -> None:
    held = regions.hold(["r"])
    for offset, byte_size in ((51, 0), (2**64 - 1, 1)):
        text = "^Invalid offset for shared memory region: 'r'"
        with pytest.raises(InvalidRequest, match=text):
            held.read("r", offset, byte_size)
    for offset, byte_size in ((0, 51), (50, 1), (1, 2**64 - 1)):
        for use in (held.check, held.read, partial(_written, held)):
            text = r"^Invalid offset \+ byte size for shared memory region: 'r'"
            with pytest.raises(InvalidRequest, match=text):
                use("r", offset, byte_size)


def _written(held: Hold, name: str, offset: int, byte_size: int) -> None:
    held.write(name, offset, byte_size, b"")


def test_an_object_that_was_made_shorter_is_noticed(regions: Regions, memory: Path) -> None:
    """A mapping would end the process here."""
    held = regions.hold(["r"])
    os.truncate(memory / "numbers", 20)
    with pytest.raises(InvalidRequest, match="has become shorter"):
        held.read("r", 5, 10)
    with pytest.raises(InvalidRequest, match="has become shorter"):
        held.write("r", 5, 10, b"0123456789")
    assert (memory / "numbers").stat().st_size == 20


def test_a_request_reads_only_so_much(regions: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 60)
    held = regions.hold(["r"])
    held.read("r", 0, 50)
    with pytest.raises(TooLarge, match="larger than 60 bytes together"):
        held.read("r", 0, 11)


def test_a_region_in_use_is_forgotten_at_once_and_closed_later(regions: Regions) -> None:
    before = open_files()
    one, two = regions.hold(["r"]), regions.hold(["r"])
    regions.unregister("r")
    assert regions.status() == []
    with pytest.raises(NotFound, match=r"^Unable to find shared memory region: 'r'"):
        regions.hold(["r"])
    assert bytes(one.read("r", 0, 1)) == bytes([10])
    regions.register("r", "/numbers", 0, 1)
    one.release()
    one.release()
    assert bytes(two.read("r", 0, 1)) == bytes([10]), "still the old one"
    assert open_files() == before + 1
    two.release()
    assert open_files() == before


def test_whoever_wants_an_unknown_region_holds_none(regions: Regions) -> None:
    before = open_files()
    with pytest.raises(NotFound):
        regions.hold(["r", "s"])
    regions.unregister("r")
    assert open_files() == before - 1


def test_regions_are_counted(regions: Regions) -> None:
    for number in range(MOST_REGIONS - 1):
        regions.register(str(number), "/numbers", 0, 1)
    with pytest.raises(Overloaded, match="regions are registered already"):
        regions.register("more", "/numbers", 0, 1)
    regions.unregister()
