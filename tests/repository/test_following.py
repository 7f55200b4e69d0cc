"""A repository that follows its files, and one that is told to look."""

import asyncio
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from modelport.errors import LoadFailed, Unavailable
from modelport.repository.lifecycle import Phase
from modelport.repository.options import ControlMode
from modelport.repository.repository import Repository
from tests.waiting import until

Run = Callable[[Any], Any]
Bench = Any

QUICK = {"poll_s": 0.02, "settle_s": 0.01}


async def looks(bench: Bench, count: int) -> None:
    """Wait until the disk has been looked at so many times more."""
    wanted = bench.calls.count("look_at") + count
    await until(lambda: bench.calls.count("look_at") >= wanted)


def polled(bench: Bench, run: Run, use: Callable[[Repository], Any]) -> None:
    async def main() -> None:
        repository = bench.repository(ControlMode.POLL, **QUICK)
        await repository.open()
        try:
            await use(repository)
        finally:
            await repository.close()

    run(main())


def test_models_come_change_and_go_with_their_files(bench: Bench, run: Run) -> None:
    bench.model("a")

    async def use(repository: Repository) -> None:
        assert bench.listener.told == ["+a v1"]
        bench.model("b")
        await until(lambda: "+b v1" in bench.listener.told)
        bench.model("b", 2)
        await until(lambda: "-b v1" in bench.listener.told)
        assert bench.listener.told == ["+a v1", "+b v1", "+b v2", "-b v1"]
        shutil.rmtree(bench.root / "a")
        await until(lambda: "-a v1" in bench.listener.told)
        told = list(bench.listener.told)
        await looks(bench, 3)
        assert bench.listener.told == told
        # Triton's index lists what its directories hold.
        await until(lambda: "a" not in {row.name for row in repository.index()})
        states = {(row.name, row.version): (row.state, row.reason) for row in repository.index()}
        assert states["b", "2"] == (Phase.READY, "")

    polled(bench, run, use)


def test_what_is_still_being_copied_is_not_loaded(bench: Bench, run: Run) -> None:
    run_blocking = bench.run_blocking
    sizes: list[int] = []

    async def growing(function: Callable[..., Any], *arguments: Any) -> Any:
        if function.__name__ == "look_at" and sizes:
            bench.write("m/1/model.fake", '{"inputs": ' + " " * sizes.pop())
        return await run_blocking(function, *arguments)

    bench.run_blocking = growing

    async def use(repository: Repository) -> None:
        sizes.extend(range(8))
        await until(lambda: len(sizes) < 2)
        assert not any(call.startswith("bring_up m") for call in bench.calls)
        sizes.clear()
        bench.model("m")
        await until(lambda: bench.listener.told == ["+m v1"])

    polled(bench, run, use)


def test_a_torn_change_leaves_what_serves_and_is_mended_by_the_next(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def use(repository: Repository) -> None:
        bench.model("m", fail="all")
        await until(lambda: "m" in repository.failures)
        tries = bench.calls.count("bring_up m v1")
        await looks(bench, 4)
        assert bench.calls.count("bring_up m v1") == tries, "tried again without a reason"
        assert ("m", 1) in bench.listener.live
        bench.model("m", note="mended")
        await until(lambda: bench.listener.told == ["+m v1", "+m v1"])
        assert repository.failures == {}

    polled(bench, run, use)


def test_a_repository_that_is_away_for_a_moment_keeps_its_models(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def use(repository: Repository) -> None:
        away = bench.root.with_name("away")
        bench.root.rename(away)
        await looks(bench, 4)
        assert bench.listener.told == ["+m v1"]
        assert any("look for changed models failed" in line for _, line, *_ in _lines(bench))
        away.rename(bench.root)
        bench.model("n")
        await until(lambda: "+n v1" in bench.listener.told)

    polled(bench, run, use)


def _lines(bench: Bench) -> list[tuple[str, str]]:
    return [(level, text) for level, _, text in bench.host.lines]


def test_an_ensemble_comes_with_the_member_that_it_waited_for(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.ensemble("e", "a", "b")

    async def use(repository: Repository) -> None:
        assert "e" in repository.failures
        bench.model("b")
        await until(lambda: "+e v1" in bench.listener.told)
        assert repository.failures == {}
        shutil.rmtree(bench.root / "b")
        await until(lambda: "-b v1" in bench.listener.told)
        assert "-e v1" in bench.listener.told
        bench.model("b")
        await until(lambda: bench.listener.told.count("+e v1") == 2)

    polled(bench, run, use)


def test_loads_and_unloads_are_refused_while_polling(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def use(repository: Repository) -> None:
        for request in (repository.load("m"), repository.unload("m")):
            with pytest.raises(Unavailable, match="not allowed if polling is enabled"):
                await request

    polled(bench, run, use)


def test_closing_ends_polling(bench: Bench, run: Run) -> None:
    async def main() -> None:
        repository = bench.repository(ControlMode.POLL, **QUICK)
        await repository.open()
        await looks(bench, 2)
        await repository.close()
        bench.model("late")
        count = len(bench.calls)
        await asyncio.sleep(0.1)
        assert len(bench.calls) == count
        assert bench.listener.told == []

    run(main())


def test_the_list_of_ovms_is_followed_too(bench: Bench, run: Run) -> None:
    bench.model("models/a", 1, 2)
    bench.model("models/b", 7)

    def listed(**policies: object) -> None:
        entries = [
            {"name": name, "base_path": f"models/{name}", "model_version_policy": policy}
            for name, policy in policies.items()
        ]
        bench.write("config.json", {"model_config_list": [{"config": e} for e in entries]})

    async def main() -> None:
        listed(a={"all": {}})
        repository = bench.repository(ControlMode.POLL, sources=[bench.ovms()], **QUICK)
        await repository.open()
        assert bench.listener.told == ["+a v1", "+a v2"]
        assert bench.listener.live["a", 1].config.switch("ovms")
        listed(a={"specific": {"versions": [1]}}, b={"latest": {"num_versions": 1}})
        await until(lambda: "+b v7" in bench.listener.told)
        await until(lambda: "-a v2" in bench.listener.told)
        bench.write("config.json", '{"model_config_list": [')
        await looks(bench, 3)
        assert set(bench.listener.live) == {("a", 1), ("b", 7)}
        with pytest.raises(LoadFailed, match=r"^config\.json: The file is not valid json"):
            await repository.refresh()
        listed(b={"latest": {"num_versions": 1}})
        await until(lambda: set(bench.listener.live) == {("b", 7)})
        await repository.close()

    run(main())


def test_a_look_that_fails_is_told_once(bench: Bench, run: Run) -> None:
    async def main() -> None:
        bench.write("config.json", {"model_config_list": []})
        repository = bench.repository(ControlMode.POLL, sources=[bench.ovms()], **QUICK)
        await repository.open()
        for text in ("{", "[", "{"):
            bench.write("config.json", text)
            await looks(bench, 4)
        await repository.close()

    run(main())
    told = [message for level, _, message in bench.host.lines if level == "error"]
    assert len(told) == 3, told
    assert told[0].startswith(
        "the look for changed models failed, and is tried again: config.json: The file is not valid"
    )


# Told to look.


def test_who_asks_while_another_looks_hears_when_it_is_loaded(bench: Bench, run: Run) -> None:
    async def main() -> None:
        repository = bench.repository(ControlMode.POLL, poll_s=1000.0)
        await repository.open()
        bench.model("m")
        gate = bench.gate("bring_up m v1")
        first = asyncio.ensure_future(repository.refresh())
        await bench.reach("bring_up m v1")
        second = asyncio.ensure_future(repository.refresh())
        await asyncio.sleep(0.01)
        assert not second.done()
        gate.set()
        assert (await first, await second) == (True, False)
        assert bench.listener.told == ["+m v1"]
        await repository.close()

    run(main())


def test_a_refresh_loads_what_changed_at_once(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def main() -> None:
        repository = bench.repository(ControlMode.POLL, poll_s=1000.0)
        await repository.open()
        assert not await repository.refresh()
        bench.model("n")
        shutil.rmtree(bench.root / "m")
        assert await repository.refresh()
        assert bench.listener.told == ["+m v1", "-m v1", "+n v1"]
        assert not await repository.refresh()
        bench.model("n", fail="all")
        with pytest.raises(LoadFailed, match="load failed for model 'n'"):
            await repository.refresh()
        await repository.close()

    run(main())


def test_a_refresh_in_explicit_mode_looks_at_loaded_models_only(bench: Bench, run: Run) -> None:
    bench.model("m")
    bench.model("other")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        assert not await repository.refresh()
        bench.model("m", note="changed")
        assert await repository.refresh()
        assert bench.listener.told == ["+m v1", "+m v1"]

    run(main())


def test_a_refresh_is_refused_where_nothing_ever_changes(bench: Bench, run: Run) -> None:
    async def main() -> None:
        repository = bench.repository(ControlMode.NONE)
        await repository.open()
        with pytest.raises(Unavailable, match="--model-control-mode explicit"):
            await repository.refresh()

    run(main())
