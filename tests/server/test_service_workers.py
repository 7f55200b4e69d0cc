"""A service with workers, over sockets: what BentoML's callers see, and what V2's do."""

import http.client
import io
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.served import Served, call, get, serving
from tests.waiting import eventually

FILE = Path(__file__).parent / "workers_sample.py"
OPTIONS = ("--task-cancel-grace-secs=0.5", "--access-log")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("data")
    with serving(str(FILE), f"--data-dir={data}", *OPTIONS) as running:
        yield running
        eventually(lambda: is_whole(running))
        spool = [each for each in (data / "spool").rglob("*") if each.name.startswith("call-")]
        assert spool == [], "a call has left its files"
        assert running.stop() == 0
        # Several processes write at once, and not always line by line.
        assert sorted(re.findall(r"ended \d", "".join(running.lines))) == [
            "ended 0",
            "ended 1",
            "ended 2",
        ]


def answer(served: Served, path: str, body: Any = None) -> Any:
    status, _, data = call(served, path, body or {})
    assert status == 200, data
    return json.loads(data)


def form(*parts: tuple[str, str, bytes]) -> tuple[bytes, dict[str, str]]:
    body = b""
    for name, filename, data in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
        body += f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + data + b"\r\n"
    return body + b"--xyz--\r\n", {"Content-Type": "multipart/form-data; boundary=xyz"}


def is_whole(served: Served) -> bool:
    return get(served, "/readyz")[0] == 200


@pytest.fixture(autouse=True)
def _both_workers_are_up(served: Served) -> None:
    eventually(lambda: is_whole(served))


def test_each_worker_has_an_object_of_the_service_and_of_what_it_depends_on(
    served: Served,
) -> None:
    with ThreadPoolExecutor(8) as pool:
        burns = [pool.submit(answer, served, "/burn", {"seconds": 0.2}) for _ in range(4)]
        said = [each.result() for each in [pool.submit(answer, served, "/who") for _ in range(8)]]
        pids = {each.result() for each in burns}
    assert {each["index"] for each in said} <= {1, 2}
    assert len(pids) == 2
    assert served.process.pid not in pids
    assert all(each["inner"] == each["pid"] and each["env"] == "set" for each in said)


def test_what_is_for_the_deployment_runs_once_and_in_the_server(served: Served) -> None:
    said = "".join(served.lines)
    assert re.findall(r"deployed (\d+)", said) == [str(served.process.pid)]
    assert {"0", "1", "2"} <= set(re.findall(r"began (\d)", said))


def test_calls_go_to_the_worker_that_has_less_to_do(served: Served) -> None:
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(answer, served, "/burn", {"seconds": 1.0})
        time.sleep(0.3)
        others = {answer(served, "/burn", {"seconds": 0.01}) for _ in range(6)}
        assert others.isdisjoint({busy.result()})
        assert len(others) == 1


def test_an_endpoint_that_keeps_the_interpreter_holds_up_nobody_else(served: Served) -> None:
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(answer, served, "/hold", {"seconds": 1.0})
        time.sleep(0.3)
        began_s = time.monotonic()
        assert call(served, "/hello", {"name": "a"})[2] == b"hello a"
        assert get(served, "/livez")[0] == 200 or holding.done()
        assert call(served, "/hello")[2] == b"hello you"
        assert time.monotonic() - began_s < 10
        holding.result()


def test_errors_are_told_as_in_one_process(served: Served) -> None:
    status, _, body = call(served, "/gone")
    assert (status, json.loads(body)) == (404, {"error": "it is gone"})
    status, _, body = call(served, "/fail")
    assert status == 500
    assert b"secret" not in body
    assert b"check the server log" in body
    eventually(lambda: any("a secret" in line for line in served.lines))
    status, _, body = call(served, "/burn", {"seconds": "soon"})
    assert status == 400
    assert json.loads(body)["detail"][0]["loc"] == ["seconds"]
    assert call(served, "/burn", b"{", {"Content-Type": "application/json"})[0] == 400


def test_a_worker_that_dies_fails_its_calls_with_the_reason_and_is_replaced(
    served: Served,
) -> None:
    status, _, body = call(served, "/die")
    assert status == 503
    assert b"killed by signal 9" in body
    # The other one goes on, and the server is alive all along.
    assert call(served, "/hello")[2] == b"hello you"
    assert get(served, "/livez")[0] == 200
    eventually(lambda: is_whole(served))
    assert "modelport_worker_restarts_total" in get(served, "/metrics")[2].decode()


def test_readiness_asks_every_worker(served: Served) -> None:
    assert call(served, "/set_ready", {"is_ready": False})[0] == 200
    assert get(served, "/readyz")[0] == 503
    eventually(
        lambda: call(served, "/set_ready", {"is_ready": True})[0] == 200 and is_whole(served)
    )


def test_streams_come_item_by_item(served: Served) -> None:
    assert call(served, "/count", {"n": 500})[2] == ",".join(map(str, range(500))).encode() + b","
    host, _, port = served.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        body = json.dumps({"n": 3, "pause": 1.0}).encode()
        head = f"POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        began_s = time.monotonic()
        connection.sendall(head.encode() + body)
        received = b""
        while b"0," not in received:
            received += connection.recv(1000)
        assert time.monotonic() - began_s < 0.9


def test_a_stream_that_fails_says_so(served: Served) -> None:
    headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
    lines = call(served, "/breaks", {"n": 2}, headers)[2].decode().splitlines()
    assert [json.loads(line) for line in lines[:2]] == [{"at": 0}, {"at": 1}]
    assert "error" in json.loads(lines[2])
    with pytest.raises(http.client.IncompleteRead):
        call(served, "/breaks", {"n": 2})


def test_a_caller_who_leaves_ends_its_stream(served: Served) -> None:
    host, _, port = served.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /forever HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
        )
        assert connection.recv(1000)
    eventually(lambda: any("forever was left" in line for line in served.lines))


def test_files_reach_the_worker_and_are_gone_afterwards(served: Served) -> None:
    large = os.urandom(3_000_000)
    body, headers = form(
        ("file", "a.dat", large),
        ("others", "b", b"12345"),
        ("others", "c", b""),
        ("note", "", b"some text"),
    )
    status, _, data = call(served, "/measure", body, headers)
    said = json.loads(data)
    assert status == 200
    assert (said["sizes"], said["suffix"], said["note"]) == ([3_000_000, 5, 0], ".dat", "some text")
    eventually(lambda: not Path(said["path"]).exists())


def test_images_come_and_go(served: Served) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    status, headers, data = call(served, "/shrink", *form(("image", "a.png", picture.getvalue())))
    assert (status, headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(data)).size == (2, 2)


@pytest.mark.parametrize("size", [5, 3_000_000])
def test_a_file_that_is_the_answer_arrives_whole(served: Served, size: int) -> None:
    status, headers, data = call(served, "/write?q=1", {"size": size})
    assert (status, headers["x-query"]) == (201, "1")
    assert headers["set-cookie"].startswith("a=b")
    assert data == b"w" * size


def test_answers_of_several_parts_and_of_starlette(served: Served) -> None:
    _, headers, data = call(served, "/both")
    assert headers["content-type"].startswith("multipart/form-data")
    assert b'name="file"; filename="both.txt"' in data
    assert b"\r\n\r\ntext\r\n" in data
    status, _, data = call(served, "/starlette")
    assert (status, data) == (202, b'{"a":1}')
    assert call(served, "/streaming")[0] == 500
    eventually(lambda: any("cannot leave a worker process" in line for line in served.lines))


def test_requests_share_batches_and_fail_alone(served: Served) -> None:
    def double(value: float) -> tuple[int, Any]:
        status, _, data = call(served, "/double", {"x": [[value, 1.0]]})
        return status, json.loads(data)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(double, [*map(float, range(23)), -1.0]))
    assert answers[:23] == [(200, [[2.0 * at, 2.0]]) for at in range(23)]
    assert answers[23] == (400, {"error": "no negative numbers"})
    with ThreadPoolExecutor(8) as pool:
        sizes = [pool.submit(answer, served, "/sizes_seen").result() for _ in range(4)]
    assert max(map(max, filter(None, sizes))) > 1
    # More rows than a batch may have are cut, and put together again.
    assert len(answer(served, "/double", {"x": [[1.0, 1.0]] * 40})) == 40


def test_v2_reaches_the_workers(served: Served) -> None:
    tensors = [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]
    _, _, body = call(served, "/v2/models/double/infer", {"inputs": tensors})
    assert json.loads(body)["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]
    seconds = [{"name": "seconds", "datatype": "FP64", "shape": [1], "data": [0.01]}]
    _, _, body = call(served, "/v2/models/burn/infer", {"inputs": seconds})
    assert json.loads(body)["outputs"][0]["data"][0] != served.process.pid
    with grpc.insecure_channel(served.grpc_address) as channel:
        infer = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        n = pb.ModelInferRequest.InferInputTensor(name="n", datatype="INT64", shape=[1])
        n.contents.int64_contents.append(3)
        request = pb.ModelInferRequest(model_name="count", inputs=[n])
        items = [each.infer_response.raw_output_contents for each in infer(iter([request]))]
        assert [item[0][4:] for item in items if item] == [b"0,", b"1,", b"2,"]


def test_mounted_applications_run_in_the_server(served: Served) -> None:
    said = get(served, "/web")[2]
    assert said == f"{served.process.pid} 0".encode()


def test_labels_are_in_the_metrics_and_paths_may_stay_out_of_the_access_log(
    served: Served,
) -> None:
    page = get(served, "/metrics")[2].decode()
    labels = 'service_name="Many",label_team="many",label_cost_centre="7"'
    assert f"modelport_service_labels{{{labels}}} 1" in page
    call(served, "/hello")
    eventually(lambda: any("/hello" in line and "200" in line for line in served.lines))
    assert not any("GET /readyz" in line and " 200" in line for line in served.lines)


def test_options_without_effect_are_named_in_the_log(served: Served) -> None:
    idle = "resources.cpu, resources.memory, traffic.concurrency, traffic.external_queue"
    assert any(f"Many: {idle} change nothing here" in line for line in served.lines)


# Tasks.


def submit(served: Served, path: str, body: Any = None) -> str:
    task_id: str = answer(served, f"{path}/submit", body)["task_id"]
    return task_id


def status(served: Served, path: str, task_id: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(get(served, f"{path}/status?task_id={task_id}")[2])
    return said


def test_a_task_reports_its_progress_and_ends(served: Served) -> None:
    task_id = submit(served, "/steps", {"n": 50})
    seen: list[Any] = []

    def is_over() -> bool:
        said = status(served, "/steps", task_id)
        seen.append(said.get("progress"))
        return bool(said["status"] == "completed")

    eventually(is_over)
    assert any(seen), "no progress was seen"
    assert get(served, f"/steps/get?task_id={task_id}")[2] == b"50 steps"


def test_a_cancelled_task_that_reports_stops_and_its_worker_lives(served: Served) -> None:
    before = {answer(served, "/who")["pid"] for _ in range(4)}
    task_id = submit(served, "/steps", {"n": 1000})
    eventually(lambda: status(served, "/steps", task_id).get("progress") is not None)
    assert call(served, f"/steps/cancel?task_id={task_id}", method="PUT")[0] == 200
    eventually(lambda: status(served, "/steps", task_id)["status"] == "canceled")
    time.sleep(0.8)
    assert is_whole(served)
    assert before & {answer(served, "/who")["pid"] for _ in range(4)}


def test_a_cancelled_task_that_does_not_stop_costs_its_worker(served: Served) -> None:
    task_id = submit(served, "/stubborn", {"seconds": 600})
    eventually(lambda: any("stubborn began" in line for line in served.lines))
    call(served, f"/stubborn/cancel?task_id={task_id}", method="PUT")
    eventually(lambda: any("did not stop within 0.5 s" in line for line in served.lines))
    assert status(served, "/stubborn", task_id)["status"] == "canceled"
    eventually(lambda: is_whole(served))


def test_what_the_end_of_a_worker_means_for_a_task_is_its_authors_policy(
    served: Served, tmp_path: Path
) -> None:
    again = submit(served, "/again", {"mark": str(tmp_path / "mark")})
    eventually(lambda: status(served, "/again", again)["status"] == "completed")
    assert get(served, f"/again/get?task_id={again}")[2] == b"at last"
    once = submit(served, "/once")
    eventually(lambda: status(served, "/once", once)["status"] == "failed")
    assert "killed by signal 9" in status(served, "/once", once)["reason"]


def test_a_worker_that_is_killed_under_load_costs_only_what_it_had(served: Served) -> None:
    pid = answer(served, "/burn", {"seconds": 0.01})
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(call, served, "/burn", {"seconds": 0.02}) for _ in range(60)]
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        statuses = [each.result()[0] for each in calls]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 30
