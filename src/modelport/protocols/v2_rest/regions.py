"""Registering shared memory over V2 REST."""

from modelport.protocols.base import Exchange
from modelport.protocols.v2 import shared_memory
from modelport.protocols.v2_rest.options import RestOptions
from modelport.protocols.v2_rest.replies import respond_empty, respond_json
from modelport.wire.v2_regions import decode_cuda_registration, decode_registration

__all__ = ["RegionHandlers"]


class RegionHandlers:
    """The handlers; errors that they raise are the answer."""

    def __init__(self, options: RestOptions) -> None:
        self._regions = options.regions

    def status(self, exchange: Exchange) -> None:
        """Say which regions are registered."""
        name = exchange.params.get("region")
        respond_json(exchange, shared_memory.status(self._regions, name))

    def register(self, exchange: Exchange) -> None:
        """Register a region."""
        regions = shared_memory.allowed(self._regions)
        asked = decode_registration(exchange.body)
        regions.register(exchange.params["region"], asked.key, asked.offset, asked.byte_size)
        respond_empty(exchange)

    def unregister(self, exchange: Exchange) -> None:
        """Forget a region, or all."""
        shared_memory.unregister(self._regions, exchange.params.get("region"))
        respond_empty(exchange)

    def cuda_status(self, exchange: Exchange) -> None:
        """Say which regions of GPU memory are registered."""
        respond_json(exchange, shared_memory.cuda_status(exchange.params.get("region")))

    def cuda_register(self, exchange: Exchange) -> None:
        """Refuse to register GPU memory."""
        shared_memory.allowed(self._regions)
        decode_cuda_registration(exchange.body)
        shared_memory.refuse_cuda(exchange.params["region"])

    def cuda_unregister(self, exchange: Exchange) -> None:
        """Forget regions of GPU memory: there are none."""
        respond_empty(exchange)
