"""What an operator can set of the V2 REST protocol."""

from dataclasses import dataclass, field

from modelport.protocols.v2.options import V2Options
from modelport.wire.v2_rest import CodecOptions

__all__ = ["RestOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestOptions(V2Options):
    """Options of V2 over REST.

    Attributes:
        codec: What bodies are accepted.
        max_body_bytes: Of a body after decompression.
    """

    codec: CodecOptions = field(default_factory=CodecOptions)
    max_body_bytes: int = 2**31 - 1
