"""The forms of inputs that a configuration of OVMS asks for: shapes, precision, mean and scale.

They are read with the list of models and kept as parameters of the model, because what they mean
for it is known only when its own inputs are.

A shape can only be narrower than the model's: where that has any number, the one asked for. So
images are resized to it. Mean and scale are subtracted from, and divided out of, each channel
before the model gets it (``wire/ovms_images.py``). The precision is one in which images may be sent
as numbers, beside the model's own: a quarter of the bytes, where a model of FP32 takes UINT8.

Source: OpenVINO Model Server, "Model Server Parameters", "Dynamic Shape with Automatic Model
Reloading".
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from modelport.errors import LoadFailed
from modelport.specs import ModelConfig, ModelInput

__all__ = ["FLOATS", "FORMS", "PRECISIONS", "hold_to_forms", "parse_channels"]

Shape = tuple[int, ...]

FLOATS: Final = ("TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_BF16")
"""What mean and scale can be taken from."""
PRECISIONS: Final = {
    "UINT8": "UINT8", "U8": "UINT8",
    "FP16": "FP16", "F16": "FP16", "FLOAT16": "FP16",
    "FP32": "FP32", "F32": "FP32", "FLOAT32": "FP32",
    "FP64": "FP64", "F64": "FP64", "FLOAT64": "FP64",
}  # fmt: skip
"""Datatypes of V2 by the names of OpenVINO's, NumPy's and TensorFlow's."""


def hold_to_forms(config: ModelConfig) -> ModelConfig:
    """Narrow a model to what its parameters ask for, where they come from OVMS.

    Args:
        config: With its inputs.

    Raises:
        LoadFailed: If the model cannot have them.
    """
    where = f"model '{config.name}'"
    shape, batch_size = config.parameter("ovms_shape"), config.parameter("ovms_batch_size")
    if shape:
        config = _hold_to_shapes(config, _shapes(json.loads(shape), where), where)
    if batch_size:
        config = _hold_to_batch(config, int(batch_size), where)
    for key in ("mean", "scale"):
        if config.parameter(f"ovms_{key}"):
            _check_channels(config, key, where)
    if config.parameter("ovms_precision"):
        _check_precision(config, where)
    return config


def parse_channels(text: str) -> tuple[float, ...]:
    """Read the parameters ``ovms_mean`` and ``ovms_scale``: one number, or one for each channel.

    Raises:
        ValueError: If it is something else.
    """
    return tuple(float(part) for part in text.strip("[]() ").split(","))


# --- what the list says --------------------------------------------------------------------------


def _shape_parameter(value: Any, where: str) -> Mapping[str, str]:
    shapes = _shapes(value, where)
    return {"ovms_shape": json.dumps(value)} if shapes else {}


def _batch_parameter(value: Any, where: str) -> Mapping[str, str]:
    if value in ("auto", "0", 0, None):
        return {}
    # A range is what it may grow to.
    text = str(value).rpartition(":")[2]
    if type(value) in (int, str) and _COUNT.fullmatch(text) and int(text):
        return {"ovms_batch_size": text}
    raise LoadFailed(f'{where}, batch_size: must be an integer of 1 or more, a range, or "auto"')


def _channels_parameter(key: str) -> "Parse":
    def parse(value: Any, where: str) -> Mapping[str, str]:
        text = json.dumps(value) if isinstance(value, list) else str(value)
        try:
            numbers = parse_channels(text)
        except ValueError:
            numbers = ()
        is_whole = all(map(math.isfinite, numbers)) and (key == "mean" or 0 not in numbers)
        if type(value) is bool or not numbers or not is_whole:
            raise LoadFailed(
                f"{where}, {key}: must be a number, or a list of one for each channel"
                f"{'' if key == 'mean' else ', and none of them 0'}"
            )
        return {f"ovms_{key}": ",".join(map(repr, numbers))}

    return parse


def _precision_parameter(value: Any, where: str) -> Mapping[str, str]:
    if type(value) is dict and len(value) == 1:
        (value,) = value.values()
    name = PRECISIONS.get(value.upper()) if type(value) is str else None
    if name is None:
        raise LoadFailed(f"{where}, precision: offered are {', '.join(PRECISIONS)}")
    return {"ovms_precision": name}


def _shapes(value: Any, where: str) -> dict[str, Shape]:
    """Read a shape, or shapes by input; "" stands for the only input. ``auto`` says nothing."""
    given = value if type(value) is dict else {"": value}
    return {
        name: _shape(text, f"{where}, shape{name and f' of {name!r}'}")
        for name, text in given.items()
        if text != "auto"
    }


def _shape(text: Any, where: str) -> Shape:
    parts = [part.strip() for part in text.strip("()[] ").split(",")] if type(text) is str else []
    # "(8,)" is how Python writes a shape of one dimension.
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    if not parts or not all(map(_DIMENSION.fullmatch, parts)):
        raise LoadFailed(
            f'{where}: must be a text such as "(1,3,224,224)", "auto", or an object of these by '
            f"input; got {json.dumps(text)[:80]}"
        )
    # What may vary within a range may vary.
    return tuple(int(part) if _COUNT.fullmatch(part) else -1 for part in parts)


# --- what the model has --------------------------------------------------------------------------


def _hold_to_shapes(config: ModelConfig, shapes: dict[str, Shape], where: str) -> ModelConfig:
    if "" in shapes:
        if len(config.input) != 1:
            raise LoadFailed(
                f"{where}, shape: the model has {len(config.input)} inputs; give an object with "
                f"the names of those that it is for: {_listed(config)}"
            )
        shapes = {config.input[0].name: shapes[""]}
    names = {entry.name for entry in config.input}
    for name in shapes:
        if name not in names:
            raise LoadFailed(
                f"{where}, shape: there is no input '{name[:80]}'; it has {_listed(config)}"
            )
    batched = config.max_batch_size > 0
    inputs = tuple(
        _narrowed(entry, shapes[entry.name], where, batched=batched)
        if entry.name in shapes
        else entry
        for entry in config.input
    )
    config = replace(config, input=inputs)
    sizes = {shape[0] for shape in shapes.values() if shape[0] > 0}
    if batched and len(sizes) > 1:
        raise LoadFailed(f"{where}, shape: the inputs must have the same batch size")
    return replace(config, max_batch_size=sizes.pop()) if batched and sizes else config


def _narrowed(entry: ModelInput, wanted: Shape, where: str, *, batched: bool) -> ModelInput:
    known = (-1, *entry.dims) if batched else entry.dims
    fits = len(wanted) == len(known) and all(
        -1 in (want, has) or want == has for want, has in zip(wanted, known, strict=True)
    )
    if not fits or entry.reshape is not None:
        raise LoadFailed(
            f"{where}, shape: input '{entry.name}' of the model is {list(known)}, which cannot be "
            f"{list(wanted)}; export it with the shape that you need"
        )
    dims = tuple(has if want == -1 else want for want, has in zip(wanted, known, strict=True))
    return replace(entry, dims=dims[1:] if batched else dims)


def _hold_to_batch(config: ModelConfig, most: int, where: str) -> ModelConfig:
    if config.max_batch_size > 0:
        return replace(config, max_batch_size=most)
    if all(entry.dims[:1] == (most,) for entry in config.input):
        return config
    raise LoadFailed(
        f"{where}, batch_size: the model does not take batches of any size; export it with a batch "
        f"size of {most}, or with one that may vary"
    )


def _check_channels(config: ModelConfig, key: str, where: str) -> None:
    try:
        parse_channels(config.parameter(f"ovms_{key}"))
    except ValueError:
        raise LoadFailed(f"{where}: the parameter ovms_{key} must be numbers") from None
    if not _has_float_images(config):
        raise LoadFailed(
            f"{where}, {key}: is for images, and the model has no input of four dimensions and "
            f"floating-point numbers; it has {_listed(config)}"
        )


def _check_precision(config: ModelConfig, where: str) -> None:
    precision = config.parameter("ovms_precision")
    if precision not in PRECISIONS.values():
        raise LoadFailed(
            f"{where}: the parameter ovms_precision must be one of "
            f"{', '.join(dict.fromkeys(PRECISIONS.values()))}"
        )
    is_their_own = all(entry.datatype.name == precision for entry in config.input)
    if not is_their_own and not _has_float_images(config):
        raise LoadFailed(
            f"{where}, precision: {precision} can only be made floating-point numbers of images, "
            "and the model has no input of four dimensions and floating-point numbers; it has "
            f"{_listed(config)}"
        )


def _has_float_images(config: ModelConfig) -> bool:
    batch = 1 if config.max_batch_size > 0 else 0
    return any(e.data_type in FLOATS and batch + len(e.dims) in (4, 5) for e in config.input)


def _listed(config: ModelConfig) -> str:
    return ", ".join(
        f"'{entry.name}' {entry.data_type}{list(entry.dims)}" for entry in config.input
    )


_COUNT: Final = re.compile(r"[0-9]{1,9}")
_DIMENSION: Final = re.compile(r"[0-9]{1,9}(:[0-9]{1,9})?|-1|\?")

Parse = Callable[[Any, str], Mapping[str, str]]

FORMS: Final[dict[str, Parse]] = {
    "shape": _shape_parameter,
    "batch_size": _batch_parameter,
    "mean": _channels_parameter("mean"),
    "scale": _channels_parameter("scale"),
    "precision": _precision_parameter,
}
"""The readers of these settings; each gives the parameters that the model keeps."""
