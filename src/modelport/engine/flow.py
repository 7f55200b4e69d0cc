"""How far one request of an ensemble has come: tensors by name, and the steps that wait for them.

A step that streams makes branches grow on the flow that it is in: one for each of its responses,
in which the steps after it run. A branch may have such a step as well, so flows make a tree. Steps
of one flow that stream side by side share its branches: the n-th response of each goes into the
n-th branch, so that a step after both of them gets one of each.

The leaves, from left to right, are what the ensemble responds.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from modelport.engine.plan import Step
from modelport.tensors import Tensor

__all__ = ["Flow", "Stream"]


class Stream:
    """A step of a flow that gives several responses, or none.

    Attributes:
        responses: How many it has given.
        has_ended: Whether it gives no more.
        held: What has told it to wait, to be told when it may go on.
    """

    __slots__ = ("has_ended", "held", "responses")

    def __init__(self) -> None:
        self.responses = 0
        self.has_ended = False
        self.held: Any = None


class Flow:
    """The trunk, or a branch.

    Args:
        tensors: That it begins with.
        waiting: Steps that are to run in it.
        parent: What it grows on; ``None`` for the trunk.
        place: Of which response of the parent's streams it was made, from 0.

    Attributes:
        by_name: The tensors that are there and somebody needs yet.
        waiting: Steps that have not begun.
        running: Steps that have, and have neither answered nor begun to stream.
        streams: Those that stream.
        branches: Not yet answered, from the first to the last.
    """

    __slots__ = (
        "_after",
        "_first",
        "branches",
        "by_name",
        "parent",
        "place",
        "running",
        "streams",
        "waiting",
    )

    def __init__(
        self,
        tensors: Iterable[Tensor],
        waiting: Iterable[Step],
        parent: "Flow | None" = None,
        place: int = 0,
    ) -> None:
        self.by_name = {tensor.name: tensor for tensor in tensors}
        self.waiting = list(waiting)
        self.parent = parent
        self.place = place
        self.running = 0
        self.streams: dict[Step, Stream] = {}
        self.branches: deque[Flow] = deque()
        # The place of the first of the branches, and the steps that run in them.
        self._first = 0
        self._after: list[Step] = []

    def __repr__(self) -> str:
        return (
            f"<Flow {list(self.by_name)} waiting={len(self.waiting)} running={self.running} "
            f"streams={len(self.streams)} branches={len(self.branches)}>"
        )

    # Tensors.

    def find(self, name: str) -> Tensor | None:
        """Look for a tensor here, then in what this flow grows on."""
        flow: Flow | None = self
        while flow is not None:
            found = flow.by_name.get(name)
            if found is not None:
                return found
            flow = flow.parent
        return None

    def ready(self, absent: Collection[str]) -> Step | None:
        """Find a step whose inputs are there, but for the ``absent`` ones, which never will be."""
        for step in self.waiting:
            if all(name in absent or self.find(name) is not None for _, name in step.inputs):
                return step
        return None

    def drop_unneeded(self, outputs: Iterable[str]) -> None:
        """Let go of tensors that neither a step nor the ensemble's outputs need any more."""
        needed = set(outputs)
        needed.update(name for step in self.waiting for _, name in step.inputs)
        needed.update(name for step in self._after for _, name in step.inputs)
        for name in [name for name in self.by_name if name not in needed]:
            del self.by_name[name]

    # Branches.

    def begin_stream(self, step: Step, after: Collection[Step]) -> Stream:
        """Let a running step stream: the steps ``after`` it run in branches from now on."""
        self.running -= 1
        stream = self.streams[step] = Stream()
        # None of them can have begun: this step has not ended.
        moved = [other for other in self.waiting if other in after]
        self.waiting = [other for other in self.waiting if other not in after]
        self._after += moved
        for branch in self.branches:
            branch.waiting += moved
        return stream

    def add_response(self, step: Step, tensors: Iterable[Tensor]) -> None:
        """Put a response of a stream into its branch, which may have to grow first."""
        stream = self.streams[step]
        place = stream.responses
        stream.responses += 1
        if place < self._first:
            # The branch was answered without it: nobody needed it.
            return
        if place - self._first == len(self.branches):
            self.branches.append(Flow((), self._after, self, place))
        branch = self.branches[place - self._first]
        branch.by_name.update((tensor.name, tensor) for tensor in tensors)

    def is_ahead(self, step: Step, most: int) -> bool:
        """Whether as many branches or more wait for an answer as a stream may be ahead."""
        return self.streams[step].responses - self._first >= most

    def walk(self) -> Iterator["Flow"]:
        """Give this flow and all that grows on it."""
        yield self
        for branch in self.branches:
            yield from branch.walk()

    # Leaves.

    def next_leaf(self) -> "Flow | None":
        """Find what is to be answered next, ready or not; branches that are over are cut off.

        Returns:
            ``None`` while there is none, or if there will be none any more: see ``is_over``.
        """
        flow = self
        while flow.streams:
            if flow.branches:
                flow = flow.branches[0]
            elif flow.is_over() and flow.parent is not None and flow is not self:
                flow.parent.cut()
                flow = self
            else:
                return None
        return flow

    def cut(self) -> None:
        """Take the first branch off: it was answered."""
        self.branches.popleft()
        self._first += 1

    def is_over(self) -> bool:
        """Whether nothing more can come of a flow with streams."""
        if not self.streams or self.running:
            return False
        if not all(stream.has_ended for stream in self.streams.values()):
            return False
        return not self.branches or (len(self.branches) == 1 and self.branches[0].is_over())

    def may_get_more(self) -> bool:
        """Whether something under way may yet put tensors where a leaf finds them."""
        if self.running:
            return True
        flow, parent = self, self.parent
        while parent is not None:
            if parent.running or any(
                not stream.has_ended and stream.responses <= flow.place
                for stream in parent.streams.values()
            ):
                return True
            flow, parent = parent, parent.parent
        return False

    def uneven_streams(self) -> list[tuple[Step, int]]:
        """Find streams side by side, above a leaf, that have not given the same number."""
        flow: Flow | None = self.parent
        while flow is not None:
            counts = [(step, stream.responses) for step, stream in flow.streams.items()]
            if len({count for _, count in counts}) > 1:
                return counts
            flow = flow.parent
        return []
