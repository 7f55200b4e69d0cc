import pytest

from modelport.errors import ModelportError
from modelport.protocols.base import Access, Exchange, Reply, Route
from modelport.server.routing import (
    LONGEST_REMEMBERED,
    MOST_REMEMBERED,
    RouteClash,
    Router,
)


def _never(exchange: Exchange) -> None:
    raise AssertionError("the table calls no handler")


def _errors(error: ModelportError) -> Reply:
    return Reply(500)


def route(row: str, *tags: str) -> Route:
    method, pattern = row.split()
    return Route(
        method=method,
        pattern=pattern,
        access=Access.INFERENCE,
        handler=_never,
        errors=_errors,
        tags=frozenset(tags),
    )


def find(router: Router, row: str) -> tuple[str | None, dict[str, str]]:
    method, path = row.split()
    match = router.match(method, path)
    return (match.route.pattern if match.route else None), match.params


TABLE = Router(
    route(row)
    for row in (
        "GET /{service}",
        "GET /{rest:path}",
        "GET /v2",
        "GET /v2/models/{model}",
        "GET /v2/models/{model}/versions/{version:int}",
        "GET /v2/models/{model}/versions/{version}",
        "GET /v2/models/stats",
        "POST /v2/models/{name}/infer",
        "POST /v1/models/{model}:predict",
        "POST /v1/models/{model}",
        "GET /file={path:path}",
        "POST /v2/repository/{repository}/index",
        "POST /v2/repository/index",
    )
)


@pytest.mark.parametrize(
    ("asked", "pattern", "params"),
    [
        ("GET /v2", "/v2", {}),
        ("GET /v3", "/{service}", {"service": "v3"}),
        ("GET /", "/{rest:path}", {"rest": ""}),
        ("GET /a/b/c", "/{rest:path}", {"rest": "a/b/c"}),
        ("GET /v2/models/m", "/v2/models/{model}", {"model": "m"}),
        ("GET /v2/models/stats", "/v2/models/stats", {}),
        ("GET /v2/models/a%2Fb%20c", "/v2/models/{model}", {"model": "a/b c"}),
        (
            "GET /v2/models/m/versions/12",
            "/v2/models/{model}/versions/{version:int}",
            {"model": "m", "version": "12"},
        ),
        (
            "GET /v2/models/m/versions/x",
            "/v2/models/{model}/versions/{version}",
            {"model": "m", "version": "x"},
        ),
        ("POST /v2/models/m/infer", "/v2/models/{name}/infer", {"name": "m"}),
        ("POST /v1/models/m:predict", "/v1/models/{model}:predict", {"model": "m"}),
        ("POST /v1/models/m:n", "/v1/models/{model}", {"model": "m:n"}),
        ("GET /file=a/b.txt", "/file={path:path}", {"path": "a/b.txt"}),
        ("POST /v2/repository/index", "/v2/repository/index", {}),
        ("POST /v2/models//infer", None, {}),
    ],
)
def test_the_most_literal_route_answers(
    asked: str, pattern: str | None, params: dict[str, str]
) -> None:
    assert find(TABLE, asked) == (pattern, params)
    assert find(TABLE, asked) == (pattern, params), "remembered"


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = ["GET /a/{x}", "GET /a/b", "GET /{y}/b", "GET /{rest:path}", "GET /a/{n:int}"]
    for table in (rows, rows[::-1]):
        router = Router(map(route, table))
        assert [find(router, f"GET /{path}")[0] for path in ("a/b", "a/7", "a/c", "z/b", "z")] == [
            "/a/b",
            "/a/{n:int}",
            "/a/{x}",
            "/{y}/b",
            "/{rest:path}",
        ]


def test_routes_of_one_path_may_name_its_parameters_differently() -> None:
    router = Router([route("GET /m/{model}"), route("POST /m/{name}")])
    assert find(router, "POST /m/x") == ("/m/{name}", {"name": "x"})
    assert find(router, "GET /m/x") == ("/m/{model}", {"model": "x"})


def test_an_unknown_path_and_a_wrong_method_are_told_apart() -> None:
    router = Router([route("GET /a/{x}"), route("POST /a/{y}")])
    wrong = router.match("DELETE", "/a/b")
    assert (wrong.route, wrong.is_known_path, wrong.methods) == (None, True, ("GET", "POST"))
    unknown = router.match("GET", "/b")
    assert (unknown.route, unknown.is_known_path, unknown.methods) == (None, False, ())


def test_head_is_answered_like_get_only_where_the_protocol_says_so() -> None:
    router = Router([route("GET /metrics", "head"), route("GET /v2")])
    assert find(router, "HEAD /metrics")[0] == "/metrics"
    assert router.match("PUT", "/metrics").methods == ("GET", "HEAD")
    assert router.match("HEAD", "/v2").methods == ("GET",)


@pytest.mark.parametrize("other", ["POST /m/{model}", "POST /m/{name}"])
def test_two_routes_for_the_same_requests_are_an_error_that_names_both(other: str) -> None:
    with pytest.raises(RouteClash) as caught:
        Router([route("POST /m/{model}"), route(other)])
    assert "POST /m/{model}" in str(caught.value)
    assert other in str(caught.value)


@pytest.mark.parametrize("special", [".", "+", "(", "^"])
def test_literals_are_not_patterns(special: str) -> None:
    router = Router([route(f"GET /a{special}b/{{x}}")])
    assert find(router, f"GET /a{special}b/c")[1] == {"x": "c"}
    assert find(router, "GET /axb/c")[0] is None


def test_what_is_remembered_is_bounded() -> None:
    router = Router([route("GET /{x}")])
    for i in range(MOST_REMEMBERED * 2 + 1):
        assert find(router, f"GET /{i}")[1] == {"x": str(i)}
    long = "y" * LONGEST_REMEMBERED
    assert find(router, f"GET /{long}")[1] == {"x": long}
    assert find(router, "GET /a/b")[0] is None
    assert len(router._remembered) == 1
