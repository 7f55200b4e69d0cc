"""What operators' programs ask of a server: for now, its metrics."""

from modelport.errors import Kind, ModelportError
from modelport.protocols.base import Access, Exchange, Headers, Reply, Route
from modelport.protocols.ops.metrics import DeploymentPort, EnginePort, OpsOptions, render
from modelport.wire.prometheus import CONTENT_TYPE

__all__ = ["DeploymentPort", "EnginePort", "OpsOptions", "encode_error", "routes"]


def routes(engine: EnginePort, options: OpsOptions) -> list[Route]:
    """Give every route, for the main port and for one that has nothing else.

    Args:
        engine: Whose models are told of.
        options: What the operator set.
    """

    def metrics(exchange: Exchange) -> None:
        exchange.respond(200, _PAGE_HEADERS, [render(engine.deployments(), options)])

    return [
        Route(
            method="GET",
            pattern="/metrics",
            access=Access.METRICS,
            handler=metrics,
            errors=encode_error,
        )
    ]


def encode_error(error: ModelportError) -> Reply:
    """Say an error as a line of text: what reads these routes shows the body as it is."""
    return Reply(_STATUS.get(error.kind, 500), _TEXT_HEADERS, [f"{error}\n".encode()])


_PAGE_HEADERS: Headers = (("Content-Type", CONTENT_TYPE),)
_TEXT_HEADERS: Headers = (("Content-Type", "text/plain; charset=utf-8"),)

# No route here does more than read: other kinds than those of the door are our own fault.
_STATUS: dict[Kind, int] = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.TOO_LARGE: 413,
    Kind.OVERLOADED: 503,
    Kind.UNAVAILABLE: 503,
}
