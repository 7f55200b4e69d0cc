"""The service of ``make bench-bentoml``, as Modelport serves it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import numpy as np

import modelport as bentoml
from benchmarks.lanes import CHUNK_INTERVAL_S, CHUNKS
from modelport.validators import DType


@bentoml.service
class Iris:
    """Says to which class each row belongs."""

    @bentoml.api
    def classify(self, input_series: list[list[float]]) -> list[int]:
        """Give the index of the largest value of each row."""
        return [row.index(max(row)) for row in input_series]

    @bentoml.api(batchable=True, max_batch_size=32)
    def batched(self, x: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        """Take 5 ms for a batch, whether it holds one row or 32, and answer x + 1."""
        time.sleep(0.005)
        return x + 1

    @bentoml.api
    async def numbers(self) -> AsyncIterator[dict[str, int]]:
        """Count from 0: the first number at once, then one every 2 ms."""
        for index in range(CHUNKS):
            if index:
                await asyncio.sleep(CHUNK_INTERVAL_S)
            yield {"INDEX": index}

    @bentoml.api
    def numbers_on_threads(self) -> Iterator[dict[str, int]]:
        """Count in the same way without coroutines."""
        for index in range(CHUNKS):
            if index:
                time.sleep(CHUNK_INTERVAL_S)
            yield {"INDEX": index}

    @bentoml.api
    async def endless(self) -> AsyncIterator[bytes]:
        """Send as fast as the caller reads."""
        while True:
            yield bytes(4096)

    @bentoml.api
    def endless_on_threads(self) -> Iterator[bytes]:
        """Send in the same way without coroutines."""
        while True:
            yield bytes(4096)
