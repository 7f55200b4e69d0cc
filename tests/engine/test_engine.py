import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Sequence
from typing import Any, cast

import pytest

from modelport.engine import engine as engine_module
from modelport.engine.engine import Engine, EngineOptions
from modelport.errors import InvalidRequest, ModelportError, NotFound, Unavailable
from modelport.repository.lifecycle import Phase
from modelport.repository.model import IndexRow
from modelport.runtimes.base import Batch, Outcome
from modelport.specs import Execution

from .conftest import (
    Bench,
    Execute,
    FakeRuntime,
    Gate,
    a_moment,
    config_of,
    doubling,
    request,
    until,
)


class FakeRepository:
    """What the engine asks of a repository: its rows, and to open and close."""

    def __init__(self, engine: Engine, rows: Sequence[IndexRow] = ()) -> None:
        self.engine = engine
        self.index_rows = list(rows)
        self.ready = True
        self.told: list[object] = []

    async def open(self) -> None:
        self.told.append("open")

    async def close(self) -> None:
        for served in self.engine.deployments():
            await self.engine.detach(served.name, served.version)
            served.source.unload()

    async def load(self, model: str, **how: object) -> None:
        self.told.append(("load", model, how))

    async def unload(self, model: str, **how: object) -> None:
        self.told.append(("unload", model, how))

    def unfinished(self) -> set[str]:
        return {"slow"}

    def rows(self, name: str) -> list[IndexRow]:
        return [row for row in self.index_rows if row.name == name] or [IndexRow(name)]

    def index(self) -> list[IndexRow]:
        return self.index_rows

    def is_ready(self, *, strict: bool) -> bool:
        return self.ready or not strict


class Shop:
    """An engine with a repository that does not exist."""

    def __init__(self, bench: Bench, *rows: IndexRow, execution: Execution = "thread") -> None:
        self.bench = bench
        self.engine = Engine(EngineOptions(execution=execution), bench.clock)
        self.repository = FakeRepository(self.engine, rows)

    async def open(self) -> "Shop":
        await self.engine.open(cast(Any, self.repository))
        return self

    async def close(self) -> None:
        """Close the engine as a test ends, with time for its threads to do so."""
        self.bench.loop.selector.patience_s = 1.0
        await self.engine.close()

    def serve(self, name: str, version: int = 1, run: Execute = doubling) -> FakeRuntime:
        loaded = self.bench.version(run, config=config_of(name=name), version=version)
        runtime: Any = loaded.instances[0]
        self.engine.attach([loaded])
        return cast(FakeRuntime, runtime)


def refusal(engine: Engine, model: str, version: str | None = None) -> ModelportError:
    with pytest.raises(ModelportError) as caught:
        engine.resolve(model, version)
    return caught.value


# Who answers.


def test_version_0_is_the_default_one_under_ovms_and_nowhere_else(bench: Bench) -> None:
    async def main() -> None:
        shop = await Shop(bench).open()
        shop.serve("m", 1)
        shop.serve("m", 3)
        assert isinstance(refusal(shop.engine, "m", "0"), NotFound)
        shop.engine.options = EngineOptions(is_ovms=True)
        shop.serve("m", 2)
        assert shop.engine.resolve("m", "0").version == 3
        await shop.close()

    bench.run(main())


def test_highest_version_answers_unless_one_is_named(bench: Bench) -> None:
    async def main() -> None:
        shop = await Shop(bench).open()
        for version in (2, 10, 9):
            shop.serve("m", version)
        resolve = shop.engine.resolve
        assert resolve("m").version == resolve("m", "").version == resolve("m", None).version == 10
        assert resolve("m", "9").version == 9
        assert [served.version for served in shop.engine.deployments("m")] == [2, 9, 10]
        await shop.engine.detach("m", 10)
        assert resolve("m").version == 9
        await shop.close()

    bench.run(main())


LOADING, FAILED = Phase.LOADING, Phase.UNAVAILABLE


@pytest.mark.parametrize(
    ("model", "version", "kind", "text"),
    [
        ("n", None, NotFound, "Request for unknown model: 'n' is not found"),
        ("digit", None, NotFound, "Request for unknown model: 'digit' is not found; did you mean "
         "'digits'?"),
        ("n", "1", NotFound, "Request for unknown model: 'n' is not found"),
        ("new", None, NotFound, "Request for unknown model: 'new' is not found"),
        ("torn", None, NotFound, "Request for unknown model: 'torn' is not found; the file is "
         "torn"),
        ("digits", "7", NotFound, "Request for unknown model: 'digits' version 7 is not found; "
         "served are the versions [1, 3]"),
        ("digits", "2", Unavailable, "Request for unknown model: 'digits' version 2 is not at "
         "ready state"),
        ("gone", None, NotFound, "Request for unknown model: 'gone' has no available versions "
         "(version 1: unloaded)"),
        ("gone", "1", Unavailable, "Request for unknown model: 'gone' version 1 is not at ready"),
        ("coming", None, NotFound, "Request for unknown model: 'coming' has no available versions"),
        ("digits", "x", InvalidRequest, "failed to get model version from specified version "
         "string 'x' (details: stol), version should be an integral value > 0"),
        ("digits", "-1", InvalidRequest, "invalid model version specified '-1' , version should"),
        ("digits", "²", InvalidRequest, "failed to get model version from specified version "),
        ("digits", str(2**63), InvalidRequest, "failed to get model version from specified ver"),
        ("digits", "9" * 9999, InvalidRequest, "failed to get model version from specified ver"),
        ("digits", "0", NotFound, "Request for unknown model: 'digits' version 0 is not found"),
        ("digits", "01", InvalidRequest, "invalid model version specified '01' , version should "
         "be an integral value > 0"),
    ],
)  # fmt: skip
def test_why_nobody_answers(
    bench: Bench, model: str, version: str | None, kind: type[Exception], text: str
) -> None:
    rows = [
        IndexRow("digits", "1", Phase.READY),
        IndexRow("digits", "2", LOADING),
        IndexRow("digits", "3", Phase.READY),
        IndexRow("gone", "1", FAILED, "unloaded"),
        IndexRow("coming", "1", LOADING),
        IndexRow("new"),
        IndexRow("torn", None, FAILED, "the file is torn"),
    ]

    async def main() -> None:
        shop = await Shop(bench, *rows).open()
        shop.serve("digits", 1)
        shop.serve("digits", 3)
        error = refusal(shop.engine, model, version)
        assert str(error).startswith(text)
        assert type(error) is kind
        assert len(str(error)) < 300
        await shop.close()

    bench.run(main())


def test_a_model_that_is_still_to_come_is_not_unknown_for_good(bench: Bench) -> None:
    """Clients try again what is unavailable, and give up what is not found."""

    class Starting(FakeRepository):
        async def open(self) -> None:
            self.said = refusal(self.engine, "n")

    async def main() -> None:
        engine = Engine(clock=bench.clock)
        repository = Starting(engine)
        await engine.open(cast(Any, repository))
        assert isinstance(repository.said, Unavailable)
        assert str(repository.said) == (
            "Server not ready: it is starting, and model 'n' is not served yet; ask again when it "
            "is"
        )
        assert isinstance(refusal(engine, "n"), NotFound)
        await engine.close()

    bench.run(main())


def test_engine_without_a_repository_says_that_too(bench: Bench) -> None:
    async def main() -> None:
        engine = Engine(clock=bench.clock)
        assert str(refusal(engine, "m")) == "Request for unknown model: 'm' is not found"
        assert engine.index() == []
        with pytest.raises(Unavailable, match="Server not ready"):
            await engine.load("m")

    bench.run(main())


def test_requests_can_be_sent_through_the_engine(bench: Bench) -> None:
    async def main() -> None:
        shop = await Shop(bench).open()
        shop.serve("m")
        sink = bench.sink()
        shop.engine.submit("m", None, request(4), sink)
        await sink.over.wait()
        assert sink.values == [[8.0]]
        shop.engine.is_exiting = True
        with pytest.raises(Unavailable, match="Server exiting"):
            shop.engine.submit("m", None, request(4), sink)
        await shop.close()

    bench.run(main())


# Coming and going.


def test_replacing_loses_no_request_and_unloads_after_the_last_one(bench: Bench) -> None:
    async def main() -> None:
        shop = await Shop(bench).open()
        gate = Gate()
        old = shop.serve("m", run=gate)
        running, _ = bench.submit(shop.engine.resolve("m"), 1)
        waiting, _ = bench.submit(shop.engine.resolve("m"), 2)
        await gate.reached()
        new = shop.serve("m")
        later, _ = bench.submit(shop.engine.resolve("m"), 3)
        await later.over.wait()
        assert new.batches == [[3]]
        assert not old.is_unloaded
        gate.open()
        await running.over.wait()
        await waiting.over.wait()
        await until(lambda: old.is_unloaded)
        assert old.batches == [[1], [2]]
        await shop.close()
        assert new.is_unloaded

    bench.run(main())


@pytest.mark.parametrize("execution", ["inline", "thread"])
def test_replacing_waits_for_asynchronous_requests(bench: Bench, execution: Execution) -> None:
    let_go: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def outcomes(batch: Batch) -> Sequence[Outcome]:
        event = asyncio.Event()
        let_go.append((asyncio.get_running_loop(), event))
        await event.wait()
        return doubling(batch)

    async def main() -> None:
        shop = await Shop(bench, execution=execution).open()
        old = shop.serve("m", run=lambda batch: outcomes(batch))
        sinks = [bench.submit(shop.engine.resolve("m"), value)[0] for value in range(3)]
        await until(lambda: len(let_go) == 3)
        shop.serve("m")
        await a_moment()
        assert not old.is_unloaded
        for loop, event in let_go:
            loop.call_soon_threadsafe(event.set)
        for sink in sinks:
            await sink.over.wait()
        await until(lambda: old.is_unloaded)
        await shop.close()

    bench.run(main())


def test_version_is_not_unloaded_while_an_abandoned_request_still_runs(bench: Bench) -> None:
    """Its caller has gone, but the model is in the middle of it."""

    async def main() -> None:
        shop = await Shop(bench).open()
        gate = Gate()
        old = shop.serve("m", run=gate)
        _, ticket = bench.submit(shop.engine.resolve("m"), 1)
        await gate.reached()
        ticket.cancel()
        detached = asyncio.ensure_future(shop.engine.detach("m", 1))
        await a_moment()
        assert not detached.done()
        assert old.executing == 1
        gate.open()
        await detached
        assert old.executing == 0
        await shop.close()

    bench.run(main())


def test_detached_version_answers_nobody_from_that_very_call(bench: Bench) -> None:
    async def main() -> None:
        shop = await Shop(bench).open()
        gate = Gate()
        shop.serve("m", run=gate)
        sink, _ = bench.submit(shop.engine.resolve("m"), 1)
        await gate.reached()
        finishing = shop.engine.detach("m", 1)
        assert isinstance(refusal(shop.engine, "m"), NotFound)
        assert shop.engine.deployments() == []
        gate.open()
        await finishing
        assert sink.values == [[2.0]]
        await shop.close()

    bench.run(main())


def test_model_that_raises_in_unload_is_told_to_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        shop = await Shop(bench).open()
        old = shop.serve("m")
        old.executing = 1  # its unload complains of that
        shop.serve("m")
        await until(lambda: not shop.engine._retiring)
        await shop.close()

    bench.run(main())
    assert "version 1 raised while it was unloaded: AssertionError" in caplog.text


def test_hundred_reloads_leave_no_thread_and_no_model_behind(bench: Bench) -> None:
    deployments: list[weakref.ref[object]] = []

    async def main() -> None:
        shop = await Shop(bench).open()
        before = threading.active_count()
        runtimes: list[FakeRuntime] = []
        for value in range(100):
            runtimes.append(shop.serve("m"))
            deployments.append(weakref.ref(shop.engine.resolve("m")))
            sink, _ = bench.submit(shop.engine.resolve("m"), value)
            await sink.over.wait()
        await until(lambda: all(runtime.is_unloaded for runtime in runtimes[:-1]))
        await until(lambda: not shop.engine._retiring and not shop.engine._closing)
        await until(lambda: threading.active_count() <= before + 1)
        await shop.close()
        await until(lambda: threading.active_count() <= before)

    bench.run(main())
    gc.collect()
    assert [ref() for ref in deployments if ref() is not None] == []


# The end.


def test_drain_waits_for_all_that_is_in_flight(bench: Bench) -> None:
    async def main() -> None:
        shop = await Shop(bench).open()
        gates = [Gate(), Gate()]
        shop.serve("a", run=gates[0])
        shop.serve("b", run=gates[1])
        sinks = [bench.submit(shop.engine.resolve(name), 1)[0] for name in "ab"]
        shop.serve("b")
        draining = asyncio.ensure_future(shop.engine.drain())
        for gate in gates:
            await gate.reached()
            assert not draining.done()
            gate.open()
        await draining
        assert all(sink.is_over for sink in sinks)
        assert shop.engine.is_exiting
        await shop.close()

    bench.run(main())


def test_closing_fails_the_rest_and_unloads_everything(bench: Bench) -> None:
    async def main() -> None:
        shop = await Shop(bench).open()
        gate = Gate()
        runtime = shop.serve("m", run=gate)
        sinks = [bench.submit(shop.engine.resolve("m"), value)[0] for value in range(3)]
        await gate.reached()
        closing = asyncio.ensure_future(shop.close())
        await a_moment()
        assert [str(sink.error) for sink in sinks] == ["Server exiting"] * 3
        gate.open()
        await closing
        assert runtime.is_unloaded
        with pytest.raises(Unavailable, match="Server exiting"):
            await shop.engine.unload("m")

    bench.run(main())


def test_model_that_never_returns_is_left_behind(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> Gate:
        shop = await Shop(bench).open()
        gate = Gate()
        stuck = shop.serve("stuck", run=gate)
        sink, _ = bench.submit(shop.engine.resolve("stuck"), 1)
        await gate.reached()
        began_ns = bench.clock.now_ns()
        await shop.engine.close()
        took_s = (bench.clock.now_ns() - began_ns) / 1e9
        assert took_s == pytest.approx(engine_module.CLOSE_LIMIT_S, rel=0.01)
        assert str(sink.error) == "Server exiting"
        assert not stuck.is_unloaded, "it is in the middle of execute"
        return gate

    with caplog.at_level(logging.ERROR):
        gate = bench.run(main())
    assert "left behind: slow, stuck" in caplog.text
    gate.open()


# What operators see.


def test_engine_is_ready_when_all_is_that_should_be(bench: Bench) -> None:
    async def main() -> None:
        shop = Shop(bench)
        engine = shop.engine
        assert not engine.is_ready()
        assert not engine.is_ready(strict=False)
        await shop.open()
        runtime = shop.serve("m")
        assert engine.is_ready()
        runtime.is_up = False
        assert not engine.is_ready()
        assert engine.is_ready(strict=False)
        runtime.is_up = True
        shop.repository.ready = False
        assert not engine.is_ready()
        assert engine.is_ready(strict=False)
        shop.repository.ready = True
        engine.is_exiting = True
        assert not engine.is_ready()
        assert not engine.is_ready(strict=False)
        assert engine.is_live()
        await engine.close()

    bench.run(main())


def test_engine_hands_on_what_is_the_repositorys(bench: Bench) -> None:
    async def main() -> None:
        shop = await Shop(bench, IndexRow("m", "1", Phase.READY)).open()
        await shop.engine.load("m", config="{}", files={"a": b""})
        await shop.engine.unload("m", unload_dependents=True)
        assert shop.repository.told == [
            "open",
            ("load", "m", {"config": "{}", "files": {"a": b""}}),
            ("unload", "m", {"unload_dependents": True}),
        ]
        assert [row.name for row in shop.engine.index()] == ["m"]
        shop.serve("b")
        shop.serve("a", 2)
        shop.serve("a", 1)
        served = [(each.name, each.version) for each in shop.engine.deployments()]
        assert served == [("a", 1), ("a", 2), ("b", 1)]
        assert shop.engine.deployments("none") == []
        assert repr(shop.engine) == "<Engine ['a', 'b']>"
        await shop.close()

    bench.run(main())


def test_lines_of_models_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    host = Engine().host
    with caplog.at_level(logging.DEBUG, logger="modelport.model"):
        for level in ("error", "warning", "info", "verbose", "loud"):
            host.log(level, f"a line, {level} with 100 %s", model="m")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "a line, error with 100 %s"),
        ("WARNING", "a line, warning with 100 %s"),
        ("INFO", "a line, info with 100 %s"),
        ("DEBUG", "a line, verbose with 100 %s"),
    ]
    assert {getattr(record, "model", None) for record in caplog.records} == {"m"}
