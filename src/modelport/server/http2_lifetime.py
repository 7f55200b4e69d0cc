"""How long an HTTP/2 connection lives: whether its client is there, idle, too eager or too old.

Knows no socket: it reads and writes the endpoint, and says when the connection is to end.
"""

import enum
import random

from modelport.server.http import HttpOptions
from modelport.server.http2_options import Http2Options
from modelport.wire.http2 import Endpoint, ErrorCode, Http2Broken

__all__ = ["End", "Lifetime"]

GOODBYE_S = 1.0
"""How long a client may take to hear that it should open no more streams."""
IDLE_PING_INTERVAL_S = 7200.0
"""How long a client without a call must wait between two pings, as gRPC's own servers have it."""


class End(enum.Enum):
    """How a connection is to be ended."""

    CLOSE = "close"
    """What the endpoint wants to send is sent first."""
    ABORT = "abort"
    """Nobody is there to read it."""


class Lifetime:
    """What decides how long one connection lives. Times are nanoseconds of one clock.

    Args:
        endpoint: Of the connection; goodbyes and pings are written to it.
        options: When a client is asked, how often it may ask, and how old a connection gets.
        patience: When a connection is idle, and a frame too late.
        now_ns: When the connection began.
    """

    def __init__(
        self, endpoint: Endpoint, options: Http2Options, patience: HttpOptions, now_ns: int
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._patience = patience
        self._begun_ns = self._active_ns = self._left_ns = now_ns
        self._age_ns = _age_ns(options)
        self._is_leaving = False
        self._has_left = False
        self._last_stream_seen = 0
        self._pinged_ns = 0
        self._pings_without_data = 0
        self._ping_seen_ns = 0
        self._ping_strikes = 0
        self._done_at_ping = (0, 0)

    def check(self, now_ns: int, heard_ns: int) -> End | None:
        """Ask a silent client whether it lives, and find out whether the connection ends.

        Args:
            now_ns: The time; to be called about once a second.
            heard_ns: When something came last.
        """
        endpoint, patience = self._endpoint, self._patience
        heard_s = (now_ns - heard_ns) / 1e9
        if not endpoint.is_between_frames and heard_s > patience.body_timeout_s:
            endpoint.go_away(ErrorCode.PROTOCOL_ERROR, "a frame did not come whole in time")
            return End.CLOSE
        end = None
        if endpoint.streams or endpoint.last_stream_id != self._last_stream_seen:
            # Calls that are answered at once are over before anybody looks.
            self._last_stream_seen = endpoint.last_stream_id
            self._active_ns = now_ns
        elif (now_ns - self._active_ns) / 1e9 > patience.idle_timeout_s:
            end = self.leave(now_ns)
        if now_ns - self._begun_ns > self._age_ns:
            end = end or self.leave(now_ns)
            grace_s = self._options.max_age_grace_s
            if grace_s is not None and now_ns - self._begun_ns - self._age_ns > grace_s * 1e9:
                endpoint.go_away(ErrorCode.NO_ERROR, "max_age")
                return End.CLOSE
        end = end or self._keep_alive(now_ns, heard_ns)
        if end is None and self._is_leaving:
            end = self.leave(now_ns)
        return end

    def _keep_alive(self, now_ns: int, heard_ns: int) -> End | None:
        options = self._options
        if self._pinged_ns:
            if heard_ns > self._pinged_ns:
                self._pinged_ns = 0  # whoever sends anything lives
            elif now_ns - self._pinged_ns > options.keepalive_timeout_s * 1e9:
                return End.ABORT
            return None
        heard_s = (now_ns - heard_ns) / 1e9
        if heard_s < options.keepalive_time_s or self._is_leaving:
            self._pings_without_data = 0 if heard_s < 1 else self._pings_without_data
            return None
        if not self._endpoint.streams and not options.keepalive_without_calls:
            return None
        most = options.max_pings_without_data
        if most and self._pings_without_data >= most and not self._endpoint.streams:
            return None
        self._pings_without_data += 1
        self._pinged_ns = now_ns
        self._endpoint.ping(b"keepaliv")
        return None

    def pinged(self, now_ns: int) -> None:
        """The client asks whether we live: not more often than it may.

        Raises:
            Http2Broken: It does so too often.
        """
        endpoint, options = self._endpoint, self._options
        done = (endpoint.data_frames_sent, endpoint.last_stream_id)
        if done != self._done_at_ping:
            # After data anybody may ask; that is how clients measure the path. And after a call:
            # gRPC's own servers count the fields of an answer as data, which an error has alone.
            self._done_at_ping = done
            self._ping_strikes = 0
            self._ping_seen_ns = 0
            return
        least_s = options.min_ping_interval_s
        if not endpoint.streams and not options.keepalive_without_calls:
            least_s = max(least_s, IDLE_PING_INTERVAL_S)
        is_early = self._ping_seen_ns and now_ns - self._ping_seen_ns < least_s * 1e9
        self._ping_seen_ns = now_ns
        if is_early and options.max_ping_strikes:
            self._ping_strikes += 1
            if self._ping_strikes > options.max_ping_strikes:
                # Clients of gRPC know this text and wait longer the next time.
                raise Http2Broken(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def ponged(self) -> End | None:
        """The client lives, and has heard what was said before it was asked."""
        self._pinged_ns = 0
        if self._is_leaving and not self._has_left:
            return self._say_goodbye()
        return None

    def leave(self, now_ns: int) -> End | None:
        """End the connection without a loss: announce it, wait, take nothing new, finish."""
        endpoint = self._endpoint
        if not self._is_leaving:
            self._is_leaving = True
            self._left_ns = now_ns
            endpoint.go_away(is_final=False)
            endpoint.ping(b"goodbye.")
        elif not self._has_left and now_ns - self._left_ns > GOODBYE_S * 1e9:
            return self._say_goodbye()
        elif self._has_left and not endpoint.streams and not endpoint.queued_bytes:
            return End.CLOSE
        return None

    def _say_goodbye(self) -> End | None:
        self._has_left = True
        self._endpoint.go_away()
        return None if self._endpoint.streams else End.CLOSE


def _age_ns(options: Http2Options) -> float:
    if options.max_age_s is None:
        return float("inf")
    # Connections that were opened together should not be opened anew together.
    return options.max_age_s * 1e9 * random.uniform(0.9, 1.1)
