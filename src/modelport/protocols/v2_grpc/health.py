"""``grpc.health.v1``: what load balancers and Kubernetes ask."""

import asyncio
from collections.abc import Collection

from modelport.errors import NotFound
from modelport.protocols.base import Buffer, Call
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2.ports import EnginePort
from modelport.protocols.v2_grpc.replies import end_exiting, reply
from modelport.wire import v2_grpc_admin as wire
from modelport.wire.proto import health_pb2 as pb

__all__ = ["HealthHandlers"]

LOOK_EVERY_S = 1.0
"""How often a watched state is looked at; nobody is told of changes, only asked."""

Status = pb.HealthCheckResponse.ServingStatus


class HealthHandlers:
    """The handlers, over one engine.

    Args:
        engine: Says whether it is ready.
        options: Whether readiness is strict.
        services: Names that a client may ask for, beside "" for all.
    """

    def __init__(self, engine: EnginePort, options: V2Options, services: Collection[str]) -> None:
        self._engine = engine
        self._options = options
        self._services = frozenset((*services, ""))

    def check(self, call: Call, data: Buffer) -> None:
        """Say whether requests are taken.

        Raises:
            NotFound: There is no such service.
        """
        service = wire.decode(pb.HealthCheckRequest, data).service
        if service not in self._services:
            names = ", ".join(sorted(self._services - {""}))
            raise NotFound(f"unknown service '{service[:80]}'; there are {names}")
        reply(call, _encoded(self._status()))

    def watch(self, call: Call, data: Buffer) -> None:
        """Say it now, and again whenever it changes, until the client goes away."""
        service = wire.decode(pb.HealthCheckRequest, data).service
        _Watch(self, call, service in self._services).look()

    def status(self, *, is_known: bool) -> Status:
        """What a watch is told."""
        return self._status() if is_known else pb.HealthCheckResponse.SERVICE_UNKNOWN

    def _status(self) -> Status:
        is_ready = self._engine.is_ready(strict=self._options.is_readiness_strict)
        return pb.HealthCheckResponse.SERVING if is_ready else pb.HealthCheckResponse.NOT_SERVING


class _Watch:
    """One client that watches."""

    def __init__(self, handlers: HealthHandlers, call: Call, is_known: bool) -> None:
        self._handlers = handlers
        self._call = call
        self._is_known = is_known
        self._told: Status | None = None
        self._timer: asyncio.TimerHandle | None = None
        call.on_cancel = self._stop
        call.on_drain = self._drain

    def look(self) -> None:
        """Tell the client what has changed, and look again later."""
        status = self._handlers.status(is_known=self._is_known)
        if status != self._told:
            self._told = status
            self._call.send([_encoded(status)])
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOK_EVERY_S, self.look)

    def _drain(self) -> None:
        # Not serving any more: that is said before the end.
        self._stop()
        self.look()
        self._stop()
        end_exiting(self._call)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _encoded(status: Status) -> bytes:
    return pb.HealthCheckResponse(status=status).SerializeToString()
