"""What is not a call: health, the schema, and documentation for people and programs."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from modelport.protocols.base import Access, Exchange, Headers, Route
from modelport.protocols.bentoml.models import ModelMethod, is_listed
from modelport.protocols.bentoml.openapi import openapi
from modelport.protocols.bentoml.page import PAGE
from modelport.protocols.bentoml.ports import EnginePort, ServedEndpoint, ServedService
from modelport.protocols.bentoml.replies import JSON_HEADERS, TEXT_HEADERS, encode_error
from modelport.wire import bentoml
from modelport.wire.bentoml import EndpointSchema, ServiceSchema

__all__ = ["System"]

_PAGE_HEADERS: Headers = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", "default-src 'self' 'unsafe-inline'"),
)


class System:
    """Answers for all services together.

    Args:
        engine: Whose models are listed beside the services.
        services: The first one gives its name to the whole.
    """

    def __init__(self, engine: EnginePort, services: Sequence[ServedService]) -> None:
        self._engine = engine
        self._services = services
        self._checks: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        """Give the routes, and those below the prefixes of services."""
        rows = [
            _get("/livez", self._livez, Access.PUBLIC),
            _get("/healthz", self._livez, Access.PUBLIC),
            _get("/readyz", self._readyz, Access.PUBLIC),
            _get("/schema.json", lambda exchange: self._schema(exchange, "")),
            _get("/docs.json", self._openapi),
            _get("/docs", _page),
        ]
        if not any(path in ("", "/") for each in self._services for path in each.mounted_paths):
            rows.append(_get("/", _page))
        for prefix in sorted({each.prefix for each in self._services if each.prefix}):
            rows += [
                _get(f"{prefix}/livez", self._livez, Access.PUBLIC),
                _get(f"{prefix}/healthz", self._livez, Access.PUBLIC),
                _get(f"{prefix}/readyz", self._readyz, Access.PUBLIC),
                _get(f"{prefix}/schema.json", self._schema_below(prefix)),
                _get(f"{prefix}/docs.json", self._openapi),
                _get(f"{prefix}/docs", _page),
            ]
        return rows

    # Health.

    def _livez(self, exchange: Exchange) -> None:
        self._check(exchange, [each.is_alive for each in self._services])

    def _readyz(self, exchange: Exchange) -> None:
        if not self._engine.is_ready(strict=True):
            _unready(exchange)
            return
        self._check(exchange, [each.is_ready for each in self._services])

    def _check(self, exchange: Exchange, checks: Sequence[Callable[[], Awaitable[bool]]]) -> None:
        if not checks:
            exchange.respond(200, TEXT_HEADERS, [b"\n"])
            return

        async def ask() -> None:
            if all(await asyncio.gather(*(check() for check in checks))):
                exchange.respond(200, TEXT_HEADERS, [b"\n"])
            else:
                _unready(exchange)

        task = asyncio.get_running_loop().create_task(ask())
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    # Schemas.

    def _schema_below(self, prefix: str) -> Callable[[Exchange], None]:
        return lambda exchange: self._schema(exchange, prefix)

    def _schema(self, exchange: Exchange, prefix: str) -> None:
        """Say what there is; below a prefix, with paths as seen from there."""
        schema = self.schema()
        if prefix:
            routes = tuple(self._below(prefix))
            paths = {each.route: False for each in routes}
            schema = ServiceSchema(schema.name, schema.description, routes, paths)
        exchange.respond(200, JSON_HEADERS, [bentoml.encode_schema(schema)])

    def _below(self, prefix: str) -> Iterator[EndpointSchema]:
        """Describe what is below a prefix: routes as seen from there, names as declared."""
        endpoints = [
            endpoint
            for service in self._services
            for endpoint in service.endpoints
            if endpoint.route.startswith(f"{prefix}/")
        ]
        counts = Counter(each.method.name for each in endpoints)
        for each in endpoints:
            own = each.method.name
            name = own if counts[own] == 1 else each.name
            # A client puts what it was started with in front of every route.
            yield _described(each, name, each.route.removeprefix(prefix))

    def schema(self) -> ServiceSchema:
        """Describe all services, and the models that are no service."""
        routes: list[EndpointSchema] = []
        paths: dict[str, bool] = {}
        models: set[str] = set()
        for service in self._services:
            for endpoint in service.endpoints:
                models.add(endpoint.model)
                routes.append(_described(endpoint, endpoint.name, endpoint.route))
            paths.update(dict.fromkeys(service.mounted_paths, True))
        taken = {each.name for each in routes}
        for deployment in self._engine.deployments():
            if deployment.name not in models | taken and is_listed(deployment):
                tensors = ModelMethod(deployment)
                name = deployment.name
                routes.append(
                    EndpointSchema(name, f"/{name}", tensors.input_schema, tensors.output_schema)
                )
        paths.update({each.route: False for each in routes})
        first = self._services[0] if self._services else None
        return ServiceSchema(
            first.name if first else "Modelport", first.doc if first else "", tuple(routes), paths
        )

    def _openapi(self, exchange: Exchange) -> None:
        services: dict[str, Any] = {
            endpoint.route: (service.name, endpoint)
            for service in self._services
            for endpoint in service.endpoints
        }
        exchange.respond(200, JSON_HEADERS, [openapi(self.schema(), services)])


def _described(endpoint: ServedEndpoint, name: str, route: str) -> EndpointSchema:
    method = endpoint.method
    return EndpointSchema(
        name,
        route,
        method.input_schema,
        method.output_schema,
        endpoint.is_task,
        bool(endpoint.max_rows),
        method.doc,
    )


def _page(exchange: Exchange) -> None:
    exchange.respond(200, _PAGE_HEADERS, [PAGE])


def _unready(exchange: Exchange) -> None:
    exchange.respond(503, TEXT_HEADERS, [b"not ready\n"])


def _get(
    pattern: str, handler: Callable[[Exchange], None], access: Access = Access.METADATA
) -> Route:
    return Route(
        method="GET",
        pattern=pattern,
        access=access,
        handler=handler,
        errors=encode_error,
        tags=frozenset({"head"}),
    )
