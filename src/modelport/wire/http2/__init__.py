"""HTTP/2 as bytes, for either end of a connection: frames, streams, flow control. No socket.

An :class:`Endpoint` takes what has come from the other side and calls the :class:`Stream` that
each frame is for; what is to be sent gathers in ``Endpoint.out``. There are no objects for
frames: a small call is two frames in and three out, and must not cost more than the model.

The other side is not trusted. What it can make us keep is bounded by the windows we grant and by
``Http2Limits``. What it can make us do without sending or reading anything of worth is bounded by
an allowance, which every stream and all data that it really takes make larger, and which
:meth:`Endpoint.forgive` fills again: pings, settings, resets, empty frames, windows of a byte.

Source: RFC 9113; CVE-2023-44487 (rapid reset), CVE-2024-24549 and others (CONTINUATION floods),
CVE-2019-9511 to 9518 (the floods of 2019), CVE-2025-8671 (resets that we are made to send).
"""

from modelport.wire.http2.endpoint import Endpoint
from modelport.wire.http2.frames import (
    PREFACE,
    Buffer,
    ErrorCode,
    Frame,
    Http2Broken,
    Http2Limits,
    MalformedHead,
    Setting,
)
from modelport.wire.http2.stream import Owner, Stream

__all__ = [
    "PREFACE",
    "Buffer",
    "Endpoint",
    "ErrorCode",
    "Frame",
    "Http2Broken",
    "Http2Limits",
    "MalformedHead",
    "Owner",
    "Setting",
    "Stream",
]
