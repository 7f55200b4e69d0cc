import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.served import Served, call, get, serving

FILE = Path(__file__).parent / "services_sample.py"

AFFINE = """

@bentoml.model(inputs={"x": "FP32[2]"}, outputs={"y": "FP32[2]"})
def affine(x):
    return 2 * x + 1
"""

NEAR = """
import modelport

@modelport.service
class Near:
    other = modelport.depends(url="{url}")

    @modelport.api
    def far(self, text: str) -> str:
        return self.other.echo(text=text)

    @modelport.api
    async def far_async(self, text: str) -> str:
        return await self.other.to_async.echo(text=text)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = tmp_path_factory.mktemp("models") / "models.py"
    models.write_text("import modelport as bentoml\n" + AFFINE)
    data = tmp_path_factory.mktemp("data")
    with serving(str(FILE), str(models), f"--data-dir={data}") as running:
        yield running
        assert running.stop() == 0
        assert any("Team has left" in line for line in running.lines)


def multipart(name: str, filename: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    disposition = f'form-data; name="{name}"; filename="{filename}"'
    head = f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    body = head + data + b"\r\n--xyz--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=xyz"}


def test_services_live_at_their_paths(served: Served) -> None:
    assert call(served, "/team/echo", {"text": "a"})[2] == b"a"
    assert call(served, "/echo", {"text": "a"})[2] == b"other a"
    status, headers, _ = call(served, "/team/echo", {"text": "a"})
    assert (status, headers["server"]) == (200, "BentoML Service/Team")
    assert len(headers["x-bentoml-request-id"]) == 16


def test_names_that_two_services_have_say_whose_they_are(served: Served) -> None:
    schema = json.loads(get(served, "/schema.json")[2])
    route_by_name = {each["name"]: each["route"] for each in schema["routes"]}
    assert route_by_name["Team_echo"] == "/team/echo"
    assert route_by_name["Other_echo"] == "/echo"
    assert "shout" not in route_by_name


def test_a_client_attaches_by_either_base(served: Served) -> None:
    assert get(served, "/team/readyz")[0] == get(served, "/readyz")[0] == 200
    below = json.loads(get(served, "/team/schema.json")[2])
    assert ("echo", "/echo") in [(each["name"], each["route"]) for each in below["routes"]]


def test_the_documentation_is_valid_and_needs_nobody_else(served: Served) -> None:
    document = json.loads(get(served, "/docs.json")[2])
    assert document["openapi"] == "3.1.0"
    # The validator looks at references and at the uniqueness of operation ids, too.
    OpenAPIV31SpecValidator(document).validate()
    assert {"Point", "Error"} <= set(document["components"]["schemas"])
    page = get(served, "/")[2].decode()
    assert "https://" not in page
    assert "http://" not in page


def test_services_answer_for_each_other(served: Served) -> None:
    assert call(served, "/team/through", {"text": "a"})[2] == b"A"
    assert call(served, "/team/through_async", {"text": "a"})[2] == b"A"
    status, _, body = call(served, "/team/through", {"text": "fail"})
    assert status == 500
    assert b"inner text" not in body


@pytest.mark.parametrize("path", ["/more/items", "/more/items_async"])
def test_generators_of_other_services_are_iterated_either_way(served: Served, path: str) -> None:
    assert json.loads(call(served, path, {})[2]) == ["0", "1", "0", "1"]


def test_routes_of_fastapi_in_a_class_are_its_methods(served: Served) -> None:
    assert get(served, "/more/fast/ann?times=2")[2] == b'"hello ann hello ann "'
    assert get(served, "/more/fast/free")[2] == b'"hello More"'


def test_a_context_tells_where_the_request_was_sent(served: Served) -> None:
    said = json.loads(call(served, "/more/where?a=1", {})[2])
    assert said == ["/more/where", "a=1", "1", "http://"]


def test_responses_of_starlette_are_passed_through(served: Served) -> None:
    status, headers, body = call(served, "/more/streamed", {})
    assert (status, body) == (201, b"ab")
    assert headers["content-type"].startswith("text/x-own")
    status, headers, body = call(served, "/more/sent", {})
    assert (status, body) == (200, b"hello")
    assert 'filename="b.txt"' in headers["content-disposition"]


def test_work_can_be_left_for_after_the_answer(served: Served) -> None:
    assert call(served, "/more/leave_work", {})[2] == b"ok"
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if json.loads(call(served, "/more/work_done", {})[2]) == ["done"]:
            break
    else:
        pytest.fail("it was not done")


def test_a_model_of_the_arguments_stands_in_for_the_signature(served: Served) -> None:
    assert call(served, "/more/spread", {"x": 3})[2] == b"3"
    assert call(served, "/more/spread", {"x": 3, "y": 2})[0] == 400
    assert call(served, "/more/spread", {})[0] == 400


def test_a_row_that_fails_is_the_failure_of_its_caller_alone(served: Served) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = list(
            pool.map(lambda at: call(served, "/more/halves", {"numbers": [at]}), range(16))
        )
    for at, (status, _, body) in enumerate(replies):
        said = json.loads(body)
        assert (status, said) == ((400, {"error": "it is odd"}) if at % 2 else (200, [at // 2]))


def test_a_service_of_another_server_answers_for_one_here(served: Served, tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text(NEAR.format(url=f"{served.url}/team"))
    with serving(str(tmp_path / "near.py")) as near:
        assert call(near, "/far", {"text": "a"})[2] == b"a"
        assert call(near, "/far_async", {"text": "b"})[2] == b"b"
        assert get(near, "/readyz")[0] == 200


@pytest.mark.parametrize("origin", ["https://app.example", "https://a.lab.example"])
def test_a_service_lets_in_the_pages_that_it_lists(served: Served, origin: str) -> None:
    asking = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-own",
    }
    status, headers, body = call(served, "/more/items", None, asking, "OPTIONS")
    assert (status, body) == (200, b"OK")
    assert headers["access-control-allow-origin"] == origin
    assert headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert headers["access-control-allow-headers"] == "x-own"
    assert headers["access-control-max-age"] == "77"
    status, headers, _ = call(served, "/more/items", {}, {"Origin": origin})
    assert status == 200
    assert headers["access-control-allow-origin"] == origin
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-expose-headers"] == "X-Bentoml-Request-Id"
    assert headers["vary"] == "Origin"


def test_other_pages_and_other_services_stay_closed(served: Served) -> None:
    foreign = {"Origin": "https://bad.example", "Access-Control-Request-Method": "POST"}
    status, headers, body = call(served, "/more/items", None, foreign, "OPTIONS")
    assert (status, body) == (400, b"Disallowed CORS origin")
    assert "access-control-allow-origin" not in headers
    assert call(served, "/more/items", {}, {"Origin": "https://bad.example"})[0] == 403
    known = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert call(served, "/team/echo", None, known, "OPTIONS")[0] == 405
    assert call(served, "/team/echo", {"text": "a"}, known)[0] == 403


def test_synchronous_calls_do_not_wait_for_each_other_and_are_bounded(served: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(
            pool.map(lambda _: call(served, "/team/together", {"seconds": 0.4}), range(8))
        )
    statuses = sorted(status for status, _, _ in replies)
    assert statuses == [200] * 4 + [429] * 4
    assert max(int(body) for status, _, body in replies if status == 200) > 1
    refused = next(reply for reply in replies if reply[0] == 429)
    assert json.loads(refused[2]) == {"error": "Too many requests"}
    assert refused[1]["retry-after"] == "1"


def test_a_call_that_takes_too_long_is_answered_504(served: Served) -> None:
    status, _, body = call(served, "/team/together", {"seconds": 3})
    assert status == 504
    assert json.loads(body) == {"error": "Not able to process the request in 2 seconds"}


def test_requests_share_batches(served: Served) -> None:
    with ThreadPoolExecutor(24) as pool:
        bodies = list(pool.map(lambda at: call(served, "/double", {"x": [[at]]})[2], range(48)))
    assert [json.loads(body) for body in bodies] == [[[2 * at]] for at in range(48)]
    sizes = json.loads(call(served, "/batches", {})[2])
    assert sum(sizes) == 48
    assert max(sizes) > 1
    assert max(sizes) <= 16


def test_endpoints_are_models_of_every_protocol(served: Served) -> None:
    metadata = json.loads(get(served, "/v2/models/count")[2])
    assert (metadata["name"], metadata["platform"]) == ("count", "service")
    request = {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["x"]}],
    }
    answer = json.loads(call(served, "/v2/models/Other_echo/infer", request)[2])
    assert answer["outputs"][0]["data"] == ["other x"]
    index = json.loads(call(served, "/v2/repository/index", {})[2])
    states = {each["name"]: each.get("state") for each in index}
    assert states["Other_echo"] == "READY"
    statistics = json.loads(get(served, "/v2/models/Other_echo/stats")[2])
    assert statistics["model_stats"][0]["inference_count"] >= 1


def test_models_are_endpoints(served: Served) -> None:
    assert json.loads(call(served, "/affine", {"x": [1, 2]})[2]) == [3.0, 5.0]
    status, _, body = call(served, "/affine", {"y": [1, 2]})
    assert status == 400
    assert "has no input 'y'" in json.loads(body)["error"]
    assert call(served, "/nothing", {})[0] == 404
    assert get(served, "/nothing")[0] == 404
    for wrong in (["1", "2"], [True, False], [None, 1.0], [[1], [2, 3]], "1"):
        status, _, body = call(served, "/affine", {"x": wrong})
        assert status == 400
        assert "input 'x' cannot be read as FP32" in json.loads(body)["error"]


def test_large_arguments_of_models_are_read_beside_the_loop(served: Served) -> None:
    padding = b" " * 100_000
    assert json.loads(call(served, "/affine", b'{"x": [1, 2]' + padding + b"}")[2]) == [3.0, 5.0]
    assert call(served, "/affine", b'{"x": [1, 2], "y": 1' + padding + b"}")[0] == 400
    assert call(served, "/affine", padding + b"[]")[0] == 400
    assert call(served, "/affine", padding + b"{")[0] == 400


REPEAT = """

@bentoml.model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"})
def affine(x):
    return 2 * x + 1
"""

STUDY = """
import modelport

@modelport.service
class Study:
    @modelport.api
    def echo(self, text: str) -> str:
        return text

    @modelport.task
    def learn(self, text: str) -> int:
        return len(text)
"""


def test_json_that_is_read_in_one_go_has_a_bound_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("import modelport as bentoml\n" + REPEAT)
    (tmp_path / "study.py").write_text(STUDY)
    files = [str(tmp_path / name) for name in ("study.py", "models.py")]
    with serving(*files, "--max-json-size=200KB", f"--data-dir={tmp_path / 'data'}") as running:
        text = {"text": "x" * 300_000}
        values = [1.0] * 100_000
        inputs = [{"name": "x", "datatype": "FP32", "shape": [100_000], "data": values}]
        refused = (
            ("/echo", text),
            ("/learn", text),
            ("/learn/submit", text),
            ("/affine", {"x": values}),
            ("/v1/models/affine:predict", {"instances": [{"x": values}]}),
        )
        for path, body in refused:
            status, _, said = call(running, path, body)
            assert status == 413, path
            assert b"--max-json-size" in said
            assert b"binary data" in said
        assert call(running, "/echo", {"text": "x" * 100_000})[0] == 200
        status, _, said = call(running, "/v2/models/affine/infer", {"inputs": inputs})
        assert (status, json.loads(said)["outputs"][0]["data"]) == (200, [3.0] * 100_000)
        few = {"x": values[:40_000]}
        # A large answer, which is written beside the loop.
        assert json.loads(call(running, "/affine", few)[2]) == [3.0] * 40_000


def test_streams_can_be_told_apart_and_say_that_they_failed(served: Served) -> None:
    ndjson = {"Accept": "application/x-ndjson"}
    lines = call(served, "/count", {"n": 3}, ndjson)[2].splitlines()
    assert [json.loads(line) for line in lines] == [0, 1, 2]
    last = json.loads(call(served, "/count", {"n": 6}, ndjson)[2].splitlines()[-1])
    assert "unexpected error" in last["error"]
    events = call(served, "/count", {"n": 6}, {"Accept": "text/event-stream"})[2].split(b"\n\n")
    assert events[0] == b"data: 0"
    assert events[6].startswith(b"event: error\ndata: ")
    with pytest.raises(http.client.IncompleteRead):
        call(served, "/count", {"n": 6})


def test_clients_that_do_not_read_a_stream_hold_up_nobody(served: Served) -> None:
    """More than there are threads for generators; each of these has a thread no more."""
    host, _, port = served.address.partition(":")
    body = b'{"n": 100000000}'
    head = f"POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.ExitStack() as held:
        for _ in range(80):
            peer = held.enter_context(socket.create_connection((host, int(port)), timeout=30))
            peer.sendall(head.encode() + body)
            assert peer.recv(1)
        assert call(served, "/count", {"n": 3})[2] == b"012"
        before = resident_bytes(served)
        assert call(served, "/count", {"n": 4})[2] == b"0123"
        assert resident_bytes(served) - before < 8_000_000


def test_files_are_gone_when_the_call_ends(served: Served) -> None:
    body, headers = multipart("file", "../../etc/cat.png", b"x" * 3_000_000)
    status, _, said = call(served, "/team/size", body, headers)
    assert status == 200
    size, name, folder = json.loads(said)
    assert (size, name) == (3_000_000, "cat.png")
    assert not Path(folder).exists()


def test_an_upload_that_breaks_off_leaves_nothing_behind(served: Served) -> None:
    body, headers = multipart("file", "a.bin", b"x" * 3_000_000)
    host, _, port = served.address.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /team/size HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: {headers['Content-Type']}\r\n\r\n"
        connection.sendall(head.encode() + body[:2_000_000])
    assert call(served, "/team/echo", {"text": "a"})[0] == 200


def test_an_upload_in_chunks_is_taken(served: Served) -> None:
    body, headers = multipart("file", "a.bin", b"y" * 2_500_000)
    host, _, port = served.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
    connection.request("POST", "/team/size", pieces, headers, encode_chunked=True)
    assert json.loads(connection.getresponse().read())[0] == 2_500_000
    connection.close()


def test_memory_stays_bounded_while_a_large_file_comes(served: Served) -> None:
    size = int(os.environ.get("MODELPORT_TEST_UPLOAD_BYTES", "200000000"))
    size -= size % 1_000_000
    head, headers = multipart("file", "big.bin", b"")
    start, end = head[: -len(b"\r\n--xyz--\r\n")], b"\r\n--xyz--\r\n"
    before = resident_bytes(served)
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, resident_bytes(served))

    watcher = threading.Thread(target=watch)
    watcher.start()

    def pieces() -> Iterator[bytes]:
        yield start
        for _ in range(size // 1_000_000):
            yield bytes(1_000_000)
        yield end

    host, _, port = served.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    length = {"Content-Length": str(len(start) + size + len(end))}
    connection.request("POST", "/team/size", pieces(), headers | length)
    answer = json.loads(connection.getresponse().read())
    done.set()
    watcher.join()
    connection.close()
    assert answer[0] == size
    assert most - before < 50_000_000


def resident_bytes(served: Served) -> int:
    pages = Path(f"/proc/{served.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"--xyz\r\n", {"Content-Type": "multipart/form-data; boundary=xyz"}),
        (b"", {"Content-Type": "multipart/form-data"}),
        (b"file=/etc/passwd", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b'{"file": "/etc/passwd"}', {"Content-Type": "application/json"}),
    ],
)
def test_what_is_no_file_is_refused(served: Served, body: bytes, headers: dict[str, str]) -> None:
    assert call(served, "/team/size", body, headers)[0] == 400


def test_urls_are_not_fetched_unless_the_operator_says_so(served: Served) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    url = b"file=http%3A%2F%2F169.254.169.254%2Flatest"
    status, _, body = call(served, "/team/size", url, form)
    assert status == 403
    assert "--url-allow 169.254.169.254" in json.loads(body)["error"]


def test_pickles_are_refused(served: Served) -> None:
    headers = {"Content-Type": "application/vnd.bentoml+pickle"}
    for path in ("/team/echo", "/echo", "/team/size"):
        assert call(served, path, b"\x80\x05N.", headers)[0] == 415


def test_applications_answer_below_their_path(served: Served) -> None:
    status, headers, body = get(served, "/team/web/page?x=1")
    assert (status, headers["content-type"]) == (200, "text/plain")
    assert body.split() == [b"GET", b"/team/web", b"/team/web/page"]
    assert call(served, "/team/web/a", b"hello")[2].split()[-1] == b"hello"


def test_metrics_have_the_names_that_dashboards_know(served: Served) -> None:
    call(served, "/echo", {"text": "a"})
    call(served, "/echo", {})
    page = get(served, "/metrics")[2].decode()
    lines = [line for line in page.splitlines() if 'endpoint="/echo"' in line]
    found = {line.partition("{")[0] for line in lines}
    assert found >= {
        "bentoml_service_request_total",
        "bentoml_service_request_in_progress",
        "bentoml_service_request_duration_seconds_bucket",
        "bentoml_service_last_request_timestamp_seconds",
    }
    totals = [line for line in lines if line.startswith("bentoml_service_request_total")]
    assert any('http_response_code="400"' in line for line in totals)
    # A service may say that it is not to be counted.
    assert 'endpoint="/more/items"' not in page
    busy = next(line for line in lines if "in_progress" in line)
    assert busy.endswith(" 0")


def test_metrics_tell_the_sizes_of_batches(served: Served) -> None:
    call(served, "/double", {"x": [[1], [2], [3]]})
    page = get(served, "/metrics")[2].decode()
    name = "bentoml_service_adaptive_batch_size"
    lines = [line for line in page.splitlines() if line.startswith(name) and '"double"' in line]
    bounds = [line.partition('le="')[2].partition('"')[0] for line in lines if "_bucket" in line]
    assert [float(bound) for bound in bounds] == [1, 2, 4, 8, 16, float("inf")]
    count = next(line for line in lines if line.startswith(f"{name}_count"))
    assert float(count.rpartition(" ")[2]) >= 1


def test_endpoints_are_models_over_grpc_and_generators_are_streams(served: Served) -> None:
    with grpc.insecure_channel(served.grpc_address) as channel:
        service = "/inference.GRPCInferenceService"
        infer = channel.unary_unary(
            f"{service}/ModelInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        request = pb.ModelInferRequest(model_name="Other_echo")
        text = request.inputs.add(name="text", datatype="BYTES", shape=[1])
        text.contents.bytes_contents.append(b"x")
        answer = infer(request, timeout=20)
        assert answer.raw_output_contents[0][4:] == b"other x"
        stream = channel.stream_stream(
            f"{service}/ModelStreamInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelStreamInferResponse.FromString,
        )
        request = pb.ModelInferRequest(model_name="count")
        request.inputs.add(name="n", datatype="INT64", shape=[1]).contents.int64_contents.append(7)
        seen = list(stream(iter([request]), timeout=20))
        numbers = [
            int.from_bytes(each.infer_response.raw_output_contents[0], "little")
            for each in seen
            if each.infer_response.raw_output_contents
        ]
        assert numbers == list(range(7))
        # This one fails in the end, and says so without saying what its author wrote.
        assert "unexpected error" in seen[-1].error_message
