"""The ``config.json`` of OpenVINO Model Server → the models that it lists.

What decides which models there are, or how clients see them, is acted on, some of it only when the
model is loaded (``ovms_forms``). What only makes OVMS faster is read and left at that: the runtimes
here have their own ways. All else would change answers, so it is refused by name.

Source: OpenVINO Model Server, "Serving Multiple Models", "Model Server Parameters".
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from modelport.errors import LoadFailed
from modelport.specs import All, Latest, ModelConfig, Parameter, Specific, VersionPolicy
from modelport.wire.model_config.ovms_forms import FORMS
from modelport.wire.model_config.schema import refuse_unreadable

__all__ = ["OvmsModel", "decode_ovms", "is_ovms"]


class OvmsModel(Struct, frozen=True):
    """One model of the list.

    Attributes:
        name: As clients call it.
        base_path: Directory of its versions, as it is written.
        config: What the list says of it.
    """

    name: str
    base_path: str
    config: ModelConfig


def is_ovms(text: str) -> bool:
    """Whether a JSON text looks like such a file."""
    return f'"{_LIST}"' in text


def decode_ovms(text: str) -> list[OvmsModel]:
    """Read a whole file.

    Raises:
        LoadFailed: If it is not JSON, or asks for what is not offered; the text says where.
    """
    refuse_unreadable(text)
    try:
        document = json.loads(text)
        # Written as escapes, halves of characters come through the parser.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise LoadFailed(f"The file is not valid json - {exc}") from exc
    members = _object(document, "the file")
    for key, value in members.items():
        if key in _NOT_OFFERED and value:
            raise LoadFailed(f"{key}: {_NOT_OFFERED[key]}")
        if key not in _NOT_OFFERED and key not in (_LIST, "monitoring"):
            raise LoadFailed(f"{key}: is nothing that the configuration of OVMS has")
    entries = members.get(_LIST, [])
    if type(entries) is not list:
        raise LoadFailed(f"{_LIST}: must be a list")
    models = [_model(entry, f"{_LIST}[{index}]") for index, entry in enumerate(entries)]
    names: set[str] = set()
    for model in models:
        if model.name in names:
            raise LoadFailed(f"{_LIST}: the name '{model.name}' is there twice; rename one")
        names.add(model.name)
    return models


def _model(entry: Any, where: str) -> OvmsModel:
    members = _object(_object(entry, where).get("config"), f"{where}.config")
    where = f"{where}.config"
    texts: dict[str, str] = {}
    for key in ("name", "base_path"):
        value = members.get(key)
        if type(value) is not str or not value:
            raise LoadFailed(f"{where}.{key}: must be a text that is not empty")
        texts[key] = value
    where = f"model '{texts['name']}'"
    if "://" in texts["base_path"]:
        raise LoadFailed(
            f"{where}, base_path: models are read from disk, not from '{texts['base_path']}'; "
            "mount or copy them"
        )
    # Served from the configuration of OVMS, a model behaves as under it.
    parameters = {"ovms": "true"}
    policy: VersionPolicy | None = None
    for key, value in members.items():
        match key:
            case "name" | "base_path":
                pass
            case "model_version_policy":
                policy = _policy(value, where)
            case "layout":
                parameters["layout"] = _layout(value, where)
            case "color_format":
                parameters["color_format"] = _color_format(value, where)
            case _ if key in FORMS:
                parameters |= FORMS[key](value, where)
            case _ if key in _HARMLESS:
                _check_harmless(key, value, where)
            case _:
                raise LoadFailed(
                    f"{where}, {key}: is not offered here"
                    f"{_INSTEAD.get(key, ', or nothing that the configuration of OVMS has')}"
                )
    config = ModelConfig(
        version_policy=policy,
        parameters={key: Parameter(string_value=text) for key, text in parameters.items()},
    )
    return OvmsModel(texts["name"], texts["base_path"], config)


def _policy(value: Any, where: str) -> VersionPolicy:
    where = f"{where}, model_version_policy"
    match value:
        case {"all": dict(), **rest} if not rest:
            return VersionPolicy(all=All())
        case {"latest": {"num_versions": int(count)}, **rest} if (
            not rest and type(count) is int and 0 < count < 2**31
        ):
            return VersionPolicy(latest=Latest(num_versions=count))
        case {"specific": {"versions": [*versions]}, **rest} if (
            not rest and versions and all(type(v) is int and v > 0 for v in versions)
        ):
            return VersionPolicy(specific=Specific(versions=tuple(versions)))
    raise LoadFailed(
        f'{where}: must be {{"all": {{}}}}, {{"latest": {{"num_versions": N}}}} or '
        '{"specific": {"versions": [...]}}'
    )


def _layout(value: Any, where: str) -> str:
    """``NHWC:NCHW`` is what clients send and what the model takes; one word is both."""
    if type(value) is dict and len(value) == 1:
        (value,) = value.values()
    words = value.upper().split(":") if type(value) is str else []
    if len(words) in (1, 2) and all(word in ("NHWC", "NCHW", "N...HWC", "AUTO") for word in words):
        known = [word for word in words if word in ("NHWC", "NCHW")]
        return ":".join(dict.fromkeys(known)) if words[-1] in known else ""
    raise LoadFailed(f"{where}, layout: offered are NHWC, NCHW and NHWC:NCHW, for models of images")


def _color_format(value: Any, where: str) -> str:
    if type(value) is dict and len(value) == 1:
        (value,) = value.values()
    text = value.upper() if type(value) is str else ""
    if text in ("BGR", "RGB", "BGR:BGR", "RGB:RGB"):
        return text[:3]
    raise LoadFailed(f"{where}, color_format: offered are BGR and RGB")


def _check_harmless(key: str, value: Any, where: str) -> None:
    if not _HARMLESS[key](value):
        raise LoadFailed(
            f"{where}, {key}: {json.dumps(value)[:80]} is not offered here{_INSTEAD.get(key, '')}"
        )


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise LoadFailed(f"{where}: must be an object")
    return value


def _anything(value: Any) -> bool:
    return True


def _off(value: Any) -> bool:
    return value in (False, "false", "False", 0, None)


_LIST: Final = "model_config_list"

_NOT_OFFERED: Final = {
    "mediapipe_config_list": "graphs of MediaPipe are not offered; use an ensemble, or a model.py",
    "pipeline_config_list": "pipelines of OVMS are not offered; write them as an ensemble",
    "custom_node_library_config_list": "node libraries are not offered; use a model.py",
    "custom_loader_config_list": "custom loaders are not offered",
}

_HARMLESS: Final[dict[str, Callable[[Any], bool]]] = {
    "target_device": lambda value: str(value).upper() in ("CPU", "AUTO", "AUTO:CPU"),
    "nireq": _anything,
    "plugin_config": _anything,
    "allow_cache": _anything,
    "low_latency_transformation": _anything,
    "idle_sequence_cleanup": _anything,
    "max_sequence_number": _anything,
    "stateful": _off,
}
"""Settings that change no answer, and the values for which that is so."""

_INSTEAD: Final = {
    "target_device": "; this server runs it on the CPU",
    "stateful": "; sequences are configured by a config.pbtxt beside the versions",
}
