import pytest

from modelport.errors import LoadFailed
from modelport.repository.devices import InstanceDevice, decide_kinds, instance_devices
from modelport.runtimes.base import Gpus
from modelport.specs import InstanceGroup, ModelConfig
from modelport.wire import model_config

NONE = Gpus(why_none="there is none")
TWO = Gpus(count=2, are_preferred=True)
BY_NAME = Gpus(count=2)


def placed(gpus: Gpus, *groups: InstanceGroup) -> list[InstanceDevice]:
    """What becomes of some groups, as the repository does it."""
    config = ModelConfig(instance_group=decide_kinds(groups, gpus))
    return instance_devices(model_config.complete(config, name="m"))


def test_models_that_say_nothing_are_on_the_cpu_where_there_is_no_gpu() -> None:
    assert placed(NONE) == [InstanceDevice("m_0_0", "CPU")]


def test_models_that_say_nothing_are_on_every_gpu_that_is_preferred() -> None:
    assert placed(TWO) == [InstanceDevice("m_0_0", "GPU", 0), InstanceDevice("m_0_1", "GPU", 1)]


@pytest.mark.parametrize("kind", ["KIND_AUTO", "KIND_CPU"])
def test_gpus_that_are_not_preferred_are_used_by_name_only(kind: str) -> None:
    assert placed(BY_NAME, InstanceGroup(kind=kind)) == [InstanceDevice("m_0_0", "CPU")]


def test_each_gpu_of_a_group_has_its_count_of_instances() -> None:
    group = InstanceGroup(name="g", kind="KIND_GPU", count=2, gpus=(1, 0))
    assert placed(BY_NAME, group) == [
        InstanceDevice("g_0", "GPU", 1),
        InstanceDevice("g_1", "GPU", 1),
        InstanceDevice("g_2", "GPU", 0),
        InstanceDevice("g_3", "GPU", 0),
    ]


def test_groups_stand_one_after_another() -> None:
    groups = (InstanceGroup(kind="KIND_CPU", count=2), InstanceGroup(kind="KIND_GPU", gpus=(1,)))
    assert [each.kind for each in placed(TWO, *groups)] == ["CPU", "CPU", "GPU"]


def test_groups_of_one_name_count_on() -> None:
    groups = [InstanceGroup(name="g", kind="KIND_CPU", count=count) for count in (1, 2)]
    assert [each.name for each in placed(NONE, *groups)] == ["g_0", "g_1", "g_2"]


def test_model_may_choose_its_device_itself() -> None:
    assert placed(TWO, InstanceGroup(kind="KIND_MODEL")) == [InstanceDevice("m_0_0", "MODEL")]


@pytest.mark.parametrize(
    ("gpus", "wanted", "told"),
    [
        (NONE, (), r"instance_group\[0\] is KIND_GPU and wants a GPU, and there is none; set kind"),
        (NONE, (1,), "wants GPU 1, and there is none"),
        (TWO, (0, 2), "wants GPU 2, and this machine has 2 of them"),
        (TWO, (-1,), "wants GPU -1"),
        (Gpus(), (), "this backend executes on the CPU alone"),
    ],
)
def test_gpu_that_is_not_there_is_refused(gpus: Gpus, wanted: tuple[int, ...], told: str) -> None:
    with pytest.raises(LoadFailed, match=told):
        placed(gpus, InstanceGroup(kind="KIND_GPU", gpus=wanted))
