"""What HTTP/2 and gRPC need, put together when the first client speaks them.

Beside :mod:`modelport.server.build` because of what it imports: a server that nobody asks over
gRPC starts sooner and is smaller without it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from modelport.clock import Clock
from modelport.protocols import v2_grpc
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2.ports import EnginePort
from modelport.server.access import AccessDoor
from modelport.server.deadlines import Deadlines
from modelport.server.grpc import GrpcOptions, GrpcServer
from modelport.server.http import HttpServer
from modelport.server.http2_options import Http2Options
from modelport.server.http2_server import Http2Server
from modelport.server.settings import Settings
from modelport.wire.http2 import Http2Limits

__all__ = ["http2_servers"]

_LEVEL_BY_NAME = {"none": None, "low": 1, "medium": 6, "high": 9}


def http2_servers(
    engine: EnginePort,
    settings: Settings,
    options: V2Options,
    clock: Clock,
    *,
    calling: Sequence[HttpServer],
    plain: Sequence[HttpServer],
) -> Mapping[HttpServer, Callable[[], asyncio.Protocol]]:
    """Give what makes the protocol of a connection that begins as HTTP/2 does, by its listener.

    Args:
        engine: Answers calls.
        settings: Limits and patience.
        options: Of the V2 protocol.
        clock: For deadlines.
        calling: Listeners that answer gRPC as well.
        plain: Those that do not.
    """
    rpcs = v2_grpc.rpcs(engine, options)
    door = AccessDoor.for_grpc(settings)
    deadlines = Deadlines(clock)
    grpc_options = GrpcOptions(
        max_message_bytes=settings.grpc_max_input_size,
        compression_level=_LEVEL_BY_NAME[settings.grpc_infer_response_compression_level],
    )
    patience = _patience(settings)
    servers: dict[HttpServer, Callable[[], asyncio.Protocol]] = {}
    for listener in calling:
        calls = GrpcServer(rpcs, door, listener, deadlines, grpc_options)
        servers[listener] = Http2Server(listener, calls, patience)
    for listener in plain:
        servers[listener] = Http2Server(listener, None, patience)
    return servers


def _patience(settings: Settings) -> Http2Options:
    age, grace = settings.grpc_max_connection_age, settings.grpc_max_connection_age_grace
    return Http2Options(
        limits=Http2Limits(
            block_bytes=settings.max_header_bytes, list_bytes=settings.max_header_bytes
        ),
        keepalive_time_s=settings.grpc_keepalive_time / 1000,
        keepalive_timeout_s=settings.grpc_keepalive_timeout / 1000,
        keepalive_without_calls=settings.grpc_keepalive_permit_without_calls,
        max_pings_without_data=settings.grpc_http2_max_pings_without_data,
        min_ping_interval_s=settings.grpc_http2_min_recv_ping_interval_without_data / 1000,
        max_ping_strikes=settings.grpc_http2_max_ping_strikes,
        max_age_s=None if age is None else age / 1000,
        max_age_grace_s=None if grace is None else grace / 1000,
    )
