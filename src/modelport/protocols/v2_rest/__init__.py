"""KServe V2 (Open Inference Protocol) with Triton's extensions, over REST."""

from modelport.protocols.base import Access, Handler, Route
from modelport.protocols.v2.ports import DeploymentPort, EnginePort, IndexRow
from modelport.protocols.v2_rest.admin import (
    Admin,
    reporting,
    repository_named,
)
from modelport.protocols.v2_rest.generate import GenerateHandler
from modelport.protocols.v2_rest.infer import InferHandler
from modelport.protocols.v2_rest.options import RestOptions
from modelport.protocols.v2_rest.regions import RegionHandlers
from modelport.protocols.v2_rest.replies import encode_error
from modelport.protocols.v2_rest.settings import SettingHandlers

__all__ = [
    "DeploymentPort",
    "EnginePort",
    "IndexRow",
    "RestOptions",
    "encode_error",
    "routes",
]

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version:int}"


def routes(engine: EnginePort, options: RestOptions) -> list[Route]:
    """Give every route of the protocol.

    Args:
        engine: Answers everything.
        options: What the operator set.
    """
    admin = Admin(engine, options)
    regions = RegionHandlers(options)
    settings = SettingHandlers(engine, options)
    infer = InferHandler(engine, options)
    generate = GenerateHandler(engine, options, is_stream=False)
    stream = GenerateHandler(engine, options, is_stream=True)
    rows: list[tuple[str, str, Access, Handler]] = [
        ("GET", "/v2", Access.METADATA, admin.server_metadata),
        ("GET", "/v2/health/live", Access.PUBLIC, admin.server_live),
        ("GET", "/v2/health/ready", Access.PUBLIC, admin.server_ready),
        ("GET", "/v2/models", Access.METADATA, admin.models),
        ("GET", "/v2/models/stats", Access.STATISTICS, admin.statistics),
        ("POST", "/v2/repository/index", Access.REPOSITORY_INDEX, admin.index),
        ("POST", "/v2/repository/{repository}/index", Access.REPOSITORY_INDEX, admin.index),
        ("POST", f"{_REPOSITORY}/load", Access.MODEL_REPOSITORY, admin.load),
        ("POST", f"{_REPOSITORY}/unload", Access.MODEL_REPOSITORY, admin.unload),
        ("POST", f"{_NAMED}/load", Access.MODEL_REPOSITORY, repository_named),
        ("POST", f"{_NAMED}/unload", Access.MODEL_REPOSITORY, repository_named),
    ]
    for model in (_MODEL, _VERSION):
        rows += [
            ("GET", model, Access.METADATA, admin.model_metadata),
            ("GET", f"{model}/ready", Access.MODEL_HEALTH, admin.model_ready),
            ("GET", f"{model}/config", Access.MODEL_CONFIG, admin.model_config),
            ("GET", f"{model}/stats", Access.STATISTICS, admin.statistics),
            ("POST", f"{model}/infer", Access.INFERENCE, infer),
            ("POST", f"{model}/generate", Access.INFERENCE, generate),
            ("POST", f"{model}/generate_stream", Access.INFERENCE, stream),
        ]
    for path in ("/v2/trace/setting", f"{_MODEL}/trace/setting"):
        rows += [
            ("GET", path, Access.TRACE, settings.trace),
            ("POST", path, Access.TRACE, settings.change_trace),
        ]
    rows += [
        ("GET", "/v2/logging", Access.LOGGING, settings.log),
        ("POST", "/v2/logging", Access.LOGGING, settings.change_log),
    ]
    for memory, status, register, unregister in (
        ("/v2/systemsharedmemory", regions.status, regions.register, regions.unregister),
        (
            "/v2/cudasharedmemory",
            regions.cuda_status,
            regions.cuda_register,
            regions.cuda_unregister,
        ),
    ):
        region = f"{memory}/region/{{region}}"
        access = Access.SHARED_MEMORY
        rows += [
            ("GET", f"{memory}/status", access, status),
            ("GET", f"{region}/status", access, status),
            ("POST", f"{region}/register", access, register),
            ("POST", f"{memory}/unregister", access, unregister),
            ("POST", f"{region}/unregister", access, unregister),
        ]
    return [_route(*row) for row in rows]


def _route(method: str, pattern: str, access: Access, handler: Handler) -> Route:
    is_infer = pattern.endswith("/infer")
    return Route(
        method=method,
        pattern=pattern,
        access=access,
        handler=handler if access is Access.INFERENCE else reporting(handler),
        errors=encode_error,
        align_header="inference-header-content-length" if is_infer else "",
    )


_REPOSITORY = "/v2/repository/models/{model}"
_NAMED = "/v2/repository/{repository}/models/{model}"
