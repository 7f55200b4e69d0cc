"""Write the reference page of the metrics from the tables of families.

``python -m modelport.protocols.ops.reference docs/reference/metrics.md``; a test compares them.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from modelport.protocols.ops import families
from modelport.stats import DURATION_BOUNDS_NS
from modelport.wire.prometheus import Family

__all__ = ["page"]


def page() -> str:
    """Give the text of the page."""
    bounds = ", ".join(f"{bound / 1e9:g}" for bound in DURATION_BOUNDS_NS)
    parts = [
        "<!-- Made by `python -m modelport.protocols.ops.reference docs/reference/metrics.md`;"
        " edit the tables. -->",
        "# Metrics",
        "`GET /metrics` on the metrics port and on the HTTP port, in Prometheus' text format."
        " How to collect them stands in [the guide](../how-to/metrics.md).",
        "Names that begin with `nv_` are Triton's and mean what they mean there.",
        "## Of each version of each model",
        "Labels: `model`, `version`, and the `metric_tags` of the model's configuration. All"
        " series are there from the load on, with 0. A model that is loaded again begins at 0.",
        _table(
            [family for family, _ in families.MODEL_COUNTS]
            + [families.FAILURES, families.LOAD_DURATION, families.ROWS.family]
        ),
        "`nv_inference_request_failure` has one series for each `reason`."
        " `nv_inference_count` divided by `nv_inference_exec_count` is the mean batch.",
        "### Of instances",
        _table([families.INSTANCES, families.BUSY_INSTANCES]),
        "Of versions with several instances, also histograms of each, with the label `instance`"
        " (`--metrics-config histogram_latencies=BOOL`). Their buckets are powers of ten, so that"
        " the page stays small:",
        _table(row.family for row in families.INSTANCE_HISTOGRAMS),
        "### Latencies as histograms",
        "`--metrics-config histogram_latencies=BOOL`, on by default. Buckets in seconds:"
        f" {bounds}.",
        _table(
            [row.family for row in families.LATENCY_HISTOGRAMS] + [families.FIRST_RESPONSE.family]
        ),
        "### Latencies as sums",
        "`--metrics-config counter_latencies=BOOL`, on by default. Divide the increase of one by"
        " the increase of `nv_inference_request_success` for a mean.",
        _table(row.counter for row in families.LATENCIES),
        "### Latencies as quantiles",
        "`--metrics-config summary_latencies=BOOL`, off by default;"
        " `--metrics-config summary_quantiles=0.5:0.05,0.99:0.001` says which. They are exact over"
        " the latest 4096 requests of the last minute, and begin with the first reading;"
        " quantiles of several servers cannot be added up, histograms can.",
        _table(row.summary for row in families.LATENCIES),
        "### Of the response cache",
        "With `--cache-config local,size=BYTES`, of the models with `response_cache { enable: true"
        " }`. Hits count as successful requests, not as rows or executions.",
        _table(family for family, _ in families.CACHE_COUNTS),
        "And of the cache as a whole, without labels:",
        _table(family for family, _ in families.CACHE),
        "## Of each worker process",
        "Labels: `model`, `version` and `instance`; of models that"
        " [run in worker processes](../how-to/worker-processes.md).",
        _table(family for family, _ in families.WORKERS),
        "## That models define",
        "Under the names and labels that [their code](../how-to/call-models-from-models.md) gives"
        " them, added up over all instances, in whatever process they run.",
        "## Of the server and its machine",
        "Without labels, except `modelport_info`: `version` and `python`. Those of the machine and"
        " of the process's memory and files exist on Linux only.",
        _table(
            [families.INFO, families.OPEN_CONNECTIONS] + [family for family, _ in families.MACHINE]
        ),
        "## What Triton has and this server does not",
        "`nv_gpu_*`, `nv_energy_consumption` and `nv_pinned_memory_pool_*`: there is no GPU and no"
        " pinned memory to tell of. Of `nv_cache_*` there are no summaries.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: Iterable[Family]) -> str:
    lines = [f"| `{row.name}` | {row.type} | {row.help} |" for row in rows]
    return "\n".join(["| name | type | |\n|---|---|---|", *lines])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
