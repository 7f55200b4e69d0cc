"""Trees of flows: what may start, which leaf is next, and when it is over."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelport.dtypes import FP32
from modelport.engine.flow import Flow
from modelport.engine.plan import Step
from modelport.tensors import Tensor


def step(name: str, taken: str = "", given_names: str = "") -> Step:
    return Step(
        title=name,
        model=name,
        version=None,
        inputs=tuple((each, each) for each in taken),
        outputs={each: each for each in given_names},
        shared=frozenset(),
    )


def tensors(names: str) -> list[Tensor]:
    return [Tensor(name, FP32, np.zeros(1, np.float32)) for name in names]


def start(flow: Flow, one: Step) -> None:
    flow.waiting.remove(one)
    flow.running += 1


def test_step_is_ready_when_what_it_takes_is_there_or_never_will_be() -> None:
    both = step("both", "ab")
    flow = Flow(tensors("a"), [both])
    assert flow.ready(()) is None
    assert flow.ready(("b",)) is both
    assert Flow((), [both], parent=Flow(tensors("ab"), ())).ready(()) is both


def test_tensors_go_when_nobody_needs_them() -> None:
    first, second = step("first", "a", "b"), step("second", "c")
    flow = Flow(tensors("abcd"), [first, second])
    start(flow, first)
    flow.begin_stream(first, {second})
    flow.drop_unneeded(["d"])
    # The second one runs in branches that are still to grow.
    assert sorted(flow.by_name) == ["c", "d"]


def test_streams_side_by_side_share_branches() -> None:
    left, right, after = step("left", "", "l"), step("right", "", "r"), step("after", "lr")
    trunk = Flow((), [left, right, after])
    for one in (left, right):
        start(trunk, one)
    trunk.begin_stream(left, {after})
    for _ in range(2):
        trunk.add_response(left, tensors("l"))
    assert [branch.ready(()) for branch in trunk.branches] == [None, None]
    trunk.begin_stream(right, {after})
    trunk.add_response(right, tensors("r"))
    first, second = trunk.branches
    assert first.ready(()) is after
    assert not second.ready(())
    assert second.may_get_more()
    trunk.streams[right].has_ended = True
    assert not second.may_get_more()
    assert second.uneven_streams() == [(left, 2), (right, 1)]
    assert first.may_get_more() is False
    assert trunk.is_ahead(left, 2)
    assert not trunk.is_ahead(right, 2)


def test_response_that_nobody_waited_for_is_dropped() -> None:
    left, right = step("left", "", "l"), step("right", "", "r")
    trunk = Flow((), [left, right])
    for one in (left, right):
        start(trunk, one)
        trunk.begin_stream(one, ())
    trunk.add_response(left, tensors("l"))
    trunk.cut()
    trunk.add_response(right, tensors("r"))
    assert not trunk.branches
    trunk.add_response(right, tensors("r"))
    (branch,) = trunk.branches
    assert branch.place == 1


def test_trunk_without_streams_is_the_only_leaf() -> None:
    trunk = Flow((), [])
    assert trunk.next_leaf() is trunk
    assert not trunk.is_over()
    assert repr(trunk) == "<Flow [] waiting=0 running=0 streams=0 branches=0>"


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=4))
def test_leaves_come_from_left_to_right_and_then_it_is_over(lengths: list[list[int]]) -> None:
    """Three streams in a row; each number is how many responses the innermost one gives."""
    outer, middle, inner = step("outer", "", "a"), step("middle", "a", "b"), step("inner", "b", "c")
    trunk = Flow((), [outer, middle, inner])
    expected = []

    def stream(flow: Flow, one: Step, after: set[Step], count: int) -> list[Flow]:
        start(flow, one)
        flow.begin_stream(one, after)
        for _ in range(count):
            flow.add_response(one, tensors(next(iter(one.outputs))))
        flow.streams[one].has_ended = True
        return list(flow.branches)

    for x, branch in enumerate(stream(trunk, outer, {middle, inner}, len(lengths))):
        for y, twig in enumerate(stream(branch, middle, {inner}, len(lengths[x]))):
            leaves = stream(twig, inner, set(), lengths[x][y])
            expected += [(x, y, z) for z in range(len(leaves))]
    found = []
    while (leaf := trunk.next_leaf()) is not None:
        assert not trunk.is_over()
        assert leaf.parent is not None
        assert leaf.parent.parent is not None
        found.append((leaf.parent.parent.place, leaf.parent.place, leaf.place))
        leaf.parent.cut()
    assert found == expected
    assert trunk.is_over()
