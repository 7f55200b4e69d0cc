"""Which device each instance of a model is loaded on.

``KIND_AUTO`` means the GPUs where the runtime has some and would rather use them, else the CPU, as
in Triton. On a GPU a group has ``count`` instances on each of its ``gpus``, by default on all.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from msgspec import Struct

from modelport.errors import LoadFailed
from modelport.runtimes.base import Gpus
from modelport.specs import InstanceGroup, ModelConfig

__all__ = ["InstanceDevice", "decide_kinds", "instance_devices"]


class InstanceDevice(Struct, frozen=True):
    """Where one instance goes.

    Attributes:
        name: Of the instance, ``<group>_<index>``.
        kind: ``CPU``, ``GPU`` or ``MODEL``.
        device_id: Of the GPU; 0 elsewhere.
    """

    name: str
    kind: str
    device_id: int = 0


def decide_kinds(groups: Sequence[InstanceGroup], gpus: Gpus) -> tuple[InstanceGroup, ...]:
    """Turn ``KIND_AUTO`` into GPU or CPU, and list the GPUs of the groups that have some.

    Raises:
        LoadFailed: If a group wants a GPU that the runtime does not have.
    """
    return tuple(
        _decided(group, index, gpus) for index, group in enumerate(groups or (InstanceGroup(),))
    )


def instance_devices(config: ModelConfig) -> list[InstanceDevice]:
    """List the instances of a complete configuration, group by group.

    Groups of the same name count on, so that no two instances are called the same.
    """
    next_by_group: Counter[str] = Counter()
    devices = []
    for group in config.instance_group:
        kind = group.kind.removeprefix("KIND_")
        for device_id in group.gpus or (0,):
            for _ in range(group.count):
                name = f"{group.name}_{next_by_group[group.name]}"
                devices.append(InstanceDevice(name, kind, device_id))
                next_by_group[group.name] += 1
    return devices


def _decided(group: InstanceGroup, index: int, gpus: Gpus) -> InstanceGroup:
    if group.kind == "KIND_AUTO" and gpus.count and gpus.are_preferred:
        group = replace(group, kind="KIND_GPU")
    if group.kind != "KIND_GPU":
        return group
    wanted = group.gpus or tuple(range(gpus.count))
    missing = [gpu for gpu in wanted if not 0 <= gpu < gpus.count]
    if missing or not wanted:
        which = f"GPU {missing[0]}" if missing else "a GPU"
        has = f"this machine has {gpus.count} of them" if gpus.count else gpus.why_none
        raise LoadFailed(
            f"instance_group[{index}] is KIND_GPU and wants {which}, and {has}; set kind to "
            "KIND_CPU, or leave it out to have the server choose"
        )
    return replace(group, gpus=wanted)
