"""KServe V2 (Open Inference Protocol) with Triton's extensions, over gRPC."""

from collections.abc import Callable
from functools import partial

from modelport.protocols.base import Access, Buffer, Call, Receiver, Rpc
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2.ports import EnginePort
from modelport.protocols.v2_grpc.admin import Admin
from modelport.protocols.v2_grpc.health import HealthHandlers
from modelport.protocols.v2_grpc.infer import Inferences, InferHandler
from modelport.protocols.v2_grpc.reflection import Reflection
from modelport.protocols.v2_grpc.regions import RegionHandlers
from modelport.protocols.v2_grpc.replies import error_status
from modelport.protocols.v2_grpc.settings import SettingHandlers
from modelport.protocols.v2_grpc.stream import InferStream

__all__ = ["error_status", "rpcs"]

_SERVICE = "inference.GRPCInferenceService"
_HEALTH = "grpc.health.v1.Health"
_REFLECTIONS = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
_SERVICES = (_SERVICE, _HEALTH, *_REFLECTIONS)


def rpcs(engine: EnginePort, options: V2Options) -> list[Rpc]:
    """Give every method of the protocol, of the health service and of reflection.

    Args:
        engine: Answers everything.
        options: What the operator set.
    """
    admin = Admin(engine, options)
    health = HealthHandlers(engine, options, _SERVICES)
    inferences = Inferences(engine, options)
    regions = RegionHandlers(options)
    settings = SettingHandlers(engine, options)
    memory = Access.SHARED_MEMORY
    unary: list[tuple[str, Access, Callable[[Call, Buffer], None]]] = [
        ("ServerLive", Access.PUBLIC, admin.server_live),
        ("ServerReady", Access.PUBLIC, admin.server_ready),
        ("ModelReady", Access.MODEL_HEALTH, admin.model_ready),
        ("ServerMetadata", Access.METADATA, admin.server_metadata),
        ("ModelMetadata", Access.METADATA, admin.model_metadata),
        ("ModelInfer", Access.INFERENCE, InferHandler(inferences)),
        ("ModelConfig", Access.MODEL_CONFIG, admin.model_config),
        ("ModelStatistics", Access.STATISTICS, admin.statistics),
        ("RepositoryIndex", Access.REPOSITORY_INDEX, admin.index),
        ("RepositoryModelLoad", Access.MODEL_REPOSITORY, admin.load),
        ("RepositoryModelUnload", Access.MODEL_REPOSITORY, admin.unload),
        ("TraceSetting", Access.TRACE, settings.trace),
        ("LogSettings", Access.LOGGING, settings.log),
        ("SystemSharedMemoryStatus", memory, regions.status),
        ("SystemSharedMemoryRegister", memory, regions.register),
        ("SystemSharedMemoryUnregister", memory, regions.unregister),
        ("CudaSharedMemoryStatus", memory, regions.cuda_status),
        ("CudaSharedMemoryRegister", memory, regions.cuda_register),
        ("CudaSharedMemoryUnregister", memory, regions.cuda_unregister),
    ]
    return [
        *(_row(_SERVICE, method, access, unary=handler) for method, access, handler in unary),
        _row(
            _SERVICE,
            "ModelStreamInfer",
            Access.INFERENCE,
            stream=partial(InferStream, inferences),
        ),
        _row(_HEALTH, "Check", Access.PUBLIC, unary=health.check),
        _row(_HEALTH, "Watch", Access.PUBLIC, unary=health.watch),
        *(
            _row(
                service,
                "ServerReflectionInfo",
                Access.METADATA,
                stream=partial(Reflection, _SERVICES),
            )
            for service in _REFLECTIONS
        ),
    ]


def _row(
    service: str,
    method: str,
    access: Access,
    *,
    unary: Callable[[Call, Buffer], None] | None = None,
    stream: Callable[[Call], Receiver] | None = None,
) -> Rpc:
    return Rpc(
        path=f"/{service}/{method}",
        access=access,
        errors=error_status,
        unary=unary,
        stream=stream,
    )
