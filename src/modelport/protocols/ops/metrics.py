"""The page of metrics: all families, for all models that are served."""

import platform
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from msgspec import Struct, field

from modelport._version import __version__
from modelport.custom_metrics import MetricFamily
from modelport.latency_window import LatencyWindow
from modelport.protocols.ops import families
from modelport.protocols.ops.machine import Machine
from modelport.specs import ModelConfig
from modelport.stats import InstanceStatistics, ModelStatistics
from modelport.wire.prometheus import Family, FamilyType, Page, encode_labels, encode_number

__all__ = [
    "CachePort",
    "DeploymentPort",
    "EnginePort",
    "InstancePort",
    "MetricsSwitches",
    "OpsOptions",
    "render",
]


class InstancePort(Protocol):
    """One instance of a version."""

    name: str
    running: int
    statistics: InstanceStatistics


WorkerRow = tuple[str, int, str, families.WorkerPort]


class DeploymentPort(Protocol):
    """One version that takes requests."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> int:
        """A positive integer."""
        ...

    @property
    def config(self) -> ModelConfig:
        """For the labels that the operator adds, and whether responses are decoupled."""
        ...

    @property
    def statistics(self) -> ModelStatistics:
        """What it has done."""
        ...

    @property
    def instances(self) -> Sequence[InstancePort]:
        """What executes it; none for an ensemble."""
        ...


class EnginePort(Protocol):
    """What the routes ask of the engine."""

    def deployments(self) -> Sequence[DeploymentPort]:
        """All versions that are served."""
        ...


class CachePort(Protocol):
    """The cache of responses."""

    def statistics(self) -> families.CacheReading:
        """What it holds now."""
        ...


class MetricsSwitches(Protocol):
    """Which families of latencies exist; the setting ``metrics_config``."""

    @property
    def counter_latencies(self) -> bool:
        """Triton's sums."""
        ...

    @property
    def summary_latencies(self) -> bool:
        """Triton's quantiles."""
        ...

    @property
    def histogram_latencies(self) -> bool:
        """Histograms, ours and Triton's."""
        ...

    @property
    def summary_quantiles(self) -> tuple[tuple[float, float], ...]:
        """Quantiles, each with the error that is allowed; we stay below any."""
        ...


class OpsOptions(Struct, frozen=True, kw_only=True):
    """What the routes need beside the engine.

    Attributes:
        metrics: Which families of latencies exist.
        open_connections: Counts them.
        cache: The cache of responses; ``None`` if there is none.
        workers: Gives model, version and name of every instance in a worker process, with it.
        custom_metrics: Gives the metrics that models define themselves.
        machine: Tells of the process. Not to be shared: each keeps the time of its last look.
    """

    metrics: MetricsSwitches
    open_connections: Callable[[], int]
    cache: CachePort | None = None
    workers: Callable[[], Sequence[WorkerRow]] = tuple
    custom_metrics: Callable[[], Sequence[MetricFamily]] = tuple
    machine: Machine = field(default_factory=Machine)


class _Model(Struct, frozen=True):
    """One version and what all its lines have in common."""

    labels: str
    statistics: ModelStatistics
    is_decoupled: bool
    is_cached: bool
    deployment: DeploymentPort

    @property
    def instances(self) -> Sequence[InstancePort]:
        """What executes it."""
        return self.deployment.instances


def render(deployments: Sequence[DeploymentPort], options: OpsOptions) -> bytes:
    """Write the page."""
    page = Page()
    models = [_model(one) for one in deployments]
    switches = options.metrics
    _write_counts(page, models)
    _write_instances(page, [model for model in models if model.instances])
    if options.cache is not None:
        _write_cache(page, options.cache, [model for model in models if model.is_cached])
    if switches.counter_latencies:
        _write_latency_counters(page, models)
    if switches.summary_latencies:
        _write_summaries(page, models, [quantile for quantile, _ in switches.summary_quantiles])
    if switches.histogram_latencies:
        for row in families.LATENCY_HISTOGRAMS:
            _write_histograms(page, row, models)
        decoupled = [model for model in models if model.is_decoupled]
        if decoupled:
            _write_histograms(page, families.FIRST_RESPONSE, decoupled)
        _write_instance_histograms(page, models)
    _write_histograms(page, families.ROWS, models)
    _write_workers(page, options.workers())
    _write_process(page, options)
    _write_custom(page, options.custom_metrics())
    return page.encode()


def _model(deployment: DeploymentPort) -> _Model:
    config = deployment.config
    is_cached = config.response_cache is not None and config.response_cache.enable
    return _Model(
        _labels(deployment),
        deployment.statistics,
        config.is_decoupled,
        is_cached,
        deployment,
    )


def _labels(deployment: DeploymentPort, instance: str = "") -> str:
    own = {"model": deployment.name, "version": str(deployment.version)}
    own |= deployment.config.metric_tags
    # The operator's tag of this name gives way: no label may stand on a line twice.
    return encode_labels(own | {"instance": instance} if instance else own)


def _write_counts(page: Page, models: Sequence[_Model]) -> None:
    for family, read in families.MODEL_COUNTS:
        page.begin(family)
        page.samples((model.labels, read(model.statistics)) for model in models)
    page.begin(families.FAILURES)
    page.samples(
        (f'{model.labels},reason="{reason}"', count)
        for model in models
        for reason, count in model.statistics.failures.items()
    )
    page.begin(families.LOAD_DURATION)
    for model in models:
        page.sample(model.labels, model.statistics.load_s)


def _write_instances(page: Page, models: Sequence[_Model]) -> None:
    if not models:
        return
    page.begin(families.INSTANCES)
    page.samples((model.labels, len(model.instances)) for model in models)
    page.begin(families.BUSY_INSTANCES)
    page.samples(
        (model.labels, sum(each.running > 0 for each in model.instances)) for model in models
    )


def _write_instance_histograms(page: Page, models: Sequence[_Model]) -> None:
    """Write what instances did of versions that have several; of others it is the version's."""
    told = [
        (_labels(model.deployment, each.name), each.statistics)
        for model in models
        if len(model.instances) > 1
        for each in model.instances
    ]
    for row in families.INSTANCE_HISTOGRAMS if told else ():
        page.begin(row.family)
        for labels, statistics in told:
            histogram = row.read(statistics)
            total = histogram.total if row.unit == 1 else histogram.total / row.unit
            page.histogram(labels, _bounds(histogram.bounds, row.unit), histogram.counts, total)


def _write_cache(page: Page, cache: CachePort, models: Sequence[_Model]) -> None:
    for family, read in families.CACHE_COUNTS:
        if models:
            page.begin(family)
            page.samples((model.labels, read(model.statistics)) for model in models)
    reading = cache.statistics()
    for whole, read_whole in families.CACHE:
        page.begin(whole)
        page.sample("", read_whole(reading))


def _write_latency_counters(page: Page, models: Sequence[_Model]) -> None:
    for row in families.LATENCIES:
        page.begin(row.counter)
        page.samples((model.labels, row.read(model.statistics).ns // 1000) for model in models)


def _write_summaries(page: Page, models: Sequence[_Model], quantiles: Sequence[float]) -> None:
    """Write the quantiles of late.

    Nothing is remembered for them until they are asked for the first time: a server whose metrics
    nobody reads pays nothing.
    """
    windows = []
    for model in models:
        if model.statistics.window is None:
            model.statistics.window = LatencyWindow()
        windows.append(model.statistics.window.quantiles(quantiles))
    names = [encode_number(quantile) for quantile in quantiles]
    for row in families.LATENCIES:
        page.begin(row.summary)
        for model, table in zip(models, windows, strict=True):
            duration = row.read(model.statistics)
            values = {name: ns / 1000 for name, ns in zip(names, table[row.at], strict=True)}
            page.summary(model.labels, values, duration.count, duration.ns / 1000)


def _write_histograms(page: Page, row: families.HistogramRow, models: Sequence[_Model]) -> None:
    page.begin(row.family)
    for model in models:
        histogram = row.read(model.statistics)
        bounds = _bounds(histogram.bounds, row.unit)
        total = histogram.total if row.unit == 1 else histogram.total / row.unit
        page.histogram(model.labels, bounds, histogram.counts, total)


@lru_cache(maxsize=16)
def _bounds(bounds: tuple[int, ...], unit: int) -> tuple[str, ...]:
    """Write the bounds of a histogram in the unit of its family."""
    return tuple(
        encode_number(bound // unit if bound % unit == 0 else bound / unit) for bound in bounds
    )


def _write_workers(page: Page, rows: Sequence[WorkerRow]) -> None:
    if not rows:
        return
    labelled = [
        (encode_labels({"model": model, "version": str(version), "instance": name}), worker)
        for model, version, name, worker in rows
    ]
    for family, read in families.WORKERS:
        page.begin(family)
        page.samples((labels, read(worker)) for labels, worker in labelled)


def _write_custom(page: Page, custom: Sequence[MetricFamily]) -> None:
    for family in custom:
        page.begin(Family(family.name, FamilyType(family.kind), family.help))
        for labels, value in family.values.items():
            page.sample(encode_labels(dict(labels)), value)
        for labels, seen in family.observations.items():
            bounds = tuple(encode_number(bound) for bound in seen.bounds)
            page.histogram(encode_labels(dict(labels)), bounds, seen.counts, seen.total)


def _write_process(page: Page, options: OpsOptions) -> None:
    page.begin(families.INFO)
    page.sample(encode_labels({"version": __version__, "python": platform.python_version()}), 1)
    page.begin(families.OPEN_CONNECTIONS)
    page.sample("", options.open_connections())
    reading = options.machine.read()
    for family, read in families.MACHINE:
        value = read(reading)
        if value is not None:
            page.begin(family)
            page.sample("", value)
