"""What a person sees when the server is ready: where it listens and calls to paste."""

import json
import os
import sys
from pathlib import Path

from modelport._version import __version__
from modelport.engine.engine import Engine
from modelport.engine.pipeline import Served
from modelport.server.settings import Settings

__all__ = ["greeting"]

MOST_MODELS = 12
MOST_CALLS = 4


def greeting(
    engine: Engine, addresses: dict[str, list[tuple[str, int]]], settings: Settings
) -> str:
    """Say what is served where, and how to call it."""
    scheme = "https" if settings.tls_cert else "http"
    urls = [f"{scheme}://{_host(host)}:{port}" for host, port in addresses["http"]]
    metrics = [f"{scheme}://{_host(host)}:{port}/metrics" for host, port in addresses["metrics"]]
    served = engine.deployments()
    lines = [f"Modelport {__version__} is ready" + (f" on {', '.join(urls)}" if urls else "")]
    others = [f"gRPC: {_host(host)}:{port}" for host, port in addresses.get("grpc", [])]
    others += [f"metrics: {url}" for url in metrics]
    if others:
        lines[0] += f" ({', '.join(others)})"
    names = sorted({deployment.name for deployment in served})
    shown = ", ".join(names[:MOST_MODELS]) + (", ..." if len(names) > MOST_MODELS else "")
    lines.append(f"  models: {shown or _NO_MODELS[settings.model_control_mode]}")
    if urls:
        base = urls[0]
        lines.append("  try:")
        lines.append(f"    curl {base}/v2/health/ready")
        key = ' -H "Authorization: Bearer $MODELPORT_API_KEY"' if settings.api_key else ""
        lines += [f"    {call}{key}" for call in _calls(base, served)]
        lines.append(f"    {_command(sys.argv[0])} models --url {base}")
    return "\n".join(lines)


def _command(started_as: str) -> str:
    """How to call our command line from here: as the server was, unless the name alone will do."""
    path = Path(started_as)
    if path.name == "modelport" and str(path.parent) not in os.get_exec_path():
        return started_as
    return "modelport"


def _calls(base: str, served: list[Served]) -> list[str]:
    """Write calls of different kinds: one model for each set of datatypes, the simplest first."""
    calls: dict[tuple[str, ...], str] = {}
    steps = {step for deployment in served for step in _step_names(deployment)}
    for deployment in sorted(served, key=_simplicity):
        kind = tuple(sorted(entry.datatype.name for entry in deployment.config.input))
        body = _example(deployment) if deployment.name not in steps else None
        if body is not None and kind not in calls:
            text = json.dumps(body, separators=(",", ":"))
            calls[kind] = f"curl {base}/v2/models/{deployment.name}/infer -d '{text}'"
    return list(calls.values())[:MOST_CALLS]


def _step_names(deployment: Served) -> list[str]:
    """Models of an ensemble: they are called through it."""
    scheduling = deployment.config.ensemble_scheduling
    return [step.model_name for step in scheduling.step] if scheduling is not None else []


def _simplicity(deployment: Served) -> tuple[int, str]:
    return len(deployment.config.input), deployment.name


def _example(deployment: Served) -> dict[str, object] | None:
    """A request that the model takes, unless that would be long or cannot be guessed."""
    config = deployment.config
    if deployment.is_decoupled or config.ensemble_scheduling is not None:
        return None
    inputs = []
    for entry in config.input:
        dims = [1 if dim == -1 else dim for dim in entry.dims]
        count = 1
        for dim in dims:
            count *= dim
        if count > 8 or sum(dim == -1 for dim in entry.dims) > 1:
            return None
        shape = [1, *dims] if config.max_batch_size > 0 else dims
        value: object = _VALUES.get(entry.datatype.name, 1)
        inputs.append(
            {
                "name": entry.name,
                "datatype": entry.datatype.name,
                "shape": shape,
                "data": [value] * count,
            }
        )
    return {"inputs": inputs}


def _host(host: str) -> str:
    shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1") else host
    return f"[{shown}]" if ":" in shown else shown


_NO_MODELS = {
    "none": "none; add or mend some, and start again",
    "explicit": "none yet; load one with POST /v2/repository/models/NAME/load",
    "poll": "none yet; add some, and they are found",
}
_VALUES: dict[str, object] = {"BYTES": "I love it", "BOOL": True, "FP32": 1.5, "FP64": 1.5}
