from modelport.server.cors import Cors
from modelport.wire.http import RequestHead, parse_request_head

PAGE = "https://app.example"


def head(method: str = "GET", **headers: str) -> RequestHead:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return parse_request_head(f"{method} /v2 HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())


def preflight(cors: Cors, **headers: str) -> dict[str, str] | None:
    asked = {"Origin": PAGE, "Access_Control_Request_Method": "POST", **headers}
    reply = cors.preflight(head("OPTIONS", **asked))
    if reply is None:
        return None
    assert (reply.status, list(reply.body)) == (204, [])
    return dict(reply.headers)


def test_no_origin_is_allowed_by_default() -> None:
    cors = Cors()
    assert not cors
    assert not cors.allows(PAGE)
    assert cors.answer_headers(head(Origin=PAGE)) == ()
    assert preflight(cors) is None


def test_an_allowed_page_may_read_the_answer_and_all_its_headers() -> None:
    cors = Cors([PAGE + "/"])
    assert cors
    assert dict(cors.answer_headers(head(Origin=PAGE))) == {
        "Access-Control-Allow-Origin": PAGE,
        "Vary": "Origin",
        "Access-Control-Expose-Headers": "*",
    }


def test_other_pages_and_other_callers_are_told_nothing() -> None:
    cors = Cors([PAGE])
    for others in ({"Origin": "https://app.example.evil"}, {"Origin": "null"}, {}):
        assert cors.answer_headers(head(**others)) == ()


def test_a_star_allows_every_page() -> None:
    cors = Cors(["*"])
    assert dict(cors.answer_headers(head(Origin="null")))["Access-Control-Allow-Origin"] == "*"


def test_origins_are_compared_in_lower_case() -> None:
    assert Cors(["https://App.Example"]).allows("https://app.example")


def test_a_preflight_is_given_leave_for_the_headers_it_names() -> None:
    asked = "authorization,content-type"
    headers = preflight(Cors([PAGE]), Access_Control_Request_Headers=asked)
    assert headers is not None
    assert headers["Access-Control-Allow-Headers"] == asked
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Max-Age"] == "600"
    assert "Access-Control-Allow-Private-Network" not in headers


def test_an_allowed_page_of_a_public_site_may_reach_into_a_private_network() -> None:
    headers = preflight(Cors([PAGE]), Access_Control_Request_Private_Network="true")
    assert headers is not None
    assert headers["Access-Control-Allow-Private-Network"] == "true"


def test_a_preflight_of_another_page_is_an_ordinary_request() -> None:
    assert preflight(Cors([PAGE]), Origin="https://evil.example") is None


def test_options_without_the_question_is_an_ordinary_request() -> None:
    assert Cors([PAGE]).preflight(head("OPTIONS", Origin=PAGE)) is None
