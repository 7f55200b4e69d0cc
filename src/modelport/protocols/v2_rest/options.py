"""What an operator can set of the V2 REST protocol."""

from msgspec import field

from modelport.protocols.v2.options import V2Options
from modelport.wire.v2_rest import CodecOptions

__all__ = ["RestOptions"]


class RestOptions(V2Options, frozen=True, kw_only=True):
    """Options of V2 over REST.

    Attributes:
        codec: What bodies are accepted.
        max_body_bytes: Of a body after decompression.
    """

    codec: CodecOptions = field(default_factory=CodecOptions)
    max_body_bytes: int = 2**31 - 1
