"""The page of metrics, through its route, from the counters of models in memory."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from modelport.custom_metrics import CustomMetrics, Measure, labels_of
from modelport.engine.cache import CacheStatistics
from modelport.errors import Forbidden, ModelFailed, Unauthenticated
from modelport.protocols.base import Access
from modelport.protocols.ops import OpsOptions, encode_error, reference, routes
from modelport.protocols.ops.machine import Machine, processor_ticks
from modelport.server.setting_values import MetricsConfig
from modelport.specs import CacheControl, ModelConfig, TransactionPolicy
from modelport.testing.clock import ManualClock
from modelport.testing.memory import (
    MemoryDeployment,
    MemoryEngine,
    MemoryExchange,
    MemoryInstance,
)

MS = 1_000_000


def deployment(name: str = "m", version: int = 1, **config: Any) -> MemoryDeployment:
    return MemoryDeployment(
        ModelConfig(name=name, backend="python", **config), lambda request: None, version
    )


class FakeCache:
    def statistics(self) -> CacheStatistics:
        return CacheStatistics(entries=2, used_bytes=300, size_bytes=1000, evictions=7)


def get(
    *models: MemoryDeployment,
    machine: Machine | None = None,
    cache: FakeCache | None = None,
    **metrics: Any,
) -> str:
    options = OpsOptions(
        metrics=MetricsConfig(**metrics),
        open_connections=lambda: 3,
        cache=cache,
        machine=machine or Machine(ManualClock(), lambda name: ""),
    )
    (route,) = routes(MemoryEngine(list(models)), options)
    exchange = MemoryExchange("GET", "/metrics")
    route.handler(exchange)
    assert exchange.status == 200
    assert exchange.sent_headers == {"content-type": "text/plain; charset=utf-8"}
    return exchange.answer.decode()


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(text: str, prefix: str = "") -> dict[str, str]:
    """Samples as they stand, by series."""
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {series: value for series, value in rows if series.startswith(prefix)}


def busy(name: str = "m", **config: Any) -> MemoryDeployment:
    """Two executions: one batch of two requests with 3 rows, one request that failed."""
    model = deployment(name, **config)
    statistics = model.statistics
    statistics.load_s = 0.25
    statistics.record_execution(1, 3, 1000, 4 * MS, 2000)
    statistics.record_success(1, 6 * MS, 2 * MS, 1000, 4 * MS, 2000)
    statistics.record_success(2, 5 * MS, 1 * MS, 1000, 4 * MS, 2999)
    statistics.record_execution(1, 1, 1000, 1 * MS, 1000)
    statistics.record_failure(1 * MS, "BACKEND")
    statistics.pending = 2
    return model


def test_the_route_is_for_whoever_may_see_metrics() -> None:
    options = OpsOptions(metrics=MetricsConfig(), open_connections=lambda: 0)
    (route,) = routes(MemoryEngine(), options)
    assert (route.method, route.pattern, route.access) == ("GET", "/metrics", Access.METRICS)


def test_tritons_families_are_this_text() -> None:
    text = get(busy(), histogram_latencies=False)
    # Help is for people, and may change.
    lines = [line for line in text.splitlines() if not line.startswith("# HELP")]
    assert lines[: lines.index("# TYPE modelport_batch_rows histogram")] == [
        "# TYPE nv_inference_request_success counter",
        'nv_inference_request_success{model="m",version="1"} 2',
        "# TYPE nv_inference_count counter",
        'nv_inference_count{model="m",version="1"} 3',
        "# TYPE nv_inference_exec_count counter",
        'nv_inference_exec_count{model="m",version="1"} 2',
        "# TYPE nv_inference_pending_request_count gauge",
        'nv_inference_pending_request_count{model="m",version="1"} 2',
        "# TYPE nv_inference_request_failure counter",
        'nv_inference_request_failure{model="m",version="1",reason="REJECTED"} 0',
        'nv_inference_request_failure{model="m",version="1",reason="CANCELED"} 0',
        'nv_inference_request_failure{model="m",version="1",reason="BACKEND"} 1',
        'nv_inference_request_failure{model="m",version="1",reason="OTHER"} 0',
        "# TYPE nv_model_load_duration_secs gauge",
        'nv_model_load_duration_secs{model="m",version="1"} 0.25',
        "# TYPE nv_inference_request_duration_us counter",
        'nv_inference_request_duration_us{model="m",version="1"} 11000',
        "# TYPE nv_inference_queue_duration_us counter",
        'nv_inference_queue_duration_us{model="m",version="1"} 3000',
        "# TYPE nv_inference_compute_input_duration_us counter",
        'nv_inference_compute_input_duration_us{model="m",version="1"} 2',
        "# TYPE nv_inference_compute_infer_duration_us counter",
        'nv_inference_compute_infer_duration_us{model="m",version="1"} 8000',
        "# TYPE nv_inference_compute_output_duration_us counter",
        'nv_inference_compute_output_duration_us{model="m",version="1"} 4',
    ]


def test_a_model_has_all_its_series_before_its_first_request() -> None:
    fresh, used = get(deployment()), get(busy())
    assert list(values(fresh)) == list(values(used))
    of_model = values(fresh, "nv_inference") | values(fresh, "modelport_request")
    assert set(of_model.values()) == {"0", "0.0"}


def test_prometheus_reads_the_whole_page() -> None:
    text = get(
        busy(model_transaction_policy=TransactionPolicy(decoupled=True)),
        deployment("other", 2),
        summary_latencies=True,
        machine=Machine(),
    )
    read = families(text)
    assert len(read) == text.count("# TYPE ")
    assert sum(len(family.samples) for family in read.values()) == len(values(text))
    assert "unknown" not in {family.type for family in read.values()}
    assert all(family.documentation for family in read.values())


def test_histograms_are_in_seconds_and_add_up() -> None:
    samples = values(get(busy()), "modelport_request_duration_seconds")
    labels = 'model="m",version="1"'
    name = "modelport_request_duration_seconds"
    assert samples[f'{name}_bucket{{{labels},le="5e-05"}}'] == "0"
    assert samples[f'{name}_bucket{{{labels},le="0.005"}}'] == "1"
    assert samples[f'{name}_bucket{{{labels},le="0.01"}}'] == "2"
    assert samples[f'{name}_bucket{{{labels},le="10"}}'] == "2"
    assert samples[f'{name}_bucket{{{labels},le="+Inf"}}'] == "2"
    assert samples[f"{name}_sum{{{labels}}}"] == "0.011"
    assert samples[f"{name}_count{{{labels}}}"] == "2"


def test_batches_are_told_in_rows() -> None:
    samples = values(get(busy()), "modelport_batch_rows")
    assert samples['modelport_batch_rows_bucket{model="m",version="1",le="1"}'] == "1"
    assert samples['modelport_batch_rows_bucket{model="m",version="1",le="4"}'] == "2"
    assert samples['modelport_batch_rows_sum{model="m",version="1"}'] == "4"


def test_first_responses_are_told_of_decoupled_models_only() -> None:
    name = "nv_inference_first_response_histogram_ms"
    assert name not in get(busy())
    model = busy("d", model_transaction_policy=TransactionPolicy(decoupled=True))
    model.statistics.first_response_histogram.observe(100 * MS)
    model.statistics.first_response_histogram.observe(600 * MS)
    samples = values(get(busy(), model), name)
    assert [*samples.values()] == ["1", "1", "2", "2", "2", "700.0", "2"]
    assert next(iter(samples)) == name + '_bucket{model="d",version="1",le="100"}'


@pytest.mark.parametrize(
    ("switch", "names"),
    [
        ("counter_latencies", ["nv_inference_request_duration_us"]),
        ("summary_latencies", ["nv_inference_request_summary_us"]),
        ("histogram_latencies", ["modelport_request_duration_seconds"]),
    ],
)
def test_each_kind_of_latency_can_be_switched(switch: str, names: list[str]) -> None:
    off: dict[str, Any] = {
        "counter_latencies": False,
        "summary_latencies": False,
        "histogram_latencies": False,
    }
    none, some = families(get(busy(), **off)), families(get(busy(), **{**off, switch: True}))
    assert set(names) <= set(some) - set(none)
    assert "nv_inference_request_success" in none


def test_summaries_begin_when_they_are_first_asked_for() -> None:
    model = busy()
    name, labels = "nv_inference_compute_infer_summary_us", 'model="m",version="1"'
    assert model.statistics.window is None
    before = values(get(model, summary_latencies=True, summary_quantiles=((0.5, 0.05),)), name)
    assert before == {
        f'{name}{{{labels},quantile="0.5"}}': "NaN",
        f"{name}_sum{{{labels}}}": "8000.0",
        f"{name}_count{{{labels}}}": "2",
    }
    model.statistics.record_success(1, 9 * MS, 1, 2, 7 * MS, 4)
    model.statistics.record_single(1, 0, 1, 3 * MS, model.statistics.rest)
    after = values(get(model, summary_latencies=True, summary_quantiles=((0.9, 0.05),)), name)
    assert after[f'{name}{{{labels},quantile="0.9"}}'] == "7000.0"
    assert after[f"{name}_count{{{labels}}}"] == "4"


def test_nothing_is_kept_for_summaries_that_are_off() -> None:
    model = busy()
    get(model)
    assert model.statistics.window is None


def test_the_operators_tags_are_labels_whatever_they_hold() -> None:
    model = deployment(metric_tags={"team": 'the "a"\\b\nteam'})
    (sample, *_) = families(get(model))["nv_inference_count"].samples
    assert sample.labels == {"model": "m", "version": "1", "team": 'the "a"\\b\nteam'}


def test_versions_and_models_are_told_apart() -> None:
    text = get(deployment("a", 1), deployment("a", 2), deployment("b", 1))
    assert list(values(text, "nv_inference_count")) == [
        'nv_inference_count{model="a",version="1"}',
        'nv_inference_count{model="a",version="2"}',
        'nv_inference_count{model="b",version="1"}',
    ]


def test_a_server_without_models_tells_of_itself() -> None:
    read = families(get())
    assert read["modelport_open_connections"].samples[0].value == 3
    assert read["modelport_info"].samples[0].labels.keys() == {"version", "python"}
    assert read["nv_inference_count"].samples == []


def test_what_the_machine_does_not_tell_is_left_out() -> None:
    read = families(get(machine=Machine(ManualClock(), lambda name: "")))
    assert "nv_cpu_utilization" not in read
    assert "process_resident_memory_bytes" not in read
    assert "process_cpu_seconds" in read  # the parser drops "_total"


PROC = {
    "stat": "cpu  100 0 0 300 0 0 0 0 0 0\ncpu0 1 2\nbtime 1700000000\n",
    "meminfo": "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\n",
    "self/statm": "500 20 3 4 0 5 0\n",
    "self/limits": "Limit  Soft Limit  Hard Limit\nMax open files            1024  4096  files\n",
    "self/stat": "7 (odd) name) S " + " ".join(["0"] * 18) + " 4200 0\n",
}


def test_the_machine_is_read_from_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_CLK_TCK": 100}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    clock = ManualClock()
    machine = Machine(clock, lambda name: PROC.get(name, ""))
    clock.advance(2.5)
    reading = machine.read()
    assert reading.uptime_s == 2.5
    assert reading.machine_memory_bytes == 1_024_000
    assert reading.machine_memory_used_bytes == 600 * 1024
    assert reading.resident_bytes == 20 * 4096
    assert reading.max_files == 1024
    assert reading.started_s == 1_700_000_042
    assert reading.machine_cpu_utilization == 0.0


def test_utilization_is_since_the_look_before_and_not_of_an_instant() -> None:
    clock = ManualClock()
    ticks = {"busy": 0, "idle": 0}
    machine = Machine(clock, lambda name: f"cpu {ticks['busy']} 0 0 {ticks['idle']} 0 0 0 0 0 0\n")

    def after(seconds: float, busy: int, idle: int) -> float | None:
        clock.advance(seconds)
        ticks["busy"] += busy
        ticks["idle"] += idle
        return machine.read().machine_cpu_utilization

    assert after(10, 25, 75) == 0.25
    assert after(10, 90, 10) == 0.9
    assert after(0.1, 0, 10) == 0.9  # too soon to tell anything new
    assert after(10, 50, 40) == 0.5  # of all since the last new one


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8 9"])
def test_other_kernels_tell_nothing(text: str) -> None:
    assert processor_ticks(text) is None


def test_this_machine_is_readable() -> None:
    reading = Machine().read()
    if Path("/proc/self/statm").exists():
        assert reading.resident_bytes is not None
        assert reading.resident_bytes > 1_000_000
        assert reading.started_s is not None
        assert 0 <= time.time() - reading.started_s < 86_400
        assert reading.open_files


@pytest.mark.parametrize(
    ("make", "status"),
    [(Unauthenticated, 401), (Forbidden, 403), (ModelFailed, 500)],
)
def test_errors_are_lines_of_text(make: Callable[[str], Any], status: int) -> None:
    reply = encode_error(make("no"))
    assert (reply.status, reply.body) == (status, [b"no\n"])
    assert ("Content-Type", "text/plain; charset=utf-8") in reply.headers


def test_a_hundred_models_are_quick() -> None:
    models = [busy(f"model-{number}") for number in range(100)]
    get(*models)
    best = math.inf
    for _ in range(3):
        started = time.thread_time()
        get(*models)
        best = min(best, time.thread_time() - started)
    # 3 ms on a 2-core virtual machine.
    assert best < 0.02


REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_the_reference_page_is_current() -> None:
    """If this fails: python -m modelport.protocols.ops.reference docs/reference/metrics.md."""
    assert REFERENCE.read_text(encoding="utf-8") == reference.page()


def test_the_reference_page_has_every_family_that_there_is() -> None:
    model = busy(model_transaction_policy=TransactionPolicy(decoupled=True))
    text = get(model, summary_latencies=True, machine=Machine())
    page = reference.page()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            assert f"`{line.split()[2]}`" in page


def test_cache_is_told_of_with_the_models_that_use_it() -> None:
    using = busy("using", response_cache=CacheControl(enable=True))
    using.statistics.record_cache_hit(5 * MS, 2_000)
    using.statistics.record_cache_hit(5 * MS, 3_000)
    using.statistics.record_cache_miss(9_000)
    plain, off = busy("plain"), busy("off", response_cache=CacheControl())
    text = get(using, plain, off, cache=FakeCache())
    labels = '{model="using",version="1"}'
    assert values(text, "nv_cache_") == {
        f"nv_cache_num_hits_per_model{labels}": "2",
        f"nv_cache_num_misses_per_model{labels}": "1",
        f"nv_cache_hit_duration_per_model{labels}": "5",
        f"nv_cache_miss_duration_per_model{labels}": "9",
    }
    assert values(text, "modelport_cache_") == {
        "modelport_cache_entries": "2",
        "modelport_cache_used_bytes": "300",
        "modelport_cache_size_bytes": "1000",
        "modelport_cache_evictions_total": "7",
    }
    assert f"nv_inference_request_success{labels} 4\n" in text
    assert values(get(plain, cache=FakeCache()), "nv_cache_") == {}
    assert "cache" not in get(using)


class FakeWorker:
    capacity = 3
    restarts = 2

    def resident_bytes(self) -> int:
        return 4096


def test_workers_and_what_models_measure_are_told() -> None:
    custom = CustomMetrics()
    for labels in ({}, {"kind": "a b"}):
        made = Measure(
            model="m",
            family="sizes",
            kind="histogram",
            help="Sizes",
            labels=labels_of(labels),
            buckets=(1.0, 10.0),
            verb="observe",
            value=5.0,
        )
        custom.apply(made)
    custom.apply(Measure(model="m", family="level", kind="gauge", help="Level"))
    options = OpsOptions(
        metrics=MetricsConfig(),
        open_connections=lambda: 0,
        workers=lambda: [("m", 1, "m_0_0", FakeWorker())],
        custom_metrics=custom.families,
    )
    (route,) = routes(MemoryEngine(), options)
    exchange = MemoryExchange("GET", "/metrics")
    route.handler(exchange)
    text = exchange.answer.decode()
    instance = 'model="m",version="1",instance="m_0_0"'
    assert f"modelport_worker_up{{{instance}}} 1\n" in text
    assert f"modelport_worker_restarts_total{{{instance}}} 2\n" in text
    assert f"modelport_worker_resident_memory_bytes{{{instance}}} 4096\n" in text
    assert "# TYPE level gauge\nlevel 0.0\n" in text
    assert 'sizes_bucket{le="1.0"} 0\nsizes_bucket{le="10.0"} 1\nsizes_bucket{le="+Inf"} 1' in text
    assert 'sizes_bucket{kind="a b",le="10.0"} 1\n' in text
    assert "sizes_sum 5.0\nsizes_count 1\n" in text
    assert {"level", "sizes"} <= set(families(text))


def test_instances_are_told_of_and_several_of_them_one_by_one() -> None:
    alone, several = busy("alone"), busy("several")
    alone.instances = [MemoryInstance("alone_0")]
    several.instances = [
        MemoryInstance("several_0", running=3),
        MemoryInstance("several_1"),
    ]
    several.statistics.instances = [each.statistics for each in several.instances]
    for each, rows in zip(several.instances, (2, 5), strict=True):
        several.statistics.record_execution(1, rows, 0, 1, 0, each.statistics)
        several.statistics.record_success(rows, 9, 2 * MS, 0, rows * MS, 0, each.statistics)
    text = get(alone, several, busy("ensemble"))
    assert values(text, "modelport_instances") == {
        'modelport_instances{model="alone",version="1"}': "1",
        'modelport_instances{model="several",version="1"}': "2",
    }
    assert values(text, "modelport_busy_instances") == {
        'modelport_busy_instances{model="alone",version="1"}': "0",
        'modelport_busy_instances{model="several",version="1"}': "1",
    }
    labels = 'model="several",version="1",instance="several_'
    sums = {
        series: value
        for series, value in values(text, "modelport_instance_").items()
        if series.partition("{")[0].endswith("_sum")
    }
    assert sums == {
        f'modelport_instance_queue_duration_seconds_sum{{{labels}0"}}': "0.002",
        f'modelport_instance_queue_duration_seconds_sum{{{labels}1"}}': "0.002",
        f'modelport_instance_compute_infer_duration_seconds_sum{{{labels}0"}}': "0.002",
        f'modelport_instance_compute_infer_duration_seconds_sum{{{labels}1"}}': "0.005",
        f'modelport_instance_batch_rows_sum{{{labels}0"}}': "2",
        f'modelport_instance_batch_rows_sum{{{labels}1"}}': "5",
    }
    families(text)
    several.config = replace(several.config, metric_tags={"instance": "mine"})
    assert 'modelport_instances{model="several",version="1",instance="mine"} 2' in get(several)
    families(get(several))  # refuses a label that stands there twice
    assert "modelport_instance_" not in get(several, histogram_latencies=False)
    assert "instance" not in get(busy())
