"""Ask mixed requests on many connections while the model behind them is reloaded.

Run as ``python -m benchmarks.clients.reload PORT REPOSITORY CONNECTIONS RELOADS``; prints one
JSON line. The requests and the reloads share this process's one event loop, so "sent after
the load returned" is a fact and no guess between two clocks.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import uvloop

from benchmarks import inputs
from benchmarks.clients.connection import Connection, LostError, NotSentError
from benchmarks.exchange import Exchange
from benchmarks.replies import Reply

_PAUSE_S = 0.25
_REASONS = 5
_MODEL = "generations"
_BROKEN_SOURCES = (
    "class TritonPythonModel:\n    def initialize(self, args):\n        raise OSError('no file')\n",
    "class TritonPythonModel\n",
)
_GENERATION_LINE = "GENERATION = "


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and how to read its answer: None if wrong, else the generation it names.

    A right answer of something that is not reloaded names no generation: 0.
    """

    request: bytes
    generation: Callable[[Reply], int | None]


@dataclass(slots=True)
class Tally:
    """What became of the requests, and which generations an answer may come from."""

    oldest: int = 1
    newest: int = 1
    answered: int = 0
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def judge(self, question: Question, reply: Reply, oldest: int) -> None:
        """Count an answer; ``oldest`` is the oldest generation allowed when it was asked."""
        self.answered += 1
        generation = _generation_of(question, reply)
        if generation is None or generation > self.newest:
            self.wrong.append(f"{reply.status} {reply.body[:200]!r}")
        elif 0 < generation < oldest:
            self.stale.append(f"generation {generation} after {oldest} had been loaded")


class Reloads:
    """Rewrite the model's file and have it loaded, a good one and a failing one in turn."""

    def __init__(self, port: int, repository: Path, tally: Tally) -> None:
        self.completed = 0
        self.refused = 0
        self._port = port
        self._file = repository / _MODEL / "1" / "model.py"
        self._source = self._file.read_text()
        self._tally = tally

    async def run(self, count: int) -> None:
        """Complete as many reloads as asked, with a failing one after each."""
        connection = await Connection.open(self._port)
        while self.completed < count:
            await asyncio.sleep(_PAUSE_S)
            await self._reload(connection)
            await asyncio.sleep(_PAUSE_S)
            await self._fail_to_reload(connection)
        connection.close()

    async def _reload(self, connection: Connection) -> None:
        generation = self._tally.newest + 1
        self._tally.newest = generation
        first = f"{_GENERATION_LINE}1\n"
        self._write(self._source.replace(first, f"{_GENERATION_LINE}{generation}\n"))
        reply = await connection.ask(_load_request(self._port))
        if reply.status != 200:
            raise RuntimeError(f"a good reload was refused: {reply.status} {reply.body!r}")
        self._tally.oldest = generation
        self.completed += 1

    async def _fail_to_reload(self, connection: Connection) -> None:
        self._write(_BROKEN_SOURCES[self.refused % len(_BROKEN_SOURCES)])
        reply = await connection.ask(_load_request(self._port))
        if reply.status < 400:
            raise RuntimeError(f"a broken model was loaded: {reply.status} {reply.body!r}")
        self.refused += 1

    def _write(self, source: str) -> None:
        # Replaced in one step: a server that looks at the wrong moment sees a whole file.
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(source)
        fresh.replace(self._file)


async def ask_until(
    ended: asyncio.Event, port: int, questions: list[Question], tally: Tally, seed: int
) -> None:
    """Ask one question after another, in an order of this connection's own."""
    random_numbers = random.Random(seed)
    connection = await Connection.open(port)
    while not ended.is_set():
        question = random_numbers.choice(questions)
        oldest = tally.oldest
        asked_at = time.perf_counter()
        try:
            reply = await connection.ask(question.request)
        except (LostError, NotSentError) as error:
            tally.lost.append(str(error) or "the server closed a connection in use")
            connection = await Connection.open(port)
            continue
        tally.slowest_s = max(tally.slowest_s, time.perf_counter() - asked_at)
        tally.judge(question, reply, oldest)
    connection.close()


def mixed_questions(port: int) -> list[Question]:
    """Give JSON and binary requests to the reloaded model, some to its neighbour, metadata."""
    random_numbers = random.Random(inputs.SEED)
    rows = [[random_numbers.uniform(-9, 9) for _ in range(size)] for size in (1, 4, 16) * 8]
    questions = [_json_question(port, row) for row in rows]
    questions += [_binary_question(port, size) for size in (4, 4_096, 16_384)] * 4
    questions += [_generate_question(port, row) for row in rows[:6]]
    questions += [_neighbour_question(port, exchange) for exchange in inputs.affine(12)]
    return questions + [_metadata_question(port)] * 4


async def main(port: int, repository: Path, connections: int, reloads: int) -> None:
    """Ask and reload until the reloads are done."""
    tally = Tally()
    questions = mixed_questions(port)
    ended = asyncio.Event()
    reloader = Reloads(port, repository, tally)
    async with asyncio.TaskGroup() as lanes:
        for seed in range(connections):
            lanes.create_task(ask_until(ended, port, questions, tally, seed))
        await reloader.run(reloads)
        ended.set()
    found = {
        "answered": tally.answered,
        "wrong": len(tally.wrong),
        "stale": len(tally.stale),
        "lost": len(tally.lost),
        "slowest_ms": tally.slowest_s * 1e3,
        "completed": reloader.completed,
        "refused": reloader.refused,
        "reasons": (tally.lost + tally.stale + tally.wrong)[:_REASONS],
    }
    print(json.dumps(found))


def _generation_of(question: Question, reply: Reply) -> int | None:
    try:
        return question.generation(reply) if reply.status == 200 else None
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _json_question(port: int, row: list[float]) -> Question:
    body = inputs.infer_body("INPUT0", (1, len(row)), row)
    exchange = Exchange("json", inputs.infer_path(_MODEL), body, lambda _: True)

    def generation(reply: Reply) -> int | None:
        outputs = inputs.outputs_by_name(reply)
        return _generation(outputs.get("OUTPUT0"), row, outputs.get("GENERATION"))

    return Question(exchange.request(port), generation)


def _binary_question(port: int, size: int) -> Question:
    row = np.random.default_rng(size).random((1, size), np.float32)
    tensor = {
        "name": "INPUT0",
        "shape": [1, size],
        "datatype": "FP32",
        "parameters": {"binary_data_size": row.nbytes},
    }
    outputs = [
        {"name": "GENERATION"},
        {"name": "OUTPUT0", "parameters": {"binary_data": True}},
    ]
    head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    exchange = Exchange(
        "binary",
        inputs.infer_path(_MODEL),
        head + row.tobytes(),
        lambda _: True,
        headers=(("Inference-Header-Content-Length", str(len(head))),),
    )
    expected = (row * 2).tobytes()

    def generation(reply: Reply) -> int | None:
        head_bytes = int(reply.headers.get("inference-header-content-length", "0"))
        if reply.body[head_bytes:] != expected:
            return None
        outputs = json.loads(reply.body[:head_bytes])["outputs"]
        data = next(output["data"] for output in outputs if output["name"] == "GENERATION")
        return int(data[0])

    return Question(exchange.request(port), generation)


def _generate_question(port: int, row: list[float]) -> Question:
    path = f"/v2/models/{_MODEL}/generate"
    exchange = Exchange("generate", path, json.dumps({"INPUT0": row}).encode(), lambda _: True)

    def generation(reply: Reply) -> int | None:
        answer = json.loads(reply.body)
        return _generation(_as_list(answer["OUTPUT0"]), row, _as_list(answer["GENERATION"]))

    return Question(exchange.request(port), generation)


def _neighbour_question(port: int, exchange: Exchange) -> Question:
    return Question(exchange.request(port), lambda reply: 0 if exchange.is_right(reply) else None)


def _metadata_question(port: int) -> Question:
    exchange = Exchange("metadata", f"/v2/models/{_MODEL}", b"", lambda _: True, method="GET")

    def generation(reply: Reply) -> int | None:
        return 0 if json.loads(reply.body)["name"] == _MODEL else None

    return Question(exchange.request(port), generation)


def _load_request(port: int) -> bytes:
    path = f"/v2/repository/models/{_MODEL}/load"
    return Exchange("load", path, b"", lambda _: True).request(port)


def _generation(
    output: list[float] | None, row: list[float], generation: list[float] | None
) -> int | None:
    if not generation or not inputs.are_close(output, [2 * value for value in row]):
        return None
    return int(generation[0])


def _as_list(value: object) -> list[float]:
    """Undo what generate does to tensors of one element: it writes them as scalars."""
    return value if isinstance(value, list) else [value]  # type: ignore[list-item]


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
