"""Work on large bodies, on a thread, so that small requests do not wait behind it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from modelport.errors import ModelportError
from modelport.protocols.base import Exchange

__all__ = ["MOST_ON_LOOP", "MOST_VALUES_ON_LOOP", "off_loop", "on_thread"]

T = TypeVar("T")

MOST_ON_LOOP = 2**20
"""Bytes of a body that are read on the event loop. A megabyte of JSON takes about 5 ms, one of
short strings up to 40; a megabyte of numbers next to nothing, but then the hop is lost in the time
that it took to receive them."""

MOST_VALUES_ON_LOOP = 65_536
"""The same of a body that becomes values of Python, which cost more than tensors do."""


def on_thread(
    work: Callable[[], T],
    then: Callable[[T], None],
    fail: Callable[[ModelportError], None],
    abort: Callable[[], None],
) -> Callable[[], None]:
    """Do ``work`` on a thread, and go on with ``then`` on the loop.

    Args:
        work: Touches nothing of the loop's.
        then: Gets what it gave.
        fail: Gets errors of ours, from either.
        abort: Called before any other exception, a bug in us, goes on its way: whoever waits must
            not wait for an answer that will never come.

    Returns:
        To be called if nobody waits any more: nothing but ``work`` is called after it.
    """
    is_left = False

    def leave() -> None:
        nonlocal is_left
        is_left = True

    def go_on(done: asyncio.Future[T]) -> None:
        if is_left:
            # Looked at, or asyncio would complain that nobody did.
            done.exception()
            return
        try:
            then(done.result())
        except ModelportError as exc:
            fail(exc)
        except BaseException:
            abort()
            raise

    asyncio.get_running_loop().run_in_executor(None, work).add_done_callback(go_on)
    return leave


def off_loop(
    exchange: Exchange,
    work: Callable[[], T],
    then: Callable[[T], None],
    fail: Callable[[Exchange, ModelportError], None],
) -> None:
    """Do the same for an exchange: if its client leaves meanwhile, nothing more is called.

    Args:
        exchange: Is broken off by a bug in us.
        work: Touches nothing of the loop's.
        then: Gets what it gave.
        fail: Gets errors of ours, from either, and the exchange.
    """

    def go_on(done: T) -> None:
        exchange.on_disconnect = None
        then(done)

    def refuse(error: ModelportError) -> None:
        exchange.on_disconnect = None
        fail(exchange, error)

    exchange.on_disconnect = on_thread(work, go_on, refuse, exchange.abort)
