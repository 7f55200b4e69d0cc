"""Bringing one version of a model up: its configuration made complete, its instances loaded.

Everything here blocks, some of it for minutes, and is run on a thread. The order is: the
operator's configuration; the runtime that it, or the files, ask for; what the runtime finds in the
model file; defaults; checks; labels; instances.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct, field

from modelport.errors import LoadFailed
from modelport.repository.devices import decide_kinds, instance_devices
from modelport.repository.ensembles import complete_ensemble
from modelport.repository.layout import check_filename, list_files, read_labels
from modelport.repository.reading import Reading
from modelport.repository.uploads import DATA_BACKENDS, Upload
from modelport.runtimes.base import (
    Host,
    LoadContext,
    ModelSource,
    Runtime,
    as_model_failure,
    gpus_of,
)
from modelport.runtimes.registry import choose_runtime, import_runtime, in_worker
from modelport.specs import ENVIRONMENT, Execution, ModelConfig
from modelport.tensors import Array
from modelport.wire import model_config

if TYPE_CHECKING:
    from modelport.repository.warmup import Sample

__all__ = [
    "Choice",
    "Choose",
    "ConcurrencyLimit",
    "LoadOptions",
    "ModelVersion",
    "Served",
    "bring_up",
    "choose",
]

Served = Mapping[str, Mapping[int, ModelConfig]]
"""The configurations of all versions that are served, by model and version."""


class Choice(NamedTuple):
    """What executes a version.

    Attributes:
        runtime: The class of its instances.
        backend: As a complete configuration calls it.
        filename: Of the model file, in the version's directory; "" if it needs none.
    """

    runtime: type[Runtime]
    backend: str
    filename: str


Choose = Callable[[ModelConfig, Path], Choice]
"""Raises LoadFailed if nothing can execute it."""


def choose(config: ModelConfig, version_directory: Path) -> Choice:
    """Ask the registry, and import the runtime's framework."""
    row, filename = choose_runtime(config, version_directory)
    runtime = import_runtime(row)
    return Choice(runtime, row.backend, filename or runtime.default_filename)


class LoadOptions(Struct, frozen=True, kw_only=True):
    """What the operator decides for all models.

    Attributes:
        auto_complete: Whether the model file is asked for what the configuration leaves out.
        allow_pickle: Whether model files may run code while they are read.
        allow_code_overrides: Whether files that a client has sent may be code.
        default_max_batch_size: What a model that can batch gets where its configuration is silent.
        execution: Where models run that do not say it themselves.
        hang_timeout_s: How long a worker process may not be heard of before it is killed and
            started again, in seconds; 0 for ever.
        choose: Decides what executes a model, from its configuration and version directory.
    """

    auto_complete: bool = True
    allow_pickle: bool = False
    allow_code_overrides: bool = False
    default_max_batch_size: int = 4
    execution: Execution = "auto"
    hang_timeout_s: float = 300.0
    choose: Choose = choose


class ConcurrencyLimit(Struct, eq=False):
    """How many requests a group of deployments may have under way. Used on the event loop only.

    Attributes:
        most: That number.
        text: Told to who comes when it is reached.
        in_use: Kept up to date by the deployments, until a request is really over.
    """

    most: int
    text: str
    in_use: int = 0

    def has_room(self) -> bool:
        """Whether another one may come in."""
        return self.in_use < self.most


class ModelVersion(Struct, eq=False):
    """One version of a model that is loaded.

    Attributes:
        name: Of the model.
        version: A positive integer.
        config: Complete and checked.
        config_json: The same in Triton's JSON form.
        labels: Class labels of the outputs that have them.
        initial_states: What states of sequences begin with that begin with a file, by their input;
            without the batch dimension.
        instances: Loaded, in the order of the instance groups; none for an ensemble.
        instance_names: One for each instance.
        samples: Warm-up requests that every instance executes before it serves.
        load_s: How long it took, in seconds.
        upload: Held until the version is unloaded, if it was loaded from uploaded files.
        limit: Bounds the requests that it has under way, alone or together with others.
    """

    name: str
    version: int
    config: ModelConfig
    config_json: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    instances: list[Runtime] = field(default_factory=list)
    instance_names: list[str] = field(default_factory=list)
    load_s: float = 0.0
    upload: Upload | None = None
    initial_states: Mapping[str, Array] = field(default_factory=dict)
    samples: "tuple[Sample, ...]" = ()
    limit: "ConcurrencyLimit | None" = None

    def __repr__(self) -> str:
        return f"<ModelVersion {self.name} v{self.version} instances={len(self.instances)}>"

    def unload(self) -> None:
        """Give the instances back. Blocks; doing it again does nothing.

        Raises:
            Exception: What a model raised, after the others have been unloaded too.
        """
        failure: Exception | None = None
        while self.instances:
            try:
                self.instances.pop().unload()
            except Exception as exc:
                failure = failure or exc
        upload, self.upload = self.upload, None
        if upload is not None:
            upload.release()
        if failure is not None:
            raise failure


def bring_up(
    reading: Reading, version: int, served: Served, host: Host, options: LoadOptions
) -> ModelVersion:
    """Load one version of a model.

    Args:
        reading: Of the model.
        version: One of those to serve.
        served: What an ensemble may have its steps executed by.
        host: What the model may ask of us.
        options: The operator's.

    Raises:
        LoadFailed: With a text for the operator; nothing is left behind.
    """
    started_s = time.perf_counter()
    try:
        if reading.config.model_repository_agents is not None:
            from modelport.repository.checksums import check_sums  # few models have them

            check_sums(reading.place.directory, reading.config)
        if reading.is_ensemble:
            loaded = _bring_up_ensemble(reading, version, served)
        else:
            loaded = _bring_up_model(reading, version, host, options)
    except LoadFailed as exc:
        raise LoadFailed(_without_paths(exc.text, reading)) from exc
    except SystemExit as exc:
        # A script that was never meant to be imported; it must not take the server with it.
        raise LoadFailed("the model's code ended the process (SystemExit) while loading") from exc
    except Exception as exc:
        # Frameworks and models raise what they like; their authors' words are the best we have.
        raise LoadFailed(_without_paths(as_model_failure(exc).text, reading)) from exc
    loaded.load_s = time.perf_counter() - started_s
    return loaded


def _bring_up_ensemble(reading: Reading, version: int, served: Served) -> ModelVersion:
    config = model_config.complete(reading.config, name=reading.name)
    config = complete_ensemble(_checked(config, reading.name), served)
    return _version(reading, version, config)


def _bring_up_model(
    reading: Reading, version: int, host: Host, options: LoadOptions
) -> ModelVersion:
    source = ModelSource(
        name=reading.name,
        directory=reading.place.directory,
        version_directory=reading.directory_by_version[version],
        version=version,
        allow_pickle=options.allow_pickle and _trusts_files(reading, options),
        attribute=reading.place.attribute,
        default_max_batch_size=options.default_max_batch_size,
    )
    config = reading.config
    model_config.check_written(config, name=reading.name)
    check_filename("default_model_filename", config.default_model_filename)
    runtime, backend, filename = options.choose(config, source.version_directory)
    gpus = gpus_of(runtime)
    if backend not in DATA_BACKENDS and not _trusts_files(reading, options):
        raise LoadFailed(
            f"files for the backend '{backend}' hold code, and code comes from the operator only; "
            "put the model into the repository, or start the server with --allow-code-overrides"
        )
    _check_environment(reading, options)
    _check_file(filename, source)
    config = replace(config, default_model_filename=filename)
    has_workers = _has_workers(config, config, backend, options)
    if has_workers:
        runtime = in_worker(runtime)
    if options.auto_complete:
        config = model_config.merge(config, runtime.complete(source, config))
    config = model_config.hold_to_forms(config)
    config = replace(config, instance_group=decide_kinds(config.instance_group, gpus))
    config = model_config.complete(
        config, name=reading.name, backend=backend, default_model_filename=filename
    )
    if not config.input and not config.output:
        raise LoadFailed(_no_tensors(config, options))
    if not has_workers and _has_workers(config, reading.config, backend, options):
        runtime = in_worker(runtime)
    loaded = _version(reading, version, _checked(config, reading.name))
    for text in model_config.left_out(config):
        host.log("warning", f"left out of the configuration: {text}", model=reading.name)
    _load_instances(loaded, runtime, source, host, options)
    return loaded


def _trusts_files(reading: Reading, options: LoadOptions) -> bool:
    return reading.upload is None or options.allow_code_overrides


def _check_environment(reading: Reading, options: LoadOptions) -> None:
    """Refuse a client that says which interpreter to start."""
    sent = reading.config.parameter(ENVIRONMENT) != reading.written.parameter(ENVIRONMENT)
    if sent and not options.allow_code_overrides:
        raise LoadFailed(
            f"the parameter '{ENVIRONMENT}' names code to run, and code comes from the operator "
            "only; put it into the configuration in the repository, or start the server with "
            "--allow-code-overrides"
        )


def _has_workers(
    config: ModelConfig, written: ModelConfig, backend: str, options: LoadOptions
) -> bool:
    """Whether instances get processes of their own.

    One with an environment of its own cannot do without.
    Whoever wrote ``KIND_CPU`` with a count for a Python model wrote it for Triton, where each of
    them has one, and counts on their not waiting for one another.
    """
    if backend == "python" and config.parameter(ENVIRONMENT):
        return True
    named = config.parameter("execution")
    if named in ("", "auto"):
        is_python = backend == "python"
        is_default = not named and options.execution == "process"
        may_choose = options.execution in ("auto", "process") or named == "auto"
        has_several = any(
            group.kind == "KIND_CPU" and group.count > 1 for group in written.instance_group
        )
        return is_python and (is_default or (may_choose and has_several))
    return named == "process"


def _check_file(filename: str, source: ModelSource) -> None:
    if filename and not (file := source.version_directory / filename).exists():
        if file.is_symlink():
            raise LoadFailed(f"{_title(source)}: '{filename}' is a link that leads nowhere")
        found = _listed(list_files(source.version_directory))
        raise LoadFailed(f"{_title(source)} has no '{filename}'; it has {found}")


def _checked(config: ModelConfig, name: str) -> ModelConfig:
    model_config.check(config, name=name)
    model_config.refuse_unsupported(config)
    return config


def _version(reading: Reading, version: int, config: ModelConfig) -> ModelVersion:
    labels = {
        output.name: read_labels(reading.place.directory, output.label_filename)
        for output in config.output
        if output.label_filename
    }
    config_json = json.dumps(
        model_config.encode_json(config), ensure_ascii=False, separators=(",", ":")
    )
    initial_states: Mapping[str, Array] = {}
    samples: tuple[Sample, ...] = ()
    if config.sequence_batching is not None:
        from modelport.repository.initial_states import read_initial_states  # few models have them

        initial_states = read_initial_states(reading.place.directory, config)
    if config.model_warmup:
        from modelport.repository.warmup import read_samples  # nor these

        samples = read_samples(reading.place.directory, config)
    if reading.upload is not None:
        reading.upload.hold()
    return ModelVersion(
        reading.name,
        version,
        config,
        config_json,
        labels,
        upload=reading.upload,
        initial_states=initial_states,
        samples=samples,
    )


def _load_instances(
    loaded: ModelVersion,
    runtime: type[Runtime],
    source: ModelSource,
    host: Host,
    options: LoadOptions,
) -> None:
    """Load the instances one after another: most frameworks take turns at it anyway."""
    for device in instance_devices(loaded.config):
        instance = runtime()
        context = LoadContext(
            source=source,
            config=loaded.config,
            config_json=loaded.config_json,
            instance_name=device.name,
            host=host,
            kind=device.kind,
            device_id=device.device_id,
            hang_timeout_s=options.hang_timeout_s,
        )
        try:
            instance.load(context)
        except BaseException:
            _unload_quietly(loaded, host)
            raise
        loaded.instances.append(instance)
        loaded.instance_names.append(device.name)


def _unload_quietly(loaded: ModelVersion, host: Host) -> None:
    """Unload the instances that had come up before one did not; that one's error counts."""
    try:
        loaded.unload()
    except Exception as exc:
        host.log("error", f"unload failed: {type(exc).__name__}: {exc}", model=loaded.name)


def _no_tensors(config: ModelConfig, options: LoadOptions) -> str:
    if config.default_model_filename.endswith(".py"):
        how = "add input and output in auto_complete_config, or in a config.pbtxt"
    else:
        how = "list input and output in a config.pbtxt"
    told = "the model file does not tell them" if options.auto_complete else "auto-complete is off"
    return f"the model has neither inputs nor outputs: no configuration lists them, {told}; {how}"


def _without_paths(text: str, reading: Reading) -> str:
    """Leave of paths what a client may see: inside the model all of it, elsewhere the last part.

    Texts of frameworks and models are full of them.
    """
    directory = reading.place.directory
    for inside in {str(directory), str(directory.resolve())}:
        text = text.replace(f"{inside}/", "")
    return _ABSOLUTE_PATH.sub(r"\1", text)


def _title(source: ModelSource) -> str:
    if source.version_directory == source.directory:
        return "the model directory"
    return f"version directory {source.version}/"


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


# Not the path of a URL, nor what follows a word as in "and/or".
_ABSOLUTE_PATH: Final = re.compile(r"(?<![\w/:.])/(?:[^/\s'\"]+/)+([^/\s'\"]*)")
