"""Having every instance of a version execute its warm-up requests, before there are others.

They run where requests will run, on the same threads and loops, and count nowhere.
"""

import asyncio
from collections.abc import Awaitable, Callable

from modelport.engine.executor import Completions, Ran
from modelport.engine.reshape import Reshaping
from modelport.errors import LoadFailed, ModelFailed, ModelportError
from modelport.messages import Request, Response, Tensors
from modelport.repository.warmup import Sample
from modelport.runtimes.base import Batch, as_model_failure

__all__ = ["WarmupWork", "batch_of", "check"]

Execute = Callable[[Batch], Awaitable[Ran]]


class WarmupWork:
    """A request that nobody asked; see :class:`modelport.runtimes.base.Work`.

    Attributes:
        ended: Set on the event loop when the model has given its last response by ``send``.
        error: What went wrong, if it said so.
    """

    def __init__(self, request: Request, completions: Completions) -> None:
        self.request = request
        self.rows = 1
        self.is_cancelled = False
        self.ended = asyncio.Event()
        self.error: ModelportError | None = None
        self._has_ended = False
        self._completions = completions

    def send(self, response: Response | ModelportError | None, *, final: bool) -> None:
        """Take a response, from any thread, and look only whether it is an error."""
        if self._has_ended:
            raise ModelFailed("Unable to send response. Response sender has been closed.")
        self._has_ended = final
        if isinstance(response, ModelportError):
            self.error = response
        if final:
            self._completions.post(self.ended.set)

    async def drained(self) -> None:
        """Everything was read already."""

    def reschedule(self) -> None:
        """Leave it at one execution."""


def batch_of(sample: Sample, reshaping: Reshaping | None, completions: Completions) -> Batch:
    """Make the batch of a sample; its requests share their tensors."""
    payload = Tensors(sample.tensors)
    if reshaping is not None:
        payload = reshaping.inputs(payload)
    works = [
        WarmupWork(Request(payload, id=f"warmup {sample.name}"), completions)
        for _ in range(sample.batch_size)
    ]
    return Batch(works, len(works))


async def check(sample: Sample, instance: str, batch: Batch, ran: Ran) -> None:
    """Wait for the last of the answers, and see that they are good.

    Raises:
        LoadFailed: If the model failed, in its own words.
    """
    error = None if ran.error is None else as_model_failure(ran.error)
    outcomes = ran.outcomes if ran.outcomes is not None else [None] * len(batch.works)
    for work, outcome in zip(batch.works, outcomes, strict=False):
        if error is None and outcome is None and isinstance(work, WarmupWork):
            await work.ended.wait()
            error = work.error
        elif error is None and isinstance(outcome, ModelportError):
            error = outcome
    if error is not None:
        raise LoadFailed(
            f"instance '{instance}' failed its warm-up request '{sample.name}': {error.text}"
        )
