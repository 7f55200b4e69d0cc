"""Health, metadata, configuration, statistics and the model repository over V2 REST."""

import asyncio
import logging
from collections.abc import Coroutine

from modelport.errors import (
    INTERNAL_ERROR,
    InvalidRequest,
    ModelFailed,
    ModelportError,
    Unsupported,
)
from modelport.protocols.base import Exchange, Handler
from modelport.protocols.threads import MOST_ON_LOOP, off_loop
from modelport.protocols.v2 import answers
from modelport.protocols.v2.ports import EnginePort
from modelport.protocols.v2_rest.options import RestOptions
from modelport.protocols.v2_rest.replies import JSON_HEADERS, fail, respond_empty, respond_json
from modelport.wire import v2_admin

__all__ = [
    "Admin",
    "reporting",
    "repository_named",
]

log = logging.getLogger("modelport.http")


def reporting(handler: Handler) -> Handler:
    """Make errors that a handler raises its answer."""

    def handle(exchange: Exchange) -> None:
        try:
            handler(exchange)
        except ModelportError as exc:
            fail(exchange, exc)

    return handle


class Admin:
    """The handlers, over one engine."""

    def __init__(self, engine: EnginePort, options: RestOptions) -> None:
        self._engine = engine
        self._options = options
        self._most_depth = options.codec.max_json_depth
        # Loads under way; the loop itself keeps only weak references to its tasks.
        self._tasks: set[asyncio.Task[None]] = set()

    def server_live(self, exchange: Exchange) -> None:
        """Say whether the server can answer, and none of its worker processes hangs."""
        answers.check_not_exiting(self._engine)
        is_live = self._engine.is_live()
        respond_json(exchange, {"live": is_live}, 200 if is_live else 400)

    def server_ready(self, exchange: Exchange) -> None:
        """Say whether what should be served is."""
        answers.check_not_exiting(self._engine)
        is_ready = self._engine.is_ready(strict=self._options.is_readiness_strict)
        respond_json(exchange, {"ready": is_ready}, 200 if is_ready else 400)

    def server_metadata(self, exchange: Exchange) -> None:
        """Say what the server is."""
        respond_json(exchange, answers.server_metadata(self._options))

    def models(self, exchange: Exchange) -> None:
        """Name what is served, as KServe does."""
        respond_json(exchange, {"models": sorted({d.name for d in self._engine.deployments()})})

    def model_ready(self, exchange: Exchange) -> None:
        """Say whether a model, or one version of it, answers."""
        name = exchange.params["model"]
        if not answers.is_model_ready(self._engine, name, exchange.params.get("version")):
            raise InvalidRequest("Model version not ready")
        respond_json(exchange, {"name": name, "ready": True})

    def model_metadata(self, exchange: Exchange) -> None:
        """Say what a model takes and gives."""
        params = exchange.params
        metadata = answers.model_metadata(self._engine, params["model"], params.get("version"))
        respond_json(exchange, metadata)

    def model_config(self, exchange: Exchange) -> None:
        """Give a model's configuration, completed."""
        params = exchange.params
        deployment = self._engine.resolve(params["model"], params.get("version"))
        exchange.respond(200, JSON_HEADERS, [deployment.config_json.encode()])

    def statistics(self, exchange: Exchange) -> None:
        """Say what all models have done, or one, or one version of it."""
        params = exchange.params
        counted = answers.statistics(self._engine, params.get("model"), params.get("version"))
        respond_json(exchange, counted)

    def index(self, exchange: Exchange) -> None:
        """List what the repository has."""
        only_ready = v2_admin.decode_index_request(exchange.body, self._most_depth)
        respond_json(exchange, answers.index(self._engine, only_ready=only_ready))

    def load(self, exchange: Exchange) -> None:
        """Load a model, and answer when that is done."""
        name = exchange.params["model"]
        body = exchange.body

        def load(request: v2_admin.LoadRequest) -> None:
            files = request.files or None
            self._start(exchange, self._engine.load(name, config=request.config, files=files))

        if len(body) > MOST_ON_LOOP:
            # A whole model may be in it.
            off_loop(
                exchange,
                lambda: v2_admin.decode_load_request(body, name, self._most_depth),
                load,
                fail,
            )
        else:
            load(v2_admin.decode_load_request(body, name, self._most_depth))

    def unload(self, exchange: Exchange) -> None:
        """Take a model out of service."""
        name = exchange.params["model"]
        dependents = v2_admin.decode_unload_request(exchange.body, self._most_depth)
        self._start(exchange, self._engine.unload(name, unload_dependents=dependents))

    def _start(self, exchange: Exchange, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(_answer(exchange, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _answer(exchange: Exchange, work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except ModelportError as exc:
        fail(exchange, exc)
    except Exception:
        log.exception("%s could not be done", exchange.path)
        fail(exchange, ModelFailed(INTERNAL_ERROR))
    else:
        respond_empty(exchange)


def repository_named(exchange: Exchange) -> None:
    """Refuse to load from one of several repositories: nobody could ever name one."""
    raise Unsupported(
        "'repository_name' specification is not supported. Leave "
        f"'{exchange.params['repository']}' out of the path."
    )
