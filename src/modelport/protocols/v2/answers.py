"""What V2 says of models and the server, before it is put into JSON or protobuf."""

from collections.abc import Sequence
from typing import Any

from modelport.errors import InvalidRequest, Unavailable
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2.ports import DeploymentPort, EnginePort
from modelport.wire import v2_admin

__all__ = [
    "check_not_exiting",
    "index",
    "is_model_ready",
    "model_metadata",
    "server_metadata",
    "statistics",
]


def check_not_exiting(engine: EnginePort) -> None:
    """Refuse health checks while the process goes down.

    Raises:
        Unavailable: It does.
    """
    if engine.is_exiting:
        raise Unavailable("Server exiting")


def server_metadata(options: V2Options) -> dict[str, Any]:
    """Say what the server is."""
    return {
        "name": options.server_name,
        "version": options.server_version,
        "extensions": v2_admin.EXTENSIONS,
    }


def is_model_ready(engine: EnginePort, name: str, version: str | None) -> bool:
    """Say whether a model, or one version of it, answers.

    Raises:
        InvalidRequest: ``version`` is none.
        NotFound: There is no such model or version.
    """
    try:
        return engine.resolve(name, version).is_ready()
    except Unavailable:
        return False


def model_metadata(engine: EnginePort, name: str, version: str | None) -> dict[str, Any]:
    """Say what a model takes and gives.

    Raises:
        InvalidRequest: ``version`` is none.
        NotFound: There is no such model or version.
        Unavailable: It is not ready.
    """
    deployment = engine.resolve(name, version)
    if version is not None:
        versions = [deployment.version]
    else:
        versions = sorted(d.version for d in engine.deployments(deployment.name))
    return v2_admin.model_metadata(deployment.config, versions)


def statistics(
    engine: EnginePort, name: str | None = None, version: str | None = None
) -> dict[str, Any]:
    """Say what all models have done, or one, or one version of it.

    Raises:
        InvalidRequest: There is no such model or version.
    """
    deployments: Sequence[DeploymentPort] = engine.deployments(name)
    if name is not None and not deployments:
        raise InvalidRequest(f"requested model '{name}' is not available")
    if version is not None:
        deployments = [d for d in deployments if str(d.version) == version.lstrip("0")]
        if not deployments:
            raise InvalidRequest(
                f"requested model version is not available for model '{name}'. "
                f"Version {version[:40]} was asked for."
            )
    ordered = sorted(deployments, key=lambda d: (d.name, d.version))
    return {"model_stats": [v2_admin.statistics(d.name, d.version, d.statistics) for d in ordered]}


def index(engine: EnginePort, *, only_ready: bool) -> list[dict[str, str]]:
    """List what the repository has."""
    rows = []
    for row in engine.index():
        if only_ready and row.state != "READY":
            continue
        shown = {
            "name": row.name,
            "version": row.version,
            "state": row.state,
            "reason": row.reason,
        }
        rows.append({key: value for key, value in shown.items() if value})
    return rows
