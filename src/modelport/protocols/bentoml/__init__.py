"""BentoML's protocol over HTTP: services, and every other model, for the clients of BentoML."""

from collections.abc import Sequence

from modelport.protocols.base import Access, Body, Route
from modelport.protocols.bentoml.call import EndpointHandler
from modelport.protocols.bentoml.meter import Meter, families_of, family_of_labels, family_of_tasks
from modelport.protocols.bentoml.models import ModelHandler
from modelport.protocols.bentoml.ports import (
    EnginePort,
    Prepared,
    ServedEndpoint,
    ServedService,
    TaskQueue,
)
from modelport.protocols.bentoml.replies import encode_error
from modelport.protocols.bentoml.system import System

__all__ = [
    "EndpointHandler",
    "EnginePort",
    "Meter",
    "Prepared",
    "ServedEndpoint",
    "ServedService",
    "TaskQueue",
    "encode_error",
    "families_of",
    "family_of_labels",
    "family_of_tasks",
    "routes",
]


def routes(
    engine: EnginePort,
    services: Sequence[ServedService],
    *,
    tasks: TaskQueue | None = None,
    max_upload_bytes: int | None = None,
    max_json_bytes: int | None = None,
    meters: list[Meter] | None = None,
) -> list[Route]:
    """Give every route.

    Args:
        engine: Runs the calls.
        services: That are served, in the order in which they were named.
        tasks: Keeps what is submitted; without it tasks can only be called.
        max_upload_bytes: Most bytes of a body with files; ``None`` for the server's limit.
        max_json_bytes: Most bytes of JSON; ``None`` likewise.
        meters: Gets the meter of every endpoint, for the page of metrics.
    """
    system = System(engine, services)
    rows = system.routes()
    for service in services:
        for endpoint in service.endpoints:
            handler = EndpointHandler(engine, endpoint, max_json_bytes)
            if meters is not None and service.has_metrics:
                meters.append(handler.meter)
            has_files = bool(endpoint.method.file_fields)
            rows.append(
                Route(
                    method="POST",
                    pattern=endpoint.route,
                    access=Access.INFERENCE,
                    handler=handler,
                    errors=encode_error,
                    body=Body.STREAM if has_files else Body.WHOLE,
                    max_body_bytes=max_upload_bytes if has_files else None,
                )
            )
            if endpoint.is_task and tasks is not None:
                rows += tasks.routes(endpoint, handler)
    if any(path == "/" for service in services for path in service.mounted_paths):
        # An application at the root answers for all that nobody else does.
        return rows
    rows.append(
        Route(
            method="POST",
            pattern="/{model}",
            access=Access.INFERENCE,
            handler=ModelHandler(engine, max_json_bytes),
            errors=encode_error,
            tags=frozenset({"fallback"}),
        )
    )
    return rows
