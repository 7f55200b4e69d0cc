import json
import socket

import pytest

from modelport.cli import main
from tests.cli.conftest import EchoServer


def test_models_are_listed_with_state_inputs_and_outputs(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--url", server.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "version", "state", "inputs", "outputs", "reason"]
    assert lines[1].split() == ["sentiment", "1", "READY", "text", "BYTES[-1,1]", "text",
                                "BYTES[-1,1]"]  # fmt: skip
    assert lines[2].split()[:7] == ["numbers", "2", "READY", "x", "FP32[-1,2],", "n", "INT64[-1]"]
    assert lines[3].split() == ["broken", "1", "UNAVAILABLE", "no", "such", "file"]
    assert lines[4].split() == ["never"]


def test_one_model_is_described(server: EchoServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "numbers", "--url", server.url]) == 0
    assert capsys.readouterr().out == (
        "numbers version 2 READY\n"
        "  platform  onnxruntime_onnx\n"
        "  input     x FP32[-1,2]\n"
        "  input     n INT64[-1]\n"
        "  output    y FP32[-1,2]\n"
    )


def test_a_model_that_failed_says_why(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "broken", "--url", server.url]) == 0
    assert "  reason    no such\nfile" in capsys.readouterr().out


def test_json_has_all_of_it(server: EchoServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", server.url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in told] == ["sentiment", "numbers", "broken", "never"]
    assert told[0]["metadata"]["inputs"] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1, 1]}
    ]
    assert told[2]["metadata"] is None


def test_a_server_without_an_index_is_asked_for_its_list(
    server_without_index: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--url", server_without_index.url]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["sentiment", "1"]


def test_an_unknown_model_is_told_in_the_servers_words(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "nobody", "--url", server.url]) == 1
    assert capsys.readouterr().err == (
        "modelport models: [404] Request for unknown model: 'nobody' is not found\n"
    )


def test_the_server_and_the_key_can_come_from_the_environment(
    server: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPORT_URL", server.url.removeprefix("http://"))
    monkeypatch.setenv("MODELPORT_API_KEY", "hush")
    assert main(["models", "sentiment"]) == 0
    assert server.calls[0][2]["authorization"] == "Bearer hush"


def test_a_server_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["models", "--url", url]) == 1
    assert capsys.readouterr().err == (
        f"modelport models: cannot call {url}: nothing listens there; is the server running?\n"
    )


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:port"])
def test_a_url_that_is_none_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", url]) == 1
    assert f'cannot call "{url}"' in capsys.readouterr().err


METRICS = """\
# TYPE modelport_instances gauge
modelport_instances{model="numbers",version="2",team="a"} 2
modelport_instances{model="sentiment",version="1"} 1
modelport_busy_instances{model="numbers",version="2",team="a"} 1
modelport_busy_instances{model="sentiment",version="1"} 0
nv_inference_pending_request_count{model="numbers",version="2",team="a"} 7
nv_inference_pending_request_count{model="sentiment",version="1"} 0
"""


def test_how_busy_a_model_is_is_told_where_there_is_something_to_tell(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.metrics = METRICS
    assert main(["models", "--url", server.url]) == 0
    heading, sentiment, numbers, *_ = capsys.readouterr().out.splitlines()
    at = heading.index("load")
    assert sentiment[at:].strip() == ""
    assert numbers[at:].strip() == "1/2 busy, 7 waiting"


def test_one_model_tells_how_busy_it_is_in_any_case(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.metrics = METRICS
    assert main(["models", "sentiment", "--url", server.url]) == 0
    assert "\n  load      0/1 busy, 0 waiting\n" in capsys.readouterr().out
    assert main(["models", "--url", server.url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told[1]["load"] == {"instances": 2, "busy": 1, "pending": 7}
    assert told[2]["load"] is None


def test_page_that_is_no_metrics_is_passed_over(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.metrics = "<html>metrics</html>"
    assert main(["models", "sentiment", "--url", server.url]) == 0
    assert "load" not in capsys.readouterr().out
