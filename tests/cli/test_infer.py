import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.cli import main
from tests.cli.conftest import EchoServer


def infer(server: EchoServer, *arguments: str) -> int:
    return main(["infer", *arguments, "--url", server.url])


def sent(server: EchoServer) -> dict[str, Any]:
    """The JSON of the last request, which had no bytes behind it."""
    body: dict[str, Any] = json.loads(server.calls[-1][3])
    return body


def test_a_text_goes_out_and_comes_back(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(server, "sentiment", "--input", "text=a=b, what a day") == 0
    assert capsys.readouterr().out == 'text BYTES[1,1]\n  "a=b, what a day"\n'
    assert sent(server) == {
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["a=b, what a day"]}
        ]
    }


def test_numbers_are_laid_out_as_declared(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    big = 2**63 - 1
    assert infer(server, "numbers", "--input=x=0.1,2,3,NaN", f"--input=n=[{big}]") == 0
    told = capsys.readouterr().out
    assert told == (f"x FP32[2,2]\n  [[0.1, 2. ],\n   [3. , nan]]\nn INT64[1]\n  [{big}]\n")


def test_json_output_is_for_programs(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(server, "numbers", "--input=x=0.1,2", "--id=7", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "id": "7",
        "model_name": "numbers",
        "model_version": "1",
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 2.0]}],
    }


def test_the_binary_form_gives_the_same_answer(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("numbers", "--input=x=0.1,2", "--input=n=1,2", "--json")
    assert infer(server, *arguments) == 0
    plain = capsys.readouterr().out
    assert infer(server, *arguments, "--binary") == 0
    assert capsys.readouterr().out == plain
    assert "inference-header-content-length" in server.calls[-1][2]


def test_listed_outputs_are_asked_for_in_the_same_form(server: EchoServer) -> None:
    assert infer(server, "numbers", "--input=x=0.1,2", "--output=x", "--output=n") == 0
    assert sent(server)["outputs"] == [{"name": "x"}, {"name": "n"}]


def test_parameters_are_json_or_text(server: EchoServer) -> None:
    assert infer(
        server, "sentiment", "--input=text=x", "--parameter=a=1", "--parameter=b=yes",
        "--parameter=c=true", "--parameter=d=[1]",
    ) == 0  # fmt: skip
    assert sent(server)["parameters"] == {"a": 1, "b": "yes", "c": True, "d": "[1]"}


def test_a_version_goes_into_the_path(server: EchoServer) -> None:
    assert infer(server, "sentiment", "--input=text=x", "--version=1") == 0
    assert [call[1] for call in server.calls] == [
        "/v2/models/sentiment/versions/1",
        "/v2/models/sentiment/versions/1/infer",
    ]


def test_bytes_of_a_file_travel_as_they_are(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("seven.png").write_bytes(b"\x89PNG\xff")
    assert infer(server, "sentiment", "--input=text=@seven.png", "--json") == 0
    assert json.loads(capsys.readouterr().out)["outputs"][0]["data"] == [{"base64": "iVBOR/8="}]
    assert server.calls[-1][3].endswith(b"\x05\x00\x00\x00\x89PNG\xff")


def test_two_at_signs_are_one_character(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(server, "sentiment", "--input=text=@@me") == 0
    assert '"@me"' in capsys.readouterr().out


def test_numpy_files_are_arrays(server: EchoServer, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.array([[1.5, 2.5], [3.5, 4.5]]))
    Path("n.json").write_text("[1, 2]")
    assert infer(server, "numbers", "--input=x=@x.npy", "--input=n=@n.json", "--json") == 0
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert [output["data"] for output in outputs] == [[1.5, 2.5, 3.5, 4.5], [1, 2]]


def test_short_floats_go_as_bytes_because_triton_has_no_json_for_them(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(server, "halves", "--input=h=0.25,65504", "--json") == 0
    assert json.loads(capsys.readouterr().out)["outputs"][0]["data"] == [0.25, 65504.0]
    assert "inference-header-content-length" in server.calls[-1][2]


def test_a_whole_request_is_sent_as_it_is(
    server: EchoServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{ "inputs": [{"name":"text","datatype":"BYTES","shape":[1,1],"data":["hi"]}] }'
    Path("request.json").write_bytes(body)
    assert infer(server, "sentiment", "--request=request.json", "--raw-response") == 0
    assert server.calls[-1][3] == body
    assert json.loads(capsys.readouterr().out)["outputs"][0]["data"] == ["hi"]

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(body)))
    assert infer(server, "sentiment", "--request", "-") == 0
    assert server.calls[-1][3] == body


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["sentiment", "--input=txt=x"],
            '--input: expected NAME=VALUE with one of text BYTES[-1,1]; got "txt=x"',
        ),
        (
            ["numbers", "--input=x=a,b"],
            "--input: \"x\": expected FP32 as JSON or as values between commas, got 'a,b'",
        ),
        (["numbers", "--input=x=1,2,3"], '--input: "x": 3 values do not fill the shape [-1, 2]'),
        (
            ["numbers", "--input=x=[[1,2],[3]]"],
            '--input: "x": the rows of a nested array differ in length',
        ),
        (
            ["numbers", "--input=x=@nothing.npy"],
            '--input: cannot read "nothing.npy": No such file or directory',
        ),
        (
            ["numbers", "--input=x=@nothing"],
            '--input: cannot read "nothing": No such file or directory',
        ),
        (
            ["numbers", "--input=x=@text"],
            '--input: "x": bytes of a file fit BYTES only, and it is FP32; give .npy or .json',
        ),
        (
            ["numbers", "--input=n=@floats.npy"],
            '--input: "n": expected INT64, got an array of float64',
        ),
        *(
            (
                ["numbers", f"--input=n=@{name}.npy"],
                f'--input: "{name}.npy" is no whole .npy file, or one of Python objects, which are'
                " not read",
            )
            for name in ("empty", "cut", "other", "objects")
        ),
        (["numbers", "--input=x=1,2", "--input=x=3,4"], '--input: "x" is given twice'),
        (["sentiment", "--version=x"], '--version: expected a whole number, got "x"'),
        (["sentiment", "--parameter=x"], '--parameter: expected NAME=VALUE, got "x"'),
        (
            ["sentiment", "--request=r", "--input=text=x"],
            "--request: is the whole request; leave out --input",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(
    server: EchoServer,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    Path("text").write_text("x")
    np.save("floats.npy", np.array([0.5]))
    Path("empty.npy").touch()
    Path("cut.npy").write_bytes(Path("floats.npy").read_bytes()[:-1])
    Path("other.npy").write_text("no array")
    np.save("objects.npy", np.array([{}], object))
    assert infer(server, *arguments) == 2
    assert capsys.readouterr().err == f"modelport infer: {text}\n"
    assert not any(path.endswith("/infer") for _, path, _, _ in server.calls)


def test_an_integer_out_of_range_is_told(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(server, "numbers", f"--input=n={2**63}") == 2
    assert "n" in capsys.readouterr().err


def test_an_unknown_model_is_told_in_the_servers_words(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(server, "nobody", "--input=x=1") == 1
    assert capsys.readouterr().err == (
        "modelport infer: [404] Request for unknown model: 'nobody' is not found\n"
    )
