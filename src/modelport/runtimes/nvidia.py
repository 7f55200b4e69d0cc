"""How many of NVIDIA's GPUs a process here can use, told by the driver's files."""

import itertools
import os
import re

__all__ = ["count_gpus"]


def count_gpus() -> int:
    """Count the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, without loading any library."""
    try:
        present = sum(_DEVICE.fullmatch(name) is not None for name in os.listdir("/dev"))
    except OSError:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    # CUDA takes the list up to the first entry that is none: "" and "-1" hide all.
    listed = itertools.takewhile(lambda each: each not in ("", "-1"), visible.split(","))
    return min(present, len(list(listed)))


_DEVICE = re.compile(r"nvidia\d+")
