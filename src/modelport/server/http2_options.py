"""How patient an HTTP/2 connection is, and what its client may send."""

from dataclasses import dataclass, field

from modelport.server.bulk import IN_PLACE_FROM_BYTES
from modelport.wire.http2 import Http2Limits

__all__ = ["Http2Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Options:
    """How patient a connection is. Durations in seconds.

    Attributes:
        limits: What a client may send.
        keepalive_time_s: Silence after which the client is asked whether it lives.
        keepalive_timeout_s: How long it may take to say so.
        keepalive_without_calls: Whether it is asked, and may ask, while no call is under way.
        max_pings_without_data: How often it is asked without data in between; 0 for no limit.
        min_ping_interval_s: How long a client must wait between two pings of its own.
        max_ping_strikes: How often it may not, before it is sent away; 0 for no limit.
        max_age_s: When a connection is ended gracefully; ``None`` for never.
        max_age_grace_s: How long its calls may go on then; ``None`` for as long as they take.
        in_place_from: Bytes missing of a data frame from which they are not copied.
    """

    limits: Http2Limits = field(default_factory=Http2Limits)
    keepalive_time_s: float = 7200.0
    keepalive_timeout_s: float = 20.0
    keepalive_without_calls: bool = False
    max_pings_without_data: int = 2
    min_ping_interval_s: float = 300.0
    max_ping_strikes: int = 2
    max_age_s: float | None = None
    max_age_grace_s: float | None = None
    in_place_from: int = IN_PLACE_FROM_BYTES
