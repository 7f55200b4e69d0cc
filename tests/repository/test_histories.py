"""Whatever is asked of a repository, in whatever order and at once: the books balance."""

import asyncio
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelport.errors import ModelportError
from modelport.repository.lifecycle import Phase
from modelport.repository.repository import Repository

_NAMES = st.sampled_from(["a", "b", "e"])
_STEPS = st.one_of(
    st.tuples(st.just("load"), _NAMES),
    st.tuples(st.just("unload"), _NAMES),
    st.tuples(st.just("drop"), _NAMES),
    st.tuples(st.just("change"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("break"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("settle"), st.just("")),
)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(_STEPS, max_size=14))
def test_every_instance_is_served_or_given_back(
    bench: Any, run: Any, tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    bench.reset()
    for name in ("a", "b"):
        bench.model(name)
    bench.ensemble("e", "a", "b")

    async def ask(repository: Repository, verb: str, name: str) -> None:
        try:
            if verb == "load":
                await repository.load(name)
            else:
                await repository.unload(name, unload_dependents=verb == "drop")
        except ModelportError:
            pass

    async def main() -> None:
        repository = bench.repository()
        await repository.open()
        asked: list[asyncio.Task[None]] = []
        for verb, name in steps:
            match verb:
                case "change":
                    bench.model(name)
                case "break":
                    bench.model(name, fail="all")
                case "settle":
                    await asyncio.gather(*asked)
                    _check_books(bench, repository)
                case _:
                    asked.append(asyncio.create_task(ask(repository, verb, name)))
        await asyncio.gather(*asked)
        _check_books(bench, repository)
        await repository.close()
        assert bench.listener.live == {}
        assert sorted(bench.unloaded) == sorted(bench.loaded)

    run(main())


def _check_books(bench: Any, repository: Repository) -> None:
    ready = {
        (row.name, int(row.version))
        for row in repository.index()
        if row.state is Phase.READY and row.version is not None
    }
    assert ready == set(bench.listener.live)
    assert all(row.state is not Phase.LOADING for row in repository.index())
    if ("e", 1) in ready:
        assert {("a", 1), ("b", 1)} <= ready
