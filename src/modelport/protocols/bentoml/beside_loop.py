"""Large bodies are read on a thread, so that small requests do not wait behind them."""

from collections.abc import Callable
from typing import TypeVar

from modelport.errors import ModelportError
from modelport.protocols.base import Exchange
from modelport.protocols.threads import on_thread

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

    def go_on(result: T) -> None:
        exchange.on_disconnect = None
        then(result)

    def refuse(error: ModelportError) -> None:
        exchange.on_disconnect = None
        fail(exchange, error)

    exchange.on_disconnect = on_thread(work, go_on, refuse, exchange.abort)
