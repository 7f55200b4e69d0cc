"""Health, metadata, configuration, statistics and the model repository over V2 gRPC."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from modelport.errors import INTERNAL_ERROR, ModelFailed, ModelportError, NotFound
from modelport.protocols.base import Buffer, Call
from modelport.protocols.v2 import answers
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2.ports import EnginePort
from modelport.protocols.v2_grpc.replies import fail, reply
from modelport.wire import v2_grpc_admin as wire
from modelport.wire.proto import grpc_service_pb2 as pb

__all__ = ["Admin"]

log = logging.getLogger("modelport.grpc")

Unary = Callable[[Call, Buffer], None]


class Admin:
    """The handlers, over one engine."""

    def __init__(self, engine: EnginePort, options: V2Options) -> None:
        self._engine = engine
        self._options = options
        # Loads under way; the loop itself keeps only weak references to its tasks.
        self._tasks: set[asyncio.Task[None]] = set()

    def server_live(self, call: Call, data: Buffer) -> None:
        """Say whether the server can answer, and none of its worker processes hangs."""
        answers.check_not_exiting(self._engine)
        reply(call, pb.ServerLiveResponse(live=self._engine.is_live()).SerializeToString())

    def server_ready(self, call: Call, data: Buffer) -> None:
        """Say whether what should be served is."""
        answers.check_not_exiting(self._engine)
        is_ready = self._engine.is_ready(strict=self._options.is_readiness_strict)
        reply(call, pb.ServerReadyResponse(ready=is_ready).SerializeToString())

    def model_ready(self, call: Call, data: Buffer) -> None:
        """Say whether a model, or one version of it, answers; one that is not known does not."""
        message = wire.decode(pb.ModelReadyRequest, data)
        try:
            is_ready = answers.is_model_ready(self._engine, message.name, message.version or None)
        except NotFound:
            # Newer Tritons answer NOT_FOUND, which their own client raises as an error.
            is_ready = False
        reply(call, pb.ModelReadyResponse(ready=is_ready).SerializeToString())

    def server_metadata(self, call: Call, data: Buffer) -> None:
        """Say what the server is."""
        metadata = answers.server_metadata(self._options)
        reply(call, wire.encode(pb.ServerMetadataResponse, metadata))

    def model_metadata(self, call: Call, data: Buffer) -> None:
        """Say what a model takes and gives."""
        message = wire.decode(pb.ModelMetadataRequest, data)
        metadata = answers.model_metadata(self._engine, message.name, message.version or None)
        reply(call, wire.encode(pb.ModelMetadataResponse, metadata))

    def model_config(self, call: Call, data: Buffer) -> None:
        """Give a model's configuration, completed."""
        message = wire.decode(pb.ModelConfigRequest, data)
        deployment = self._engine.resolve(message.name, message.version or None)
        reply(call, wire.encode_model_config(deployment.config))

    def statistics(self, call: Call, data: Buffer) -> None:
        """Say what all models have done, or one, or one version of it."""
        message = wire.decode(pb.ModelStatisticsRequest, data)
        counted = answers.statistics(self._engine, message.name or None, message.version or None)
        reply(call, wire.encode(pb.ModelStatisticsResponse, counted))

    def index(self, call: Call, data: Buffer) -> None:
        """List what the repository has."""
        only_ready = wire.decode_index_request(data)
        reply(call, wire.encode_index(answers.index(self._engine, only_ready=only_ready)))

    def load(self, call: Call, data: Buffer) -> None:
        """Load a model, and answer when that is done."""
        model, asked = wire.decode_load_request(data)
        files = asked.files or None
        self._start(call, self._engine.load(model, config=asked.config, files=files))

    def unload(self, call: Call, data: Buffer) -> None:
        """Take a model out of service."""
        model, dependents = wire.decode_unload_request(data)
        self._start(call, self._engine.unload(model, unload_dependents=dependents))

    def _start(self, call: Call, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(_answer(call, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _answer(call: Call, work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except ModelportError as exc:
        fail(call, exc)
    except Exception:
        log.exception("a load or unload that was asked for by gRPC could not be done")
        fail(call, ModelFailed(INTERNAL_ERROR))
    else:
        reply(call, b"")
