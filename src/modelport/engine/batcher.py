"""When to run, and how much of the queue to take: the decision, without the waiting.

The rule is Triton's. An instance is free when ``decide`` is asked, so every moment that the
decision says "wait" is spent on purpose, for a fuller batch; while all instances are busy nobody
asks, the queue grows, and the batch is cut from all that has come by then.

Source: Triton, "Dynamic Batcher"; ``ModelDynamicBatching`` in ``model_config.proto``.
"""

from collections.abc import Hashable, Sequence
from typing import Protocol

from msgspec import Struct

from modelport.specs import ModelConfig

__all__ = ["BatchPolicy", "Cut", "Queued", "Wait", "decide", "decide_among_levels"]


class Queued(Protocol):
    """What the decision needs to know of a waiting request."""

    rows: int
    batch_key: Hashable
    enqueued_ns: int


class BatchPolicy(Struct, frozen=True):
    """How batches are formed.

    Attributes:
        max_rows: Rows a batch may have; a request by itself never has more.
        preferred_rows: Rising sizes worth waiting for.
        max_delay_ns: How long the oldest request may be kept waiting for company.
        joins: Whether requests are put together at all.
    """

    max_rows: int
    preferred_rows: tuple[int, ...] = ()
    max_delay_ns: int = 0
    joins: bool = False

    @classmethod
    def from_config(cls, config: ModelConfig) -> "BatchPolicy":
        """Read the policy from a complete configuration."""
        dynamic = config.dynamic_batching
        if dynamic is None or config.max_batch_size <= 0:
            return cls(max_rows=max(1, config.max_batch_size))
        preferred = tuple(
            sorted(rows for rows in dynamic.preferred_batch_size if rows < config.max_batch_size)
        )
        return cls(
            max_rows=config.max_batch_size,
            preferred_rows=preferred,
            max_delay_ns=dynamic.max_queue_delay_microseconds * 1000,
            joins=True,
        )


class Cut(Struct, frozen=True):
    """Run the first ``count`` requests of the queue, ``rows`` rows in all."""

    count: int
    rows: int


class Wait(Struct, frozen=True):
    """Ask again at ``until_ns``, or when another request has come."""

    until_ns: int


def decide(queue: Sequence[Queued], policy: BatchPolicy, now_ns: int) -> Cut | Wait:
    """Say what to do with a queue that is not empty while an instance is free.

    Requests are taken from the front and in order; the first one that does not fit, by its rows or
    because its ``batch_key`` is another, closes the batch.
    """
    first = queue[0]
    if not policy.joins:
        return Cut(1, first.rows)
    # Names instead of attributes, identity before equality: an instance may be waiting for this.
    max_rows = policy.max_rows
    preferred_rows = policy.preferred_rows
    key = first.batch_key
    rows = 0
    count = 0
    preferred: Cut | None = None
    is_closed = False
    for request in queue:
        more = rows + request.rows
        if more > max_rows or (request.batch_key is not key and request.batch_key != key):
            is_closed = True
            break
        rows = more
        count += 1
        if preferred_rows and rows in preferred_rows:
            preferred = Cut(count, rows)
    whole = Cut(count, rows)
    if rows >= policy.max_rows:
        return whole
    if preferred is not None:
        return preferred
    due_ns = first.enqueued_ns + policy.max_delay_ns
    # A closed batch cannot grow any more: nothing to wait for.
    if is_closed or now_ns >= due_ns:
        return whole
    return Wait(due_ns)


def decide_among_levels(queue: Sequence[Queued], policy: BatchPolicy, now_ns: int) -> Cut | Wait:
    """Say the same of a queue that is sorted by priority: its first request need not be its oldest.

    Nobody is kept waiting for company because others of a higher priority have just come.
    """
    decision = decide(queue, policy, now_ns)
    if isinstance(decision, Cut):
        return decision
    # It only waits while the whole queue fits into one batch.
    due_ns = min(request.enqueued_ns for request in queue) + policy.max_delay_ns
    if now_ns >= due_ns:
        return Cut(len(queue), sum(request.rows for request in queue))
    return Wait(due_ns)
