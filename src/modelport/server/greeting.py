"""What a person sees when the server is ready: where it listens and calls to paste."""

import json

from modelport._version import __version__
from modelport.engine.engine import Engine, Served
from modelport.server.settings import Settings

__all__ = ["greeting"]

MOST_MODELS = 12


def greeting(
    engine: Engine, addresses: dict[str, list[tuple[str, int]]], settings: Settings
) -> str:
    """Say what is served where, and how to call it."""
    scheme = "https" if settings.tls_cert else "http"
    urls = [f"{scheme}://{_host(host)}:{port}" for host, port in addresses["http"]]
    metrics = [f"{scheme}://{_host(host)}:{port}/metrics" for host, port in addresses["metrics"]]
    served = engine.deployments()
    lines = [f"Modelport {__version__} is ready on {', '.join(urls)}"]
    if metrics:
        lines[0] += f" (metrics: {', '.join(metrics)})"
    names = sorted({deployment.name for deployment in served})
    shown = ", ".join(names[:MOST_MODELS]) + (", ..." if len(names) > MOST_MODELS else "")
    lines.append(
        f"  models: {shown or 'none yet; load one with POST /v2/repository/models/NAME/load'}"
    )
    if urls:
        base = urls[0]
        lines.append("  try:")
        lines.append(f"    curl {base}/v2/health/ready")
        lines += [f"    {call}" for call in _calls(base, served)]
        lines.append(f"    modelport models --url {base}")
    return "\n".join(lines)


def _calls(base: str, served: list[Served]) -> list[str]:
    calls = []
    for deployment in sorted(served, key=_simplicity):
        body = _example(deployment)
        if body is not None:
            text = json.dumps(body, separators=(",", ":"))
            calls.append(f"curl {base}/v2/models/{deployment.name}/infer -d '{text}'")
        if len(calls) == 3:
            break
    return calls


def _simplicity(deployment: Served) -> tuple[int, str]:
    return len(deployment.config.input), deployment.name


def _example(deployment: Served) -> dict[str, object] | None:
    """A request that the model takes, unless that would be long."""
    config = deployment.config
    if deployment.is_decoupled:
        return None
    inputs = []
    for entry in config.input:
        dims = [1 if dim == -1 else dim for dim in entry.dims]
        count = 1
        for dim in dims:
            count *= dim
        if count > 8:
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


_VALUES: dict[str, object] = {"BYTES": "I love it", "BOOL": True, "FP32": 1.5, "FP64": 1.5}
