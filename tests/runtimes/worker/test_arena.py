import gc
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.errors import LoadFailed
from modelport.runtimes.worker.arena import (
    ALIGNMENT,
    KEPT_BYTES,
    Memory,
    Space,
    check_platform,
    new_memory,
)


@given(st.lists(st.one_of(st.integers(1, 5 * ALIGNMENT), st.integers(-8, -1)), max_size=60))
def test_parts_never_overlap_and_all_comes_back(steps: list[int]) -> None:
    """A positive step takes so many bytes; a negative one gives the n-th latest back."""
    space = Space(32 * ALIGNMENT)
    taken: list[tuple[int, int]] = []
    for step in steps:
        if step > 0:
            offset = space.take(step)
            if offset is not None:
                assert offset % ALIGNMENT == 0
                assert offset + step <= space.size
                assert all(
                    offset + step <= other or offset >= other + size for other, size in taken
                )
                taken.append((offset, step))
        elif len(taken) >= -step:
            space.give(taken.pop(step)[0])
    for offset, _ in taken:
        space.give(offset)
    assert space.take(space.size) == 0


def test_what_is_not_taken_cannot_be_given() -> None:
    space = Space(4 * ALIGNMENT)
    space.give(0)
    space.give(12345)
    assert [space.take(ALIGNMENT) for _ in range(5)] == [0, 4096, 8192, 12288, None]


def test_region_is_released_with_its_last_view() -> None:
    memory = Memory(new_memory(ALIGNMENT, "test"), ALIGNMENT)
    memory.write(0, np.arange(4, dtype=np.float32))
    released: list[int] = []
    view = memory.view(0, np.float32, (4,), lambda: released.append(0))
    part = view[1:3].reshape(2, 1)
    assert type(view) is np.ndarray
    assert view.flags.writeable
    del view
    gc.collect()
    assert released == []
    assert part.tolist() == [[1], [2]]
    del part
    gc.collect()
    assert released == [0]


def test_memory_has_no_name_and_cannot_be_cut_off() -> None:
    before = os.listdir("/dev/shm")
    fd = new_memory(ALIGNMENT, "test")
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 2 * ALIGNMENT)
    assert os.listdir("/dev/shm") == before
    Memory(fd, ALIGNMENT).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_views_outside_are_refused() -> None:
    memory = Memory(new_memory(ALIGNMENT, "test"), ALIGNMENT)
    with pytest.raises((TypeError, ValueError)):
        memory.view(ALIGNMENT - 4, np.float32, (2,), lambda: None)


def test_an_empty_arena_gives_back_what_is_more_than_it_keeps() -> None:
    size = 2 * KEPT_BYTES
    memory = Memory(new_memory(size, "test"), size)
    space = Space(size)
    offset = space.take(size)
    assert offset == 0
    memory.write(size - 8, np.ones(1))
    space.trim(memory)
    assert memory.view(size - 8, np.float64, (1,), lambda: None).tolist() == [1]
    space.give(0)
    space.trim(memory)
    assert memory.view(size - 8, np.float64, (1,), lambda: None).tolist() == [0]


def test_other_systems_are_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    check_platform("m")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LoadFailed, match=r"need Linux .* execution to thread"):
        check_platform("m")
