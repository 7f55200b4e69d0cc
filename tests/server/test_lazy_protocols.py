from typing import Any, cast

import pytest

from modelport.errors import NotFound
from modelport.protocols import bentoml, ops, v1
from modelport.protocols.base import Access, Reply, Route
from modelport.server.lazy_protocols import BENTOML_ROWS, OPS_ROWS, V1_ROWS, Row, routes_later

ENGINE = cast(Any, None)


@pytest.mark.parametrize(
    ("rows", "routes"),
    [
        (BENTOML_ROWS, bentoml.routes(ENGINE, ())),
        (OPS_ROWS, ops.routes(ENGINE, cast(Any, None))),
        (V1_ROWS, v1.routes(ENGINE, v1.V1Options())),
    ],
)
def test_rows_are_those_of_the_protocol(rows: list[Row], routes: list[Route]) -> None:
    later = routes_later(rows, lambda: routes)
    assert {row.pattern for row in later} == {row.pattern for row in routes}
    for mine, its in zip(sorted(later, key=key), sorted(routes, key=key), strict=True):
        assert (mine.method, mine.pattern, mine.access) == (its.method, its.pattern, its.access)
        assert (mine.body, mine.max_body_bytes) == (its.body, its.max_body_bytes)
        assert mine.tags == its.tags


def key(route: Route) -> tuple[str, str]:
    return route.pattern, route.method


def test_protocol_is_loaded_once_and_when_it_is_needed() -> None:
    loaded: list[bool] = []
    seen: list[Any] = []

    def load() -> list[Route]:
        loaded.append(True)
        return [
            Route(
                method="GET",
                pattern="/a",
                access=Access.METADATA,
                handler=seen.append,
                errors=lambda error: Reply(404, (), [error.text.encode()]),
            )
        ]

    (route,) = routes_later([("GET", "/a", Access.METADATA)], load)
    assert not loaded
    route.handler(ENGINE)
    route.handler(ENGINE)
    assert route.errors(NotFound("gone")).body == [b"gone"]
    assert (len(loaded), len(seen)) == (1, 2)
