"""What the parameters of a model configuration say about OpenVINO.

The names are OpenVINO's own properties, as in the ``plugin_config`` of OpenVINO Model Server, and
those of Triton's backend.

Source: OpenVINO, "Supported Properties"; Triton openvino backend, README, "Parameters".
"""

import os
from collections.abc import Mapping
from typing import Any

from modelport.errors import LoadFailed
from modelport.specs import ModelConfig

__all__ = ["device_of", "known_parameters", "properties_of"]


def device_of(core: Any, config: ModelConfig, kind: str, device_id: int) -> str:
    """Decide the device: by the parameter ``TARGET_DEVICE``, else by the instance's kind.

    Raises:
        LoadFailed: If this machine has none such, naming those that it has.
    """
    device = config.parameter("TARGET_DEVICE")
    if not device:
        if kind != "GPU":
            return "CPU"
        device = f"GPU.{device_id}"
    present = list(core.available_devices)
    # One GPU is called GPU, several GPU.0, GPU.1; AUTO:GPU,CPU and the like choose by themselves.
    usual = "GPU" if device == "GPU.0" and "GPU" in present else device
    first = usual.partition(":")[0]
    if first in (*present, "AUTO", "MULTI", "HETERO"):
        return usual
    raise LoadFailed(
        f"the model asks for the device {device}, and OpenVINO has {', '.join(present)} here; set "
        "instance_group kind to KIND_CPU, or the parameter TARGET_DEVICE to one of them"
    )


def properties_of(core: Any, device: str, config: ModelConfig) -> dict[str, str]:
    """Give the properties to compile with.

    By default a model's instances share the cores, as each of them would else take all.

    What is none of them is left out.
    """
    properties: dict[str, str] = {}
    if device == "CPU":
        properties["INFERENCE_NUM_THREADS"] = str(_threads(config))
    known = _properties(core, device)
    for name, parameter in config.parameters.items():
        text = parameter.string_value
        if name in _IGNORED or (name == "HINT_BF16" and text.upper() == "NO"):
            continue
        if name == "HINT_BF16":
            properties["INFERENCE_PRECISION_HINT"] = "bf16"
            continue
        own = _NAME_BY_OTHERS.get(name, name)
        if own in known:
            properties[own] = text.upper() if text in ("auto", "yes", "no") else text
    return properties


def _threads(config: ModelConfig) -> int:
    instances = sum(max(group.count, 1) for group in config.instance_group) or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // instances)


def known_parameters(core: Any, device: str) -> set[str]:
    """Name the parameters that mean something."""
    return {*_properties(core, device), *_NAME_BY_OTHERS, *_IGNORED, "HINT_BF16"}


def _properties(core: Any, device: str) -> set[str]:
    if ":" in device or device in ("AUTO", "MULTI", "HETERO"):
        device = "CPU"
    supported = core.get_property(device, "SUPPORTED_PROPERTIES")
    return {name for name, access in supported.items() if access == "RW"} - _NOT_OFFERED


_NAME_BY_OTHERS: Mapping[str, str] = {
    "CPU_THREADS_NUM": "INFERENCE_NUM_THREADS",
    "CPU_THROUGHPUT_STREAMS": "NUM_STREAMS",
    "CPU_BIND_THREAD": "ENABLE_CPU_PINNING",
}
"""Earlier names of OpenVINO, which configurations for Triton's and its own server still have."""

_IGNORED = frozenset(
    {
        "TARGET_DEVICE",
        # What these say holds here for every model: batches of any size, in one go.
        "SKIP_OV_DYNAMIC_BATCHSIZE",
        "SKIP_DYNAMIC_BATCHSIZE",
        "ENABLE_BATCH_PADDING",
        "RESHAPE_IO_LAYERS",
    }
)
_NOT_OFFERED = frozenset({"LOG_LEVEL", "DEVICE_ID"})
