"""A server's engine with models in worker processes, without its sockets to clients."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent, indent

import numpy as np
import pytest

from modelport.dtypes import DATATYPE_BY_NUMPY
from modelport.engine.deployment import Deployment
from modelport.engine.engine import Engine, EngineOptions
from modelport.engine.executor import call_on_thread
from modelport.errors import ModelportError
from modelport.messages import ParameterValue, Request, Response, Tensors, Ticket
from modelport.repository.options import ControlMode, LoadOptions, RepositoryOptions
from modelport.repository.repository import Repository
from modelport.repository.sources import recognise
from modelport.runtimes.worker.stand_in import WorkerRuntime
from modelport.tensors import Array, Tensor

HEAD = """
import os, signal, sys, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

def x_of(request):
    return pb_utils.get_input_tensor_by_name(request, "x").as_numpy()

def y(array, **more):
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", np.asarray(array, np.float32))], **more)

class TritonPythonModel:
"""

CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""
PROCESS = 'parameters { key: "execution" value { string_value: "process" } }\n'
DECOUPLED = "model_transaction_policy { decoupled: true }\n"


class Answers:
    """A sink to await."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.over: asyncio.Future[list[Response]] = asyncio.get_running_loop().create_future()
        self.welcome = True

    def push(self, response: Response, final: bool) -> bool:
        self.responses.append(response)
        if final:
            self.end()
        return self.welcome

    def end(self) -> None:
        self.over.set_result(self.responses)

    def fail(self, error: ModelportError) -> None:
        self.over.set_exception(error)


@dataclass
class Bench:
    """Models by name in a repository, and the engine that serves them."""

    directory: Path
    engine: Engine = field(default_factory=Engine)
    mode: ControlMode = ControlMode.NONE
    load: LoadOptions = field(default_factory=LoadOptions)

    def write(
        self, name: str, methods: str, config: str = CONFIG + PROCESS, head: str = HEAD
    ) -> None:
        version = self.directory / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / "model.py").write_text(head + indent(dedent(methods), "    "))
        (version.parent / "config.pbtxt").write_text(config)

    def run(self, test: Callable[[], Awaitable[None]], limit_s: float = 30.0) -> None:
        async def main() -> None:
            repository = Repository(
                [recognise(str(self.directory))],
                RepositoryOptions(control_mode=self.mode, load=self.load),
                self.engine.host,
                self.engine,
                call_on_thread,
            )
            async with asyncio.timeout(limit_s):
                await self.engine.open(repository)
                self.failures = dict(repository.failures)
                try:
                    await test()
                finally:
                    await self.engine.close()

        asyncio.run(main())

    def deployment(self, name: str) -> Deployment:
        found = self.engine.resolve(name)
        assert isinstance(found, Deployment)
        return found

    def workers(self, name: str) -> list[WorkerRuntime]:
        workers = []
        for _, worker in self.deployment(name).workers():
            assert isinstance(worker, WorkerRuntime)
            workers.append(worker)
        return workers

    def submit(
        self,
        name: str,
        values: Array | list[float],
        parameters: Mapping[str, ParameterValue] | None = None,
    ) -> tuple[Answers, Ticket]:
        sink = Answers()
        array = np.asarray(values, np.float32) if isinstance(values, list) else values
        tensor = Tensor("x", DATATYPE_BY_NUMPY[array.dtype], array)
        request = Request(Tensors([tensor]), parameters=parameters or {})
        return sink, self.engine.submit(name, None, request, sink)

    async def ask(
        self,
        name: str,
        values: Array | list[float],
        parameters: Mapping[str, ParameterValue] | None = None,
    ) -> list[list[float]]:
        sink, _ = self.submit(name, values, parameters)
        return [each.outputs[0].array.tolist() for each in await sink.over]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models", Engine(EngineOptions()))
