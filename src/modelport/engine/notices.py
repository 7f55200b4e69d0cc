"""Hands the notices of a store to whoever delivers them, until each has arrived.

At least once: a notice is settled after it was delivered, and one whose process ended in between is
handed out again, here or by another process.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from modelport.errors import ModelportError
from modelport.stores.base import Notice, TaskStore

__all__ = ["Deliver", "Notices", "again_in_s"]

AT_A_TIME = 8
LEASE_S = 120.0
"""Longer than a delivery may take."""
POLL_S = 5.0
"""How often to look for notices that other processes have left, or that are due again."""
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 3600.0
MOST_ATTEMPTS = 15
"""Within about six hours."""

Deliver = Callable[[Notice], Awaitable[str]]
"""Gives "" if the notice has arrived, else what is wrong."""

log = logging.getLogger("modelport.tasks")


class Notices:
    """The notices of this process. On the event loop only.

    Args:
        store: That keeps them.
        deliver: Brings one to its webhook.
    """

    def __init__(self, store: TaskStore, deliver: Deliver) -> None:
        self._store = store
        self._deliver = deliver
        self._may_be_due = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Notices {'open' if self._loop is not None else 'closed'}>"

    def open(self) -> None:
        """Begin to deliver what is due."""
        self._loop = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """Say that a task has ended just now."""
        self._may_be_due.set()

    async def close(self) -> None:
        """Stop; what is under way is delivered again by another process. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._may_be_due.clear()
            try:
                due = await asyncio.wrap_future(self._store.notices(AT_A_TIME, LEASE_S))
                await asyncio.gather(*map(self._send, due))
            except ModelportError:
                log.exception("the store of tasks failed; trying again")
                due = []
            if len(due) < AT_A_TIME:
                await self._wait()

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._may_be_due.wait()

    async def _send(self, notice: Notice) -> None:
        task_id = notice.task.id
        try:
            wrong = await self._deliver(notice)
        except Exception:
            log.exception("the webhook of task %s could not be told", task_id)
            wrong = "internal error"
        wait_s = again_in_s(notice.attempts) if wrong else None
        if wrong and wait_s is None:
            log.warning("the webhook of task %s was not told: %s; giving up", task_id, wrong)
        elif wrong:
            log.warning(
                "the webhook of task %s was not told: %s; again in %.0f s", task_id, wrong, wait_s
            )
        await asyncio.wrap_future(self._store.settle(notice.id, wait_s))


def again_in_s(attempts: int) -> float | None:
    """Say when to try again after so many attempts; ``None``: never.

    >>> [again_in_s(attempts) for attempts in (1, 2, 3, 14, 15)]
    [5.0, 10.0, 20.0, 3600.0, None]
    """
    if attempts >= MOST_ATTEMPTS:
        return None
    return min(FIRST_WAIT_S * 2.0 ** (attempts - 1), LONGEST_WAIT_S)
