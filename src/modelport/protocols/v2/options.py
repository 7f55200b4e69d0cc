"""What an operator can set of V2, whichever way it is spoken."""

import re
from collections.abc import Mapping

from msgspec import Struct, field

from modelport._version import __version__
from modelport.errors import InvalidRequest
from modelport.protocols.base import Exchange
from modelport.protocols.v2.ports import LogsPort, RegionsPort, TracesPort
from modelport.specs import ModelConfig
from modelport.wire.ovms_images import ImageInputs, ImageLimits

__all__ = ["V2Options"]


class V2Options(Struct, frozen=True, kw_only=True):
    """Options of the protocol.

    Attributes:
        server_name: What the server calls itself. Scripts made for Triton compare it.
        server_version: Of the server.
        is_readiness_strict: Whether one model that is not ready makes the server not ready.
        forwarded: Headers whose name it is found in become parameters of the request.
        is_ovms: Whether models that do not say it behave as under OVMS.
        images: What encoded images may grow into, where models take them.
        regions: Shared memory that clients pass tensors in; ``None`` where they may not.
        logs: The log, where it is the server's own.
        traces: What is traced, where anything can be.
    """

    server_name: str = "triton"
    server_version: str = __version__
    is_readiness_strict: bool = True
    forwarded: re.Pattern[str] | None = None
    is_ovms: bool = False
    images: ImageLimits = field(default_factory=ImageLimits)
    regions: RegionsPort | None = None
    logs: LogsPort | None = None
    traces: TracesPort | None = None

    def image_inputs(self, config: ModelConfig) -> ImageInputs | None:
        """What of a model may be sent as encoded images; ``None`` where nothing may."""
        return ImageInputs.of(config, self.images, is_ovms=self.is_ovms)

    def forwarded_of(self, exchange: Exchange) -> Mapping[str, str]:
        """The headers of a request that the model sees as parameters, with their names as sent.

        Raises:
            InvalidRequest: If one has a name that parameters of models cannot have.
        """
        return (
            self.forwarded_headers(exchange.original_headers) if self.forwarded is not None else {}
        )

    def forwarded_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers that the model sees as parameters.

        Raises:
            InvalidRequest: If one has a name that parameters of models cannot have.
        """
        if self.forwarded is None:
            return {}
        found = {name: value for name, value in headers.items() if self.forwarded.search(name)}
        for name in found:
            # In any case, since a proxy may change it.
            if name.lower() in _RESERVED or name.lower().startswith("triton_"):
                raise InvalidRequest(
                    f"Header '{name}' is reserved for Triton usage and cannot be forwarded."
                )
        return found


_RESERVED = frozenset(
    {
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "priority",
        "timeout",
        "headers",
        "binary_data_output",
    }
)
