"""Protocols that are imported when somebody speaks them first.

A server that is asked over V2 REST alone, as most are, is ready sooner and smaller without the
others. Paths have to be known from the start, because they are in one table with all others; so
the rows stand here, and a test holds them to be those of the protocol.
"""

from collections.abc import Callable, Sequence
from functools import partial

from modelport.errors import ModelportError
from modelport.protocols.base import Access, Exchange, Reply, Route

__all__ = ["BENTOML_ROWS", "OPS_ROWS", "V1_ROWS", "Row", "routes_later"]

Row = tuple[str, str, Access, *tuple[str, ...]]
"""Method, pattern, access, and the tags of a route."""

BENTOML_ROWS: Sequence[Row] = (
    ("GET", "/livez", Access.PUBLIC, "head"),
    ("GET", "/healthz", Access.PUBLIC, "head"),
    ("GET", "/readyz", Access.PUBLIC, "head"),
    ("GET", "/schema.json", Access.METADATA, "head"),
    ("GET", "/docs.json", Access.METADATA, "head"),
    ("GET", "/docs", Access.METADATA, "head"),
    ("GET", "/", Access.METADATA, "head"),
    ("POST", "/{model}", Access.INFERENCE, "fallback"),
)
"""Of a server without services: its models, for BentoML's clients."""

OPS_ROWS: Sequence[Row] = (("GET", "/metrics", Access.METRICS),)

V1_ROWS: Sequence[Row] = (
    ("GET", "/v1/models", Access.METADATA),
    ("GET", "/v1/config", Access.REPOSITORY_INDEX),
    ("POST", "/v1/config/reload", Access.MODEL_REPOSITORY),
    *(
        row
        for model in ("/v1/models/{model}", "/v1/models/{model}/versions/{version:int}")
        for row in (
            ("GET", model, Access.MODEL_HEALTH),
            ("GET", f"{model}/metadata", Access.METADATA),
            ("POST", f"{model}:predict", Access.INFERENCE),
            ("POST", f"{model}:explain", Access.INFERENCE),
            ("POST", f"{model}:classify", Access.INFERENCE),
            ("POST", f"{model}:regress", Access.INFERENCE),
        )
    ),
)


def routes_later(rows: Sequence[Row], load: Callable[[], Sequence[Route]]) -> list[Route]:
    """Give routes for these rows.

    Args:
        rows: What is known of each from the start.
        load: Imports the protocol and gives its routes, which are these; called once.
    """
    protocol = _Protocol(load)
    return [
        Route(
            method=method,
            pattern=pattern,
            access=access,
            handler=partial(protocol.handle, method, pattern),
            errors=partial(protocol.refuse, method, pattern),
            tags=frozenset(tags),
        )
        for method, pattern, access, *tags in rows
    ]


class _Protocol:
    def __init__(self, load: Callable[[], Sequence[Route]]) -> None:
        self._load = load
        self._routes: dict[tuple[str, str], Route] = {}

    def handle(self, method: str, pattern: str, exchange: Exchange) -> None:
        self._find(method, pattern).handler(exchange)

    def refuse(self, method: str, pattern: str, error: ModelportError) -> Reply:
        return self._find(method, pattern).errors(error)

    def _find(self, method: str, pattern: str) -> Route:
        if not self._routes:
            self._routes = {(route.method, route.pattern): route for route in self._load()}
        return self._routes[method, pattern]
