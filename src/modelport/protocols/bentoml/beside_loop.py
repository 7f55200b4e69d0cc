"""Large bodies are read on a thread, so that small requests do not wait behind them."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from modelport.errors import ModelportError
from modelport.protocols.base import Exchange

__all__ = ["MOST_ON_LOOP", "beside_loop"]

T = TypeVar("T")

MOST_ON_LOOP = 65_536
"""Bytes of a body that are read on the event loop; values of Python cost more than tensors do."""


def beside_loop(
    exchange: Exchange,
    work: Callable[[], T],
    then: Callable[[T], None],
    fail: Callable[[Exchange, ModelportError], None],
) -> None:
    """Do ``work`` on a thread, and go on with what it gives on the loop.

    If the client leaves meanwhile, nothing of what is given here is called any more. An exception
    that is none of ours, a bug in us, breaks the answer off before it goes on its way.

    Args:
        exchange: Whose body is read.
        work: Touches nothing of the loop's.
        then: Gets what it gave.
        fail: Gets errors of ours, from either.
    """

    def done(future: "asyncio.Future[T]") -> None:
        if future.cancelled():
            return
        exchange.on_disconnect = None
        try:
            then(future.result())
        except ModelportError as exc:
            fail(exchange, exc)
        except BaseException:
            exchange.abort()
            raise

    def left() -> None:
        future.cancel()

    future = asyncio.get_running_loop().run_in_executor(None, work)
    exchange.on_disconnect = left
    future.add_done_callback(done)
