import pytest

from modelport.errors import Forbidden, ModelportError, Unauthenticated
from modelport.protocols.base import ADMIN, Access, Exchange, Reply, Route
from modelport.server.access import AccessDoor, principal_of
from modelport.server.cors import Cors
from modelport.server.setting_values import Restriction
from modelport.server.settings import Settings
from modelport.wire.http import RequestHead, parse_request_head

OPEN = sorted(set(Access) - ADMIN, key=lambda access: access.name)
ADMINISTRATION = sorted(ADMIN, key=lambda access: access.name)


def _never(exchange: Exchange) -> None:
    raise AssertionError("the door calls no handler")


def _errors(error: ModelportError) -> Reply:
    return Reply(500)


def route(access: Access) -> Route:
    return Route(method="POST", pattern="/x", access=access, handler=_never, errors=_errors)


def head(host: str | None = "127.0.0.1:8000", **headers: str) -> RequestHead:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    if host is not None:
        lines += f"Host: {host}\r\n"
    version = "1.1" if host is not None else "1.0"
    return parse_request_head(f"POST /x HTTP/{version}\r\n{lines}\r\n".encode())


def bearer(key: str) -> RequestHead:
    return head(Authorization=f"Bearer {key}")


def admit(door: AccessDoor, head: RequestHead, access: Access = Access.INFERENCE) -> str:
    return door.admit(head, route(access))


# Keys


@pytest.mark.parametrize("access", list(Access))
def test_without_keys_every_route_is_open_to_programs(access: Access) -> None:
    assert admit(AccessDoor(), head(), access) == ""


@pytest.mark.parametrize("access", [access for access in OPEN if access is not Access.PUBLIC])
def test_with_keys_everything_but_liveness_and_readiness_wants_one(access: Access) -> None:
    door = AccessDoor(api_keys=["one", "two"])
    with pytest.raises(Unauthenticated, match="Authorization: Bearer KEY"):
        admit(door, head(), access)
    with pytest.raises(Unauthenticated, match="not one of this server's"):
        admit(door, bearer("three"), access)
    assert admit(door, bearer("two"), access) == principal_of("two")


def test_liveness_and_readiness_need_no_key() -> None:
    door = AccessDoor(api_keys=["one"], admin_keys=["boss"])
    assert admit(door, head(), Access.PUBLIC) == ""


@pytest.mark.parametrize("value", ["one", "Basic one", "Bearer", "Bearer ", "Bearer  "])
def test_an_authorization_that_is_no_bearer_key_is_told_the_form(value: str) -> None:
    with pytest.raises(Unauthenticated, match="Bearer KEY") as caught:
        admit(AccessDoor(api_keys=["one"]), head(Authorization=value))
    assert "one" not in str(caught.value)


def test_the_scheme_may_be_in_any_case_but_the_key_not() -> None:
    door = AccessDoor(api_keys=["Key"])
    assert admit(door, head(Authorization="bearer Key"))
    with pytest.raises(Unauthenticated):
        admit(door, bearer("key"))


@pytest.mark.parametrize("key", ["on", "one ,x", "onee", "ONE", "\xf6ne", "Bearer one"])
def test_a_key_matches_whole_or_not_at_all(key: str) -> None:
    raw = b"POST /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % key.encode("latin-1")
    with pytest.raises(Unauthenticated):
        admit(AccessDoor(api_keys=["one"]), parse_request_head(raw))


def test_two_authorization_headers_are_no_key() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer one\r\nauthorization: x\r\n\r\n"
    with pytest.raises(Unauthenticated):
        admit(AccessDoor(api_keys=["one"]), parse_request_head(raw))


@pytest.mark.parametrize("access", ADMINISTRATION)
def test_administration_wants_the_admin_key_once_there_are_keys(access: Access) -> None:
    door = AccessDoor(api_keys=["one"], admin_keys=["boss"])
    with pytest.raises(Unauthenticated):
        admit(door, head(), access)
    with pytest.raises(Unauthenticated):
        admit(door, bearer("wrong"), access)
    with pytest.raises(Forbidden, match="needs the admin key"):
        admit(door, bearer("one"), access)
    assert admit(door, bearer("boss"), access) == principal_of("boss")


def test_an_admin_key_opens_everything() -> None:
    door = AccessDoor(api_keys=["one"], admin_keys=["boss"])
    assert admit(door, bearer("boss"), Access.INFERENCE) == principal_of("boss")


def test_with_api_keys_alone_administration_is_closed_and_says_how_to_open_it() -> None:
    door = AccessDoor(api_keys=["one"])
    with pytest.raises(Forbidden, match="--admin-key"):
        admit(door, bearer("one"), Access.MODEL_REPOSITORY)
    with pytest.raises(Unauthenticated):
        admit(door, bearer("wrong"), Access.MODEL_REPOSITORY)


def test_an_admin_key_alone_closes_administration_and_nothing_else() -> None:
    door = AccessDoor(admin_keys=["boss"])
    assert admit(door, head()) == ""
    with pytest.raises(Unauthenticated):
        admit(door, head(), Access.MODEL_REPOSITORY)
    with pytest.raises(Unauthenticated, match="admin key"):
        admit(door, bearer("one"), Access.MODEL_REPOSITORY)
    assert admit(door, bearer("boss"), Access.MODEL_REPOSITORY) == principal_of("boss")


def test_a_principal_is_short_stable_and_not_the_key() -> None:
    assert principal_of("one") == "596633c764b710f4"
    assert principal_of("one") != principal_of("two")
    assert "one" not in principal_of("one")


# Restricted categories


LOCK = Restriction(("inference", "model-repository", "health"), "X-Key", "secret")


@pytest.mark.parametrize(
    "access",
    [
        Access.INFERENCE,
        Access.MODEL_REPOSITORY,
        Access.REPOSITORY_INDEX,
        Access.PUBLIC,
        Access.MODEL_HEALTH,
    ],
)
def test_a_restricted_category_wants_its_header(access: Access) -> None:
    door = AccessDoor(restrictions=[LOCK])
    text = "This API is restricted, expecting header 'X-Key'"
    for sent in (head(), head(X_Key="wrong"), head(X_Key="")):
        with pytest.raises(Forbidden) as caught:
            admit(door, sent, access)
        assert str(caught.value) == text
    assert admit(door, head(x_key="secret"), access) == ""


@pytest.mark.parametrize("access", [Access.METADATA, Access.METRICS, Access.STATISTICS])
def test_other_categories_stay_open(access: Access) -> None:
    assert admit(AccessDoor(restrictions=[LOCK]), head(), access) == ""


def test_a_restriction_comes_before_keys_and_does_not_replace_them() -> None:
    door = AccessDoor(api_keys=["one"], restrictions=[LOCK])
    with pytest.raises(Forbidden, match="restricted"):
        admit(door, head())
    with pytest.raises(Unauthenticated):
        admit(door, head(X_Key="secret"))
    assert admit(door, head(X_Key="secret", Authorization="Bearer one"))


# Browsers


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "192.168.1.7:8000",
        "[::1]",
        "[::1]:8000",
        "localhost",
        "LocalHost:8000",
        "localhost.:8000",
        "models.example",
        "Models.Example:80",
        None,
    ],
)
def test_the_server_answers_to_addresses_localhost_and_its_names(host: str | None) -> None:
    assert admit(AccessDoor(host_names=["models.example"]), head(host)) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[::1].evil.example",
        "evil:127.0.0.1",
        "0x7f.1",
        "127.1",
        "",
        ":8000",
        "[]",
        "[::1",
    ],
)
def test_a_foreign_name_is_refused(host: str) -> None:
    """DNS rebinding: the page's own name resolves to this machine."""
    with pytest.raises(Forbidden, match="--allowed-host"):
        admit(AccessDoor(host_names=["models.example"]), head(host))


def test_a_star_answers_to_every_name() -> None:
    assert admit(AccessDoor(host_names=["*"]), head("any.example")) == ""


def test_a_page_of_the_server_itself_may_call() -> None:
    same = head("127.0.0.1:8000", Origin="http://127.0.0.1:8000", Sec_Fetch_Site="same-origin")
    assert admit(AccessDoor(), same) == ""


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "same-origin"},
    ],
)
def test_pages_from_elsewhere_are_refused_while_no_key_is_asked_for(
    headers: dict[str, str],
) -> None:
    """The official curls send JSON without a content type: no preflight protects the server."""
    with pytest.raises(Forbidden, match="--cors-origin"):
        admit(AccessDoor(), head(**headers))


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_what_a_person_typed_or_the_own_page_links_is_let_in(site: str) -> None:
    assert admit(AccessDoor(), head(Sec_Fetch_Site=site)) == ""


def test_a_page_that_cors_allows_may_call() -> None:
    door = AccessDoor(cors=Cors(["https://app.example"]))
    page = head(Origin="https://app.example", Sec_Fetch_Site="cross-site")
    assert admit(door, page) == ""
    with pytest.raises(Forbidden):
        admit(door, head(Origin="https://other.example"))
    with pytest.raises(Forbidden):
        admit(door, head(Sec_Fetch_Site="cross-site"))
    assert admit(AccessDoor(cors=Cors(["*"])), head(Sec_Fetch_Site="cross-site")) == ""


def test_with_a_key_it_does_not_matter_where_a_page_comes_from() -> None:
    """A page that knows the key was given it."""
    door = AccessDoor(api_keys=["one"])
    foreign = head("any.example", Authorization="Bearer one", Origin="https://evil.example")
    assert admit(door, foreign) == principal_of("one")


def test_probes_of_a_balancer_may_use_any_name() -> None:
    assert admit(AccessDoor(), head("pod-17.cluster"), Access.PUBLIC) == ""


# From the settings


def test_the_settings_name_keys_hosts_origins_and_restrictions() -> None:
    door = AccessDoor.from_settings(
        Settings(
            host="models.example",
            allowed_host=("alias.example",),
            cors_origin=("https://app.example",),
            admin_key=("boss",),
            http_restricted_api=(LOCK,),
        )
    )
    locked = {"X_Key": "secret"}
    assert admit(door, head("alias.example", **locked)) == ""
    assert admit(door, head("models.example", Origin="https://app.example", **locked)) == ""
    with pytest.raises(Forbidden):
        admit(door, head())
    with pytest.raises(Unauthenticated):
        admit(door, head(**locked), Access.MODEL_REPOSITORY)
    keyed = AccessDoor.from_settings(Settings(api_key=("one",)))
    with pytest.raises(Unauthenticated):
        admit(keyed, head())
