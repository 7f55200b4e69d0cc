"""Work on large bodies, on a thread, so that small requests do not wait behind it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from modelport.errors import ModelportError
from modelport.protocols.base import Exchange
from modelport.protocols.v2_rest.replies import fail

__all__ = ["MOST_ON_LOOP", "off_loop"]

T = TypeVar("T")

MOST_ON_LOOP = 2**20
"""Bytes of a body that are read on the event loop. A megabyte of JSON takes about 5 ms, one of
short strings up to 40; a megabyte of numbers next to nothing, but then the hop is lost in the time
that it took to receive them."""


def off_loop(exchange: Exchange, work: Callable[[], T], then: Callable[[T], None]) -> None:
    """Do ``work`` on a thread, and go on with ``then`` on the loop.

    Errors of ours, from either, are the answer to the exchange. If the client goes away meanwhile,
    ``then`` is not called.
    """
    is_gone = False

    def leave() -> None:
        nonlocal is_gone
        is_gone = True

    def go_on(done: asyncio.Future[T]) -> None:
        if is_gone:
            # Looked at, or asyncio would complain that nobody did.
            done.exception()
            return
        exchange.on_disconnect = None
        try:
            then(done.result())
        except ModelportError as exc:
            fail(exchange, exc)
        except BaseException:
            # A bug in us: the client must not wait for an answer that will never come.
            exchange.abort()
            raise

    exchange.on_disconnect = leave
    asyncio.get_running_loop().run_in_executor(None, work).add_done_callback(go_on)
