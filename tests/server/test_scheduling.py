"""What a configuration says of queues, for real: a server, sockets, and a model that is held up."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.served import Served, serving

pytestmark = pytest.mark.slow

MODEL = """
import pathlib
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.count = 0
        self.directory = pathlib.Path(args["model_repository"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        if x[0, 0] < 0:
            (self.directory / "held").touch()
            while not (self.directory / "go").exists():
                time.sleep(0.002)
        self.count += 1
        count = np.array([[self.count]], np.int64)
        return pb_utils.InferenceResponse([pb_utils.Tensor("nth", count)])
"""

TENSORS = """
backend: "python"
max_batch_size: 1
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "nth" data_type: TYPE_INT64 dims: 1 }
"""
LEVELS = """
dynamic_batching {
  priority_levels: 3 default_priority_level: 2
  default_queue_policy { max_queue_size: 3 }
  priority_queue_policy {
    key: 3
    value { timeout_action: REJECT default_timeout_microseconds: 60000000
            allow_timeout_override: true }
  }
}
"""
DELAYS = """
dynamic_batching {
  default_queue_policy {
    timeout_action: DELAY default_timeout_microseconds: 60000000 allow_timeout_override: true
  }
}
"""


class Caller:
    """Sends requests side by side to one model of a server."""

    def __init__(self, served: Served, model: Path) -> None:
        self._url = served.url
        self._model = model
        self._pool = ThreadPoolExecutor(16)

    def send(self, x: float, **parameters: int) -> "Future[tuple[int, Any]]":
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}
        body = {"inputs": [tensor], "parameters": parameters}
        return self._pool.submit(self._post, json.dumps(body).encode())

    def queue(self, *priorities: int, **parameters: int) -> "list[Future[tuple[int, Any]]]":
        """Put requests into the queue one after the other."""
        before = self.pending()
        sent = []
        for count, priority in enumerate(priorities, 1):
            sent.append(self.send(1, priority=priority, **parameters))
            _until(partial(self._are_pending, before + count))
        return sent

    def _are_pending(self, count: int) -> bool:
        return self.pending() == count

    def hold(self) -> "Future[tuple[int, Any]]":
        """Keep the model busy until ``let_go``."""
        held = self.send(-1)
        _until((self._model / "held").exists)
        return held

    def let_go(self) -> None:
        (self._model / "go").touch()

    def pending(self) -> int:
        with urllib.request.urlopen(f"{self._url}/metrics") as page:
            lines = page.read().decode().splitlines()
        name = 'nv_inference_pending_request_count{model="' + self._model.name
        return int(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])

    def close(self) -> None:
        self.let_go()
        self._pool.shutdown()

    def _post(self, body: bytes) -> tuple[int, Any]:
        url = f"{self._url}/v2/models/{self._model.name}/infer"
        try:
            with urllib.request.urlopen(url, body, timeout=30) as reply:
                return reply.status, json.load(reply)["outputs"][0]["data"][0]
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)["error"]


def _until(fact: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < until
        time.sleep(0.005)


@contextmanager
def calling(directory: Path, config: str) -> Iterator[Caller]:
    """Serve the model with these queues."""
    model = directory / "models" / "counting"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text(MODEL)
    (model / "config.pbtxt").write_text(config)
    with serving(str(model.parent)) as served:
        made = Caller(served, model)
        try:
            yield made
        finally:
            made.close()


def test_priorities_timeouts_and_bounds_hold_over_sockets(tmp_path: Path) -> None:
    with calling(tmp_path, TENSORS + LEVELS) as caller:
        check_levels(caller)


def check_levels(caller: Caller) -> None:
    held = caller.hold()
    low = caller.queue(3, 3)
    usual = caller.queue(0, 0)
    high = caller.queue(1)
    # The timeout that it asks for is over while the model is busy.
    status, text = caller.send(1, priority=3, timeout=20_000).result(20)
    assert status == 503
    assert text.startswith("Request timeout expired")
    # Each level has room for three.
    high += caller.queue(1, 1)
    status, text = caller.send(1, priority=1).result(20)
    assert status == 503
    assert text.startswith("Exceeds maximum queue size; 3 requests of priority")
    caller.let_go()
    order = [answer.result(20) for answer in (held, *high, *usual, *low)]
    assert order == [(200, nth) for nth in range(1, 9)]


def test_who_has_waited_too_long_steps_back_over_sockets(tmp_path: Path) -> None:
    with calling(tmp_path, TENSORS + DELAYS) as caller:
        held = caller.hold()
        hurried = caller.queue(0, 0, timeout=10_000)
        patient = caller.queue(0, 0)
        # Nothing tells from outside that the first two are late by now.
        time.sleep(0.1)
        caller.let_go()
        order = [answer.result(20) for answer in (held, *patient, *hurried)]
        assert order == [(200, nth) for nth in range(1, 6)]
