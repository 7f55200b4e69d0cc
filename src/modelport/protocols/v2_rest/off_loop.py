"""Work on the large body of an exchange, on a thread."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from modelport.protocols.base import Exchange
from modelport.protocols.threads import MOST_ON_LOOP, on_thread
from modelport.protocols.v2_rest.replies import fail

__all__ = ["MOST_ON_LOOP", "off_loop"]

T = TypeVar("T")


def off_loop(exchange: Exchange, work: Callable[[], T], then: Callable[[T], None]) -> None:
    """Do ``work`` on a thread, and go on with ``then`` on the loop.

    Errors of ours, from either, are the answer to the exchange. If the client goes away meanwhile,
    ``then`` is not called.
    """

    def go_on(done: T) -> None:
        exchange.on_disconnect = None
        then(done)

    exchange.on_disconnect = on_thread(work, go_on, partial(fail, exchange), exchange.abort)
