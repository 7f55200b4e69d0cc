"""TensorFlow Serving's REST API as OVMS has it, and KServe's V1, which share their paths."""

from modelport.protocols.base import Access, Handler, Route
from modelport.protocols.v1.admin import Admin, no_method
from modelport.protocols.v1.ports import EnginePort
from modelport.protocols.v1.predict import PredictHandler
from modelport.protocols.v1.replies import V1Options, encode_error

__all__ = ["EnginePort", "V1Options", "encode_error", "routes"]

_MODEL = "/v1/models/{model}"
_VERSION = "/v1/models/{model}/versions/{version:int}"


def routes(engine: EnginePort, options: V1Options) -> list[Route]:
    """Give every route of the protocol.

    Args:
        engine: Answers everything.
        options: What the operator set.
    """
    admin = Admin(engine)
    predict = PredictHandler(engine, options)
    rows: list[tuple[str, str, Access, Handler]] = [
        ("GET", "/v1/models", Access.METADATA, admin.models),
        ("GET", "/v1/config", Access.REPOSITORY_INDEX, admin.config),
        ("POST", "/v1/config/reload", Access.MODEL_REPOSITORY, admin.reload),
    ]
    for model in (_MODEL, _VERSION):
        rows += [
            ("GET", model, Access.MODEL_HEALTH, admin.model_status),
            ("GET", f"{model}/metadata", Access.METADATA, admin.model_metadata),
            ("POST", f"{model}:predict", Access.INFERENCE, predict),
        ]
        rows += [
            ("POST", f"{model}:{method}", Access.INFERENCE, no_method(method))
            for method in ("explain", "classify", "regress")
        ]
    return [
        Route(method=method, pattern=pattern, access=access, handler=handler, errors=encode_error)
        for method, pattern, access, handler in rows
    ]
