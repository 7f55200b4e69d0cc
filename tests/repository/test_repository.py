import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from modelport.errors import InvalidRequest, LoadFailed, PollFailed, Unavailable
from modelport.repository.lifecycle import Phase
from modelport.repository.model import IndexRow
from modelport.repository.options import ControlMode
from modelport.repository.repository import Repository
from tests.repository.conftest import lock

Run = Callable[[Any], Any]
Bench = Any


def rows(repository: Repository) -> list[tuple[Any, ...]]:
    return [(row.name, row.version, row.state, row.reason) for row in repository.index()]


# Opening.


def test_everything_is_loaded_at_start(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.model("b", 1, 2)
    repository = bench.repository(ControlMode.NONE)
    assert not repository.is_ready(strict=False)
    run(repository.open())
    assert sorted(bench.listener.told) == ["+a v1", "+b v2"]
    assert repository.is_ready(strict=True)
    assert rows(repository) == [("a", "1", Phase.READY, ""), ("b", "2", Phase.READY, "")]


def test_in_explicit_mode_only_named_models_are_loaded(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.model("b")
    repository = bench.repository(ControlMode.EXPLICIT, "b")
    run(repository.open())
    assert bench.listener.told == ["+b v1"]
    assert repository.index() == [IndexRow("a"), IndexRow("b", "1", Phase.READY)]


def test_a_star_names_everything(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.model("b")
    run(bench.repository(ControlMode.EXPLICIT, "*").open())
    assert sorted(bench.listener.told) == ["+a v1", "+b v1"]


def test_one_failure_at_start_stops_nobody_else(bench: Bench, run: Run) -> None:
    bench.model("good")
    bench.model("torn", fail="all")
    bench.write("garbled/config.pbtxt", "max_batch_size: many")
    repository = bench.repository(ControlMode.NONE)
    run(repository.open())
    assert bench.listener.told == ["+good v1"]
    assert sorted(repository.failures) == ["garbled", "torn"]
    assert repository.is_ready(strict=False)
    assert not repository.is_ready(strict=True)
    listed = {row.name: row for row in repository.index()}
    assert listed["torn"] == IndexRow("torn", "1", Phase.UNAVAILABLE, "the weights are torn")
    assert listed["garbled"].version is None
    assert listed["garbled"].state is Phase.UNAVAILABLE
    assert "config.pbtxt" in listed["garbled"].reason


def test_a_name_at_start_that_is_not_there_is_a_failure(bench: Bench, run: Run) -> None:
    repository = bench.repository(ControlMode.EXPLICIT, "missing")
    run(repository.open())
    assert repository.failures["missing"].startswith(
        "failed to load 'missing', failed to poll from model repository"
    )


def test_no_more_than_so_many_load_at_once(bench: Bench, run: Run) -> None:
    for index in range(6):
        bench.model(f"m{index}")
    run(bench.repository(ControlMode.NONE, most_loading=2).open())
    assert len(bench.listener.told) == 6
    assert bench.most_at_once == 2


def test_a_directory_without_a_model_is_not_a_model(bench: Bench, run: Run) -> None:
    bench.write("data/rows.csv")
    repository = bench.repository(ControlMode.NONE)
    run(repository.open())
    assert repository.index() == []
    assert repository.is_ready(strict=True)


# Loading.


def test_what_is_loaded_is_complete(bench: Bench, run: Run) -> None:
    bench.write(
        "m/config.pbtxt",
        'output { name: "Y" label_filename: "labels.txt" }'
        "instance_group { count: 2 } instance_group { count: 1 }",
    )
    bench.write("m/labels.txt", "cat\ndog\n")
    bench.model("m", 3)
    run(bench.repository(ControlMode.NONE).open())
    version = bench.listener.live["m", 3]
    assert (version.name, version.version) == ("m", 3)
    assert version.instance_names == ["m_0_0", "m_0_1", "m_1_0"]
    assert len(version.instances) == 3
    assert version.labels == {"Y": ("cat", "dog")}
    assert version.config.input[0].name == "X"
    assert version.config.backend == "fake"
    assert json.loads(version.config_json)["output"][0]["data_type"] == "TYPE_FP32"
    assert version.load_s > 0


def test_loading_what_has_not_changed_does_nothing(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        await repository.load("m")
        before = bench.calls.count("bring_up m v1")
        await repository.load("m")
        assert bench.calls.count("bring_up m v1") == before

    run(main())
    assert bench.listener.told == ["+m v1"]


def test_a_new_version_is_up_before_the_old_one_goes(bench: Bench, run: Run) -> None:
    bench.model("m", 1)

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        bench.model("m", 2)
        bench.listener.busy.add("m")
        await repository.load("m")
        assert bench.listener.told == ["+m v1", "+m v2", "-m v1"]
        assert bench.unloaded == []
        assert rows(repository) == [("m", "1", Phase.UNLOADING, ""), ("m", "2", Phase.READY, "")]
        bench.listener.finish("m")
        bench.listener.busy.clear()
        await repository.close()
        assert bench.unloaded[0] == "m_0_0 v1"

    run(main())


def test_versions_that_have_not_changed_stay_as_they_are(bench: Bench, run: Run) -> None:
    bench.write("m/config.json", {"version_policy": {"all": {}}})
    bench.model("m", 1, 2)

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        bench.model("m", 2, extra="changed")
        await repository.load("m")

    run(main())
    assert bench.listener.told == ["+m v1", "+m v2", "+m v2"]


def test_a_changed_configuration_loads_every_version_anew(bench: Bench, run: Run) -> None:
    bench.write("m/config.json", {"version_policy": {"all": {}}})
    bench.model("m", 1, 2)

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        bench.write(
            "m/config.json",
            {"version_policy": {"specific": {"versions": [2]}}, "instance_group": [{"count": 2}]},
        )
        await repository.load("m")
        assert len(bench.listener.live["m", 2].instances) == 2
        assert rows(repository)[1] == ("m", "2", Phase.READY, "")

    run(main())
    assert bench.listener.told == ["+m v1", "+m v2", "+m v2", "-m v1"]


def test_a_failing_reload_leaves_the_old_version_alone(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        served = bench.listener.live["m", 1]
        bench.model("m", fail="all")
        with pytest.raises(LoadFailed) as caught:
            await repository.load("m")
        assert caught.value.text == (
            "load failed for model 'm': version 1 is at UNAVAILABLE state: the weights are torn;"
        )
        assert bench.listener.live["m", 1] is served
        assert bench.unloaded == []
        why = f"serves as it was, and could not be loaded anew: {caught.value.text}"
        assert rows(repository) == [("m", "1", Phase.READY, why)]
        assert repository.is_ready(strict=True)
        bench.write("m/config.json", "{")
        with pytest.raises(LoadFailed, match="failed to load 'm', failed to poll from model"):
            await repository.load("m")
        assert bench.listener.live["m", 1] is served
        assert repository.is_ready(strict=True)
        bench.write("m/config.json", "{}")
        bench.model("m")
        await repository.load("m")
        assert rows(repository) == [("m", "1", Phase.READY, "")]

    run(main())
    assert bench.listener.told == ["+m v1", "+m v1"]


def test_files_that_are_not_the_expected_ones_are_not_served(bench: Bench, run: Run) -> None:
    bench.model("m")
    sums = {"MD5:config.json": "0" * 32}
    agents = {"model_repository_agents": {"agents": [{"name": "checksum", "parameters": sums}]}}

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        bench.write("m/config.json", agents)
        with pytest.raises(LoadFailed, match=r"the MD5 of 'config\.json' is "):
            await repository.load("m")

    run(main())
    assert bench.listener.told == ["+m v1"]


def test_a_reload_replaces_all_versions_or_none(bench: Bench, run: Run) -> None:
    bench.write("m/config.json", {"version_policy": {"all": {}}})
    bench.model("m", 1)

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        bench.model("m", 1, 2, extra="better")
        bench.model("m", 3, fail="all")
        with pytest.raises(LoadFailed, match="version 3 is at UNAVAILABLE state"):
            await repository.load("m")
        assert bench.listener.told == ["+m v1"]
        assert rows(repository)[0] == ("m", "1", Phase.READY, "")
        assert rows(repository)[1][3] == "not served, because version 3 failed"
        await repository.close()

    run(main())
    assert sorted(bench.unloaded) == ["m_0_0 v1", "m_0_0 v1", "m_0_0 v2"]


def test_a_first_load_serves_the_versions_that_come_up(bench: Bench, run: Run) -> None:
    bench.write("m/config.json", {"version_policy": {"all": {}}})
    bench.model("m", 1)
    bench.model("m", 2, fail="all")
    repository = bench.repository(ControlMode.NONE)
    run(repository.open())
    assert bench.listener.told == ["+m v1"]
    assert "version 2 is at UNAVAILABLE" in repository.failures["m"]
    assert not repository.is_ready(strict=True)


def test_instances_that_came_up_before_one_failed_are_given_back(bench: Bench, run: Run) -> None:
    bench.write("m/config.json", {"instance_group": [{"count": 3}]})
    bench.model("m", fail="m_0_2")
    run(bench.repository(ControlMode.NONE).open())
    assert bench.listener.told == []
    assert sorted(bench.unloaded) == ["m_0_0 v1", "m_0_1 v1"]


def test_what_the_model_raises_is_told_by_type_and_text(bench: Bench, run: Run) -> None:
    bench.model("m", **{"raise": "no such device"})
    repository = bench.repository(ControlMode.NONE)
    run(repository.open())
    assert rows(repository) == [("m", "1", Phase.UNAVAILABLE, "ValueError: no such device")]


def test_a_listener_that_refuses_keeps_nothing(bench: Bench, run: Run) -> None:
    bench.model("m")
    bench.listener.refusal = LoadFailed("execution is unknown")

    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        with pytest.raises(LoadFailed, match="execution is unknown"):
            await repository.load("m")
        await repository.close()

    run(main())
    assert bench.unloaded == ["m_0_0 v1"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing", "failed to load 'missing', failed to poll from model repository"),
        ("empty", "failed to load 'empty', no version is available"),
        ("unpicked", "failed to load 'unpicked', no version is available"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_known_words(
    bench: Bench, run: Run, name: str, text: str
) -> None:
    bench.write("empty/config.json", {})
    bench.model("unpicked")
    bench.write("unpicked/config.json", {"version_policy": {"specific": {"versions": [7]}}})

    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        with pytest.raises(LoadFailed) as caught:
            await repository.load(name)
        assert caught.value.text.startswith(text)
        assert str(bench.root) not in caught.value.text
        assert ("missing" in repository.failures) is False

    run(main())


def test_names_that_lead_elsewhere_are_refused(bench: Bench, run: Run) -> None:
    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        with pytest.raises(InvalidRequest, match=r"invalid model name '\.\./m'"):
            await repository.load("../m")
        with pytest.raises(InvalidRequest, match="path traversal"):
            await repository.unload("a/b")

    run(main())


def test_unloading_a_name_that_no_file_can_have_changes_nothing(bench: Bench, run: Run) -> None:
    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        before = repository.index()
        await repository.unload("n" * 300)
        assert repository.index() == before

    run(main())


def test_nothing_is_loaded_on_request_unless_the_mode_is_explicit(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def main() -> None:
        repository = bench.repository(ControlMode.NONE)
        await repository.open()
        for request in (repository.load("m"), repository.unload("m")):
            with pytest.raises(Unavailable, match="explicit model load / unload is not allowed"):
                await request

    run(main())


# Inline configurations.


def test_an_inline_configuration_replaces_only_what_it_gives(bench: Bench, run: Run) -> None:
    bench.write("m/config.json", {"parameters": {"k": "v"}, "instance_group": [{"count": 2}]})
    bench.model("m", dims=[-1, 1])

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        await repository.load("m", config='{"maxBatchSize": "16"}')
        config = bench.listener.live["m", 1].config
        assert config.max_batch_size == 16
        assert config.parameter("k") == "v"
        assert len(bench.listener.live["m", 1].instances) == 2
        await repository.load("m", config='{"instance_group": []}')
        assert len(bench.listener.live["m", 1].instances) == 1
        assert bench.listener.live["m", 1].config.max_batch_size == 0

    run(main())


def test_an_inline_configuration_stays_until_unload(bench: Bench, run: Run) -> None:
    bench.model("m", dims=[-1, 1])

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        await repository.load("m", config='{"max_batch_size": 8}')
        await repository.load("m")
        assert bench.listener.told == ["+m v1", "+m v1"]
        bench.model("m", dims=[-1, 2])
        await repository.load("m")
        assert bench.listener.live["m", 1].config.max_batch_size == 8
        await repository.unload("m")
        await repository.load("m")
        assert bench.listener.live["m", 1].config.max_batch_size == 0

    run(main())


@pytest.mark.parametrize("config", ["", "{", "[]", '{"max_batch": 1}', '{"name": "other"}'])
def test_a_bad_inline_configuration_changes_nothing(bench: Bench, run: Run, config: str) -> None:
    bench.model("m")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        served = bench.listener.live["m", 1]
        with pytest.raises(LoadFailed, match=r"^(load failed for model|failed to load) 'm'"):
            await repository.load("m", config=config)
        bench.model("m", extra="changed")
        await repository.load("m")
        assert bench.listener.live["m", 1] is not served

    run(main())


@pytest.mark.parametrize("field", ["default_model_filename", "label_filename"])
def test_an_inline_configuration_cannot_reach_other_files(
    bench: Bench, run: Run, field: str
) -> None:
    bench.model("m")
    bench.write("secret", "{}")
    config: dict[str, Any] = {field: "../../secret"}
    if field == "label_filename":
        config = {"output": [{"name": "Y", field: "../secret"}]}

    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        with pytest.raises(LoadFailed, match="secret"):
            await repository.load("m", config=json.dumps(config))
        assert bench.listener.told == []

    run(main())


# Unloading.


def test_unloading_returns_while_requests_are_in_flight(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        bench.listener.busy.add("m")
        await repository.unload("m")
        assert bench.listener.told == ["+m v1", "-m v1"]
        assert rows(repository) == [("m", "1", Phase.UNLOADING, "")]
        assert bench.unloaded == []
        assert repository.is_ready(strict=True)
        bench.listener.finish("m")
        await repository.close()
        assert bench.unloaded == ["m_0_0 v1"]
        assert rows(repository) == [("m", "1", Phase.UNAVAILABLE, "unloaded")]

    run(main())


def test_a_model_may_be_loaded_again_while_it_drains(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        bench.listener.busy.add("m")
        await repository.unload("m")
        await repository.load("m")
        assert rows(repository) == [("m", "1", Phase.READY, "")]
        bench.listener.finish("m")
        await bench.reach("unload")
        await asyncio.sleep(0)
        assert rows(repository) == [("m", "1", Phase.READY, "")]

    run(main())
    assert bench.listener.told == ["+m v1", "-m v1", "+m v1"]


def test_unloading_what_nobody_knows_is_fine(bench: Bench, run: Run) -> None:
    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        await repository.unload("nobody")
        assert repository.index() == []

    run(main())


def test_unloading_what_failed_makes_the_server_ready_again(bench: Bench, run: Run) -> None:
    bench.model("m", fail="all")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        assert not repository.is_ready(strict=True)
        await repository.unload("m")
        assert repository.is_ready(strict=True)
        assert repository.failures == {}
        assert rows(repository) == [("m", "1", Phase.UNAVAILABLE, "unloaded")]

    run(main())


def test_a_good_load_makes_the_server_ready_again(bench: Bench, run: Run) -> None:
    bench.model("m", fail="all")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "m")
        await repository.open()
        bench.model("m")
        await repository.load("m")
        assert repository.is_ready(strict=True)
        assert repository.failures == {}

    run(main())


def test_closing_takes_everything_down_and_refuses_more(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.model("b")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "*")
        await repository.open()
        await repository.close()
        assert sorted(bench.unloaded) == ["a_0_0 v1", "b_0_0 v1"]
        assert not repository.is_ready(strict=False)
        with pytest.raises(Unavailable, match="Server exiting"):
            await repository.load("a")

    run(main())


def test_closing_while_models_come_up_leaves_none_behind(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.model("b")

    async def main() -> None:
        gate = bench.gate("bring_up a v1")
        repository = bench.repository(ControlMode.EXPLICIT, "*", most_loading=1)
        opening = asyncio.create_task(repository.open())
        await bench.reach("bring_up a v1")
        closing = asyncio.create_task(repository.close())
        await asyncio.sleep(0)
        gate.set()
        await closing
        await opening
        assert bench.listener.live == {}
        assert len(bench.unloaded) == len(bench.listener.told) / 2

    run(main())


# Several at once.


def test_loads_of_one_model_come_one_after_another(bench: Bench, run: Run) -> None:
    bench.model("m", dims=[-1, 1])

    async def main() -> None:
        gate = bench.gate("bring_up m v1")
        repository = bench.repository()
        await repository.open()
        first = asyncio.create_task(repository.load("m"))
        await bench.reach("bring_up m v1")
        assert rows(repository) == [("m", "1", Phase.LOADING, "")]
        assert not repository.is_ready(strict=True)
        second = asyncio.create_task(repository.load("m", config='{"max_batch_size": 2}'))
        third = asyncio.create_task(repository.load("m"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert bench.calls.count("bring_up m v1") == 1
        gate.set()
        await asyncio.gather(first, second, third)
        assert bench.listener.live["m", 1].config.max_batch_size == 2

    run(main())
    assert bench.listener.told == ["+m v1", "+m v1"]


def test_a_slow_model_does_not_hold_up_others(bench: Bench, run: Run) -> None:
    bench.model("slow")
    bench.model("quick")

    async def main() -> None:
        gate = bench.gate("bring_up slow v1")
        repository = bench.repository()
        await repository.open()
        slow = asyncio.create_task(repository.load("slow"))
        await bench.reach("bring_up slow v1")
        await repository.load("quick")
        assert bench.listener.told == ["+quick v1"]
        gate.set()
        await slow

    run(main())


def test_an_unload_during_a_load_comes_after_it(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def main() -> None:
        gate = bench.gate("bring_up m v1")
        repository = bench.repository()
        await repository.open()
        load = asyncio.create_task(repository.load("m"))
        await bench.reach("bring_up m v1")
        unload = asyncio.create_task(repository.unload("m"))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(load, unload)

    run(main())
    assert bench.listener.told == ["+m v1", "-m v1"]


def test_a_load_goes_on_when_its_caller_has_gone(bench: Bench, run: Run) -> None:
    bench.model("m")

    async def main() -> None:
        gate = bench.gate("bring_up m v1")
        repository = bench.repository()
        await repository.open()
        load = asyncio.create_task(repository.load("m"))
        await bench.reach("bring_up m v1")
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        gate.set()
        await repository.load("m")
        assert rows(repository) == [("m", "1", Phase.READY, "")]

    run(main())
    assert bench.listener.told == ["+m v1"]


# Ensembles.


def test_an_ensemble_is_loaded_after_its_members(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.model("b")
    bench.ensemble("inner", "a", "b")
    bench.ensemble("outer", "inner", "a")
    run(bench.repository(ControlMode.NONE).open())
    assert bench.listener.told == ["+a v1", "+b v1", "+inner v1", "+outer v1"]
    assert bench.listener.live["outer", 1].instances == []


def test_loading_an_ensemble_loads_its_members(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.model("b")
    bench.ensemble("e", "a", "b")

    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        await repository.load("e")

    run(main())
    assert bench.listener.told == ["+a v1", "+b v1", "+e v1"]


def test_an_ensemble_with_a_missing_member_names_the_step(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.ensemble("e", "a", "nobody")

    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        with pytest.raises(LoadFailed, match="step 1 needs model 'nobody'"):
            await repository.load("e")
        assert [row.name for row in repository.index()] == ["a", "e"]

    run(main())


def test_a_step_cannot_reach_out_of_the_repository(bench: Bench, run: Run) -> None:
    bench.root = bench.root / "inside"
    bench.ensemble("e", "a")
    outside = bench.write("../outside/1/model.fake", {"outputs": {"Y": "TYPE_FP32"}})
    config = json.loads((bench.root / "e/config.json").read_text())
    config["ensemble_scheduling"]["step"][0]["model_name"] = "../outside"
    assert (bench.root / "../outside").exists()
    assert outside.exists()

    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        with pytest.raises(LoadFailed, match=r"step 0 needs model '\.\./outside'"):
            await repository.load("e", config=json.dumps(config))
        assert [row.name for row in repository.index()] == ["e"]

    run(main())
    assert bench.listener.told == []


def test_ensembles_in_a_circle_are_refused(bench: Bench, run: Run) -> None:
    bench.ensemble("e", "f")
    bench.ensemble("f", "e")
    bench.model("a")
    repository = bench.repository(ControlMode.NONE)
    run(repository.open())
    assert bench.listener.told == ["+a v1"]
    assert "failed to load 'e'" in repository.failures["e"]
    assert "circle: e, f" in repository.failures["f"]


def test_unloading_a_member_takes_its_ensembles_down(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.ensemble("inner", "a")
    bench.ensemble("outer", "inner")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "outer")
        await repository.open()
        bench.listener.told.clear()
        await repository.unload("a")
        await turns()
        assert rows(repository) == [
            ("a", "1", Phase.UNAVAILABLE, "unloaded"),
            ("inner", "1", Phase.UNAVAILABLE, because("a")),
            ("outer", "1", Phase.UNAVAILABLE, because("inner")),
        ]
        assert repository.is_ready(strict=True)
        await repository.load("outer")
        assert [row.reason for row in repository.index()] == ["", "", ""]
        await repository.unload("outer")
        await turns()
        assert repository.index()[2].reason == "unloaded"

    run(main())
    assert bench.listener.told[:3] == ["-outer v1", "-inner v1", "-a v1"]


def because(member: str) -> str:
    return f"unloaded, because model '{member}', which it needs, was unloaded"


async def turns() -> None:
    """Let versions that were taken down be given back."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_unloading_an_ensemble_leaves_its_members(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.ensemble("e", "a")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "e")
        await repository.open()
        await repository.unload("e")

    run(main())
    assert list(bench.listener.live) == [("a", 1)]


def test_dependents_go_unless_somebody_else_wants_them(bench: Bench, run: Run) -> None:
    for name in ("only", "named", "shared"):
        bench.model(name)
    bench.ensemble("e", "only", "named", "shared")
    bench.ensemble("other", "shared")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "e", "other", "named")
        await repository.open()
        await repository.unload("e", unload_dependents=True)

    run(main())
    assert sorted(bench.listener.live) == [("named", 1), ("other", 1), ("shared", 1)]


def test_an_ensemble_that_a_changed_member_does_not_fit_is_taken_down(
    bench: Bench, run: Run
) -> None:
    bench.model("a")
    bench.ensemble("e", "a")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "e")
        await repository.open()
        bench.model("a", outputs={"Z": "TYPE_FP32"})
        await repository.load("a")
        assert list(bench.listener.live) == [("a", 1)]
        assert not repository.is_ready(strict=True)
        await asyncio.sleep(0)
        await bench.reach("unload")
        await asyncio.sleep(0)
        (row,) = repository.rows("e")
        assert row.state is Phase.UNAVAILABLE
        assert "output_map names 'Y'" in row.reason

    run(main())


def test_members_and_ensemble_may_change_together(bench: Bench, run: Run) -> None:
    bench.model("a")
    bench.ensemble("e", "a")

    async def main() -> None:
        repository = bench.repository(ControlMode.EXPLICIT, "e")
        await repository.open()
        bench.model("a", outputs={"Y": "TYPE_INT64"})
        config = json.loads((bench.root / "e/config.json").read_text())
        config["output"][0]["data_type"] = "TYPE_INT64"
        bench.write("e/config.json", config)
        await repository.load("e")

    run(main())
    assert bench.listener.told == ["+a v1", "+e v1", "+a v1", "+e v1"]


# The index.


def test_the_index_sees_models_that_have_just_come(bench: Bench, run: Run) -> None:
    repository = bench.repository()
    run(repository.open())
    bench.model("late")
    assert repository.index() == [IndexRow("late")]


def test_a_version_that_is_asked_for_and_not_there_is_told(bench: Bench, run: Run) -> None:
    """As an error of the log, as in Triton, and in the index; the server is ready without it."""
    policy = {"version_policy": {"specific": {"versions": [1, 3, 7]}}}
    bench.model("m", 1, 2)
    bench.write("m/config.json", policy)
    repository = bench.repository(ControlMode.EXPLICIT, "m")
    text = "version 3 is specified for model 'm', but the version directory is not present"

    async def main() -> None:
        await repository.open()
        assert repository.is_ready(strict=True)
        told = [(version, state, reason[: len(text)]) for _, version, state, reason in
                rows(repository)]  # fmt: skip
        assert told == [
            ("1", Phase.READY, ""),
            ("3", Phase.UNAVAILABLE, text),
            ("7", Phase.UNAVAILABLE, text.replace("3", "7")),
        ]
        assert [line for line in map(str, bench.host.lines) if text in line] != []
        logged = len(bench.host.lines)
        assert [row.version for row in repository.rows("m")] == ["1"], "no request finds it"
        await repository.load("m")
        assert len(bench.host.lines) == logged, "it is told once"
        bench.model("m", 3)
        await repository.load("m")
        assert [row.state for row in repository.index()] == [
            Phase.READY,
            Phase.READY,
            Phase.UNAVAILABLE,
        ]
        await repository.unload("m")
        assert {row[3] for row in rows(repository)} == {"unloaded"}

    run(main())


def test_versions_that_are_all_missing_are_named(bench: Bench, run: Run) -> None:
    bench.model("m", 1)
    bench.write("m/config.json", {"version_policy": {"specific": {"versions": [9, 8]}}})
    repository = bench.repository(ControlMode.EXPLICIT, "m")
    run(repository.open())
    assert repository.failures["m"] == (
        "failed to load 'm', no version is available; its version_policy asks for 8, 9, and there "
        "is no such version directory"
    )


def test_a_directory_that_nobody_may_read_is_in_the_index_with_the_reason(
    bench: Bench, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.model("m")
    bench.model("n")
    reason = "the model directory cannot be read: permission denied"
    lock(monkeypatch, bench.root / "m")
    repository = bench.repository(ControlMode.EXPLICIT)

    async def main() -> None:
        await repository.open()
        assert rows(repository) == [
            ("m", None, Phase.UNAVAILABLE, reason),
            ("n", None, None, ""),
        ]
        assert repository.is_ready(strict=True), "nobody has asked for it"
        with pytest.raises(PollFailed, match=f"^failed to load 'm', failed to poll .*; {reason}$"):
            await repository.load("m")
        assert not repository.is_ready(strict=True)

    run(main())


def test_no_text_tells_where_files_lie(bench: Bench, run: Run) -> None:
    bench.write("broken/config.pbtxt", "?")
    bench.write("nofile/1/other")
    bench.write("labels/config.json", {"output": [{"name": "Y", "label_filename": "none.txt"}]})
    bench.model("labels")
    repository = bench.repository(ControlMode.NONE)
    run(repository.open())
    assert sorted(repository.failures) == ["broken", "labels", "nofile"]
    for text in repository.failures.values():
        assert str(bench.root) not in text
        assert "/" not in text.replace("1/", "")


# Warm-up requests.

WARM = {"model_warmup": [{"name": "w", "batch_size": 1, "inputs": {"X": {
    "data_type": "TYPE_FP32", "dims": [1], "zero_data": True}}}]}  # fmt: skip


def test_version_is_warmed_up_before_it_serves(bench: Bench, run: Run) -> None:
    bench.model("m")
    bench.write("m/config.json", WARM)
    run(bench.repository(ControlMode.NONE).open())
    assert bench.listener.told == ["~m v1", "+m v1"]


def test_version_that_fails_its_warm_up_is_let_go_and_the_one_before_serves_on(
    bench: Bench, run: Run
) -> None:
    bench.model("m")
    bench.write("m/config.json", WARM)
    repository = bench.repository(ControlMode.EXPLICIT, "m")
    run(repository.open())
    bench.listener.cold["m"] = LoadFailed("no room")
    bench.model("m")
    with pytest.raises(LoadFailed, match="version 1 is at UNAVAILABLE state: no room;"):
        run(repository.load("m"))
    assert bench.listener.told == ["~m v1", "+m v1", "~m v1", "!m v1"]
    assert bench.loaded == ["m_0_0 v1", "m_0_0 v1"]
    assert bench.unloaded == ["m_0_0 v1"]
    assert repository.is_ready(strict=False)
    del bench.listener.cold["m"]
    run(repository.load("m"))
    assert bench.listener.told[4:] == ["~m v1", "+m v1"]
