"""Which models there are, how they are, what they take; and looking for changed files."""

import asyncio
import logging

from modelport.errors import INTERNAL_ERROR, ModelFailed, ModelportError, NotFound, Unsupported
from modelport.protocols.base import Exchange, Handler
from modelport.protocols.v1.ports import EnginePort
from modelport.protocols.v1.replies import asked_version, fail, not_served, respond_json
from modelport.wire import v1

__all__ = ["Admin", "no_method"]

log = logging.getLogger("modelport.http")


class Admin:
    """The handlers, over one engine."""

    def __init__(self, engine: EnginePort) -> None:
        self._engine = engine
        # Reloads under way; the loop itself keeps only weak references to its tasks.
        self._tasks: set[asyncio.Task[None]] = set()

    def models(self, exchange: Exchange) -> None:
        """Name what is served."""
        respond_json(exchange, {"models": sorted({d.name for d in self._engine.deployments()})})

    def model_status(self, exchange: Exchange) -> None:
        """Say how the versions of one model are."""
        name = exchange.params["model"]
        version = asked_version(exchange)
        rows = self._rows().get(name, [])
        asked = rows if version is None else [row for row in rows if row[0] == version]
        if not asked:
            unknown = NotFound(f"Served are: {', '.join(self._names()) or 'none'}")
            fail(exchange, not_served(self._engine, unknown, name, version, is_known=bool(rows)))
            return
        is_ready = any(row[1] == "READY" for row in asked)
        respond_json(exchange, v1.model_status(name, asked, is_ready=is_ready))

    def model_metadata(self, exchange: Exchange) -> None:
        """Say what one model takes and gives."""
        name = exchange.params["model"]
        version = asked_version(exchange)
        try:
            deployment = self._engine.resolve(name, version)
        except NotFound as exc:
            fail(exchange, not_served(self._engine, exc, name, version))
        except ModelportError as exc:
            fail(exchange, exc)
        else:
            respond_json(exchange, v1.model_metadata(deployment.config, deployment.version))

    def config(self, exchange: Exchange) -> None:
        """Say how all models are."""
        self._respond_config(exchange, 200)

    def reload(self, exchange: Exchange) -> None:
        """Load what has changed on disk, and answer when that is done."""
        task = asyncio.get_running_loop().create_task(self._reload(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self, exchange: Exchange) -> None:
        try:
            has_changed = await self._engine.refresh()
        except ModelportError as exc:
            fail(exchange, exc)
        except Exception:
            log.exception("%s could not be done", exchange.path)
            fail(exchange, ModelFailed(INTERNAL_ERROR))
        else:
            self._respond_config(exchange, 201 if has_changed else 200)

    def _respond_config(self, exchange: Exchange, status: int) -> None:
        rows = self._rows()
        respond_json(exchange, {name: v1.version_status(rows[name]) for name in rows}, status)

    def _names(self) -> list[str]:
        return sorted({deployment.name for deployment in self._engine.deployments()})

    def _rows(self) -> dict[str, list[tuple[str, str, str]]]:
        """Version, state and reason of everything that was ever to be loaded, by model."""
        rows: dict[str, list[tuple[str, str, str]]] = {}
        for row in self._engine.index():
            if row.state and not row.version:
                # It has failed before any version of it was known.
                rows.setdefault(row.name, [])
            elif row.version:
                shown = (row.version, row.state or "", row.reason or "")
                rows.setdefault(row.name, []).append(shown)
        return rows


def no_method(method: str) -> Handler:
    """Make a handler for what is known and not offered."""

    def handle(exchange: Exchange) -> None:
        fail(exchange, Unsupported(f":{method} is not offered; send the inputs to :predict"))

    return handle
