"""What the official clients are tried on, beside the example models."""

import asyncio
import json
from typing import Any

import numpy as np

import modelport


@modelport.model(inputs={"seconds": "FP32[1]"}, outputs={"slept": "FP32[1]"})
async def sleeping(seconds: Any) -> Any:
    """Answers after a time that the caller says."""
    await asyncio.sleep(float(seconds[0]))
    return seconds


@modelport.model(inputs={"x": "FP32[1]"}, outputs={"told": "BYTES[1]"})
def parameters_of(x: Any, parameters: dict[str, Any]) -> Any:
    """Tells the parameters of the request."""
    return np.array([json.dumps(dict(parameters), sort_keys=True).encode()], np.object_)


@modelport.model(inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1]"})
def failing(x: Any) -> Any:
    """Fails as models do."""
    raise ValueError("this model never works")
