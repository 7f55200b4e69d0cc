"""What a model says of itself on disk at one moment: its place, configuration, versions and files.

Blocking, and without any framework: what the model files hold is :mod:`.loading`'s business.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from modelport.errors import LoadFailed, ModelportError, PollFailed
from modelport.repository.ensembles import is_ensemble
from modelport.repository.layout import (
    Signature,
    find_config,
    is_name,
    list_files,
    list_versions,
    read_text,
    sign,
    why_unreadable,
)
from modelport.repository.sources import Place, Source
from modelport.repository.uploads import Upload
from modelport.repository.versions import absent_versions, choose_versions
from modelport.runtimes.registry import runtime_for_files
from modelport.specs import ModelConfig
from modelport.wire import model_config

__all__ = ["NotThere", "Override", "Reading", "expect_reading", "read_model", "read_models"]


class NotThere(PollFailed):
    """No source has a model of this name."""


class Override(Struct, frozen=True, eq=False):
    """What a load request replaces of a model.

    Attributes:
        config: JSON whose fields replace those of the file.
        upload: Takes the place of the whole directory; ``None`` leaves it.
    """

    config: str
    upload: Upload | None = None

    def hold(self) -> None:
        """Need the uploaded files, until ``release``."""
        if self.upload is not None:
            self.upload.hold()

    def release(self) -> None:
        """Need them no more."""
        if self.upload is not None:
            self.upload.release()


class Reading(Struct, frozen=True):
    """One model, as it lies there.

    Attributes:
        name: Of the model.
        place: Where it lies.
        config: The operator's, before anything is completed; has the model's name.
        directory_by_version: The versions to serve, lowest first.
        signature_by_version: What has to stay the same for a version to be the same one.
        upload: Holds the files, where a client has sent them.
        written: The configuration as the files have it, before a load request replaced any of it.
        absent: Versions that the version policy names, and that have no directory.
    """

    name: str
    place: Place
    config: ModelConfig
    directory_by_version: dict[int, Path]
    signature_by_version: dict[int, tuple[object, ...]]
    upload: Upload | None = None
    written: ModelConfig = field(default_factory=ModelConfig)
    absent: tuple[int, ...] = ()

    @property
    def is_ensemble(self) -> bool:
        """Whether other models execute it."""
        return is_ensemble(self.config)


def read_model(
    sources: Sequence[Source],
    name: str,
    *,
    config_name: str = "",
    override: Override | None = None,
) -> Reading | None:
    """Read a model; ``None`` if no source has it.

    Args:
        sources: Where to look; a name may be in one of them only.
        name: May come from anywhere, also from the steps of an inline configuration.
        config_name: Picks one of several configurations, see ``layout.find_config``.
        override: What a load request has replaced.

    Raises:
        LoadFailed: If it is there twice, or its configuration cannot be read.
    """
    if not is_name(name):
        return None
    upload = override.upload if override is not None else None
    if upload is not None:
        places = [Place(upload.directory)]
    else:
        places = [place for source in sources if (place := source.find(name)) is not None]
    if not places:
        fault = next((fault for source in sources if (fault := source.fault(name))), "")
        if fault:
            raise LoadFailed(fault)
        return None
    if len(places) > 1:
        raise LoadFailed(
            f"model '{name}' is not unique: {len(places)} of the repositories have one of this "
            "name; rename or remove all but one"
        )
    place = places[0]
    why = why_unreadable(place.directory) if place.file is None else ""
    if why:
        raise LoadFailed(f"the model directory cannot be read: {why}")
    config = written = _operator_config(place, config_name)
    if override is not None:
        config = _override(config, override.config)
    config = replace(config, name=config.name or name)
    directories = _version_directories(place, config)
    chosen = choose_versions(config.version_policy, directories)
    shared = _shared_signature(place, directories)
    # An upload is its own signature: the next one may have the same sizes within the same tick.
    told = (override.config, upload) if override is not None else None
    return Reading(
        name,
        place,
        config,
        {version: directories[version] for version in chosen},
        {
            version: (
                place.config,
                shared,
                told,
                _version_signature(place, directories[version]),
            )
            for version in chosen
        },
        upload,
        written,
        absent_versions(config.version_policy, directories),
    )


def read_models(
    sources: Sequence[Source], override_by_name: Mapping[str, Override | None], config_name: str
) -> dict[str, Reading | ModelportError | None]:
    """Read several models; what cannot be read is told in its place."""
    read: dict[str, Reading | ModelportError | None] = {}
    for name, override in override_by_name.items():
        try:
            read[name] = read_model(sources, name, config_name=config_name, override=override)
        except ModelportError as exc:
            read[name] = exc
        except OSError as exc:
            read[name] = LoadFailed(f"the model directory cannot be read: {exc.strerror}")
    return read


def expect_reading(name: str, reading: Reading | ModelportError | None) -> Reading:
    """Give a reading on, or raise what there is instead of one.

    Raises:
        NotThere: No source had the model.
        PollFailed: It could not be read.
    """
    text = f"failed to load '{name}', failed to poll from model repository"
    match reading:
        case Reading():
            return reading
        case None:
            raise NotThere(f"{text}; there is no model directory of this name")
        case _:
            raise PollFailed(f"{text}; {reading.text}") from reading


def _operator_config(place: Place, config_name: str) -> ModelConfig:
    if place.file is not None:
        return place.config
    path = find_config(place.directory, config_name)
    if path is None:
        return place.config
    title = path.relative_to(place.directory).as_posix()
    text = read_text(path, title)
    try:
        match path.suffix:
            case ".json":
                config = model_config.decode_json(text)
            case ".pbtxt":
                config = model_config.decode_pbtxt(text)
            case _:
                config = model_config.decode_yaml(text)
    except LoadFailed as exc:
        raise LoadFailed(f"{title}: {exc.text}") from exc
    return _with_place(config, place)


def _with_place(config: ModelConfig, place: Place) -> ModelConfig:
    """Add what the source says of the model; of a parameter that both set, the file's counts."""
    said = place.config
    return replace(
        config,
        version_policy=said.version_policy or config.version_policy,
        parameters={**said.parameters, **config.parameters},
    )


def _override(config: ModelConfig, text: str) -> ModelConfig:
    """Replace the fields that an inline configuration gives, and only these.

    A field that is given as 0 or empty replaces too, which the decoded value alone cannot tell.
    """
    given = model_config.decode_json(text)
    names = {_CAPITAL.sub(_underscored, key) for key, value in json.loads(text).items()
             if value is not None}  # fmt: skip
    return replace(config, **{name: getattr(given, name) for name in names})


def _version_directories(place: Place, config: ModelConfig) -> dict[int, Path]:
    """Map versions to their directories.

    A model without version directories has its files beside its configuration, and is version 1;
    Triton wants a directory even for an ensemble, which has nothing to put there.
    """
    versions = list_versions(place.directory) if place.file is None else ()
    if versions:
        return {version: place.directory / str(version) for version in versions}
    if place.file is not None or is_ensemble(config) or _has_model_file(place.directory, config):
        return {1: place.directory}
    return {}


def _has_model_file(directory: Path, config: ModelConfig) -> bool:
    files = list_files(directory)
    return config.default_model_filename in files or runtime_for_files(files) is not None


def _shared_signature(place: Place, directories: dict[int, Path]) -> Signature:
    if place.file is not None:
        return ()
    return sign(place.directory, without=map(str, directories))


def _version_signature(place: Place, directory: Path) -> Signature:
    if place.file is not None:
        return sign(place.file)
    # A flat model's files are part of what is shared.
    return () if directory == place.directory else sign(directory)


def _underscored(letter: re.Match[str]) -> str:
    return f"_{letter[0].lower()}"


_CAPITAL: Final = re.compile(r"[A-Z]")
