import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from modelport.errors import InvalidArguments, LoadFailed
from modelport.services.context import Context
from modelport.services.declaration import Api, api, service
from modelport.services.endpoint import Endpoint, Field
from modelport.services.files import Folder, Upload
from modelport.validators import ContentType, DType, Shape


class Point(BaseModel):
    x: float
    y: float = 0.0


class Reading(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    values: Annotated[np.ndarray, Shape((2, -1)), DType("float32")]
    unit: str = "m"
    inside: list["Reading"] = []


class Report(BaseModel):
    readings: dict[str, Reading]
    where: Path | None = None


class Opaque:
    """Of which pydantic knows nothing."""


@service
class Sample:
    @api
    def report(self, report: Report, maybe: Report | None = None) -> Report:
        return report

    @api
    def opaque(self, text: str, thing: Opaque | None = None) -> dict[str, Opaque]:
        return {}

    @api
    def plain(self, text: str, n: int = 3, opt: float | None = None) -> dict[str, Any]:
        return {"text": text, "n": n, "opt": opt}

    @api
    def bounded(self, n: int = Field(default=2, ge=1, le=5)) -> int:
        return n

    @api
    def model(self, point: Point) -> Point:
        return point

    @api
    def array(self, x: Annotated[np.ndarray, Shape((2, -1)), DType("int32")]) -> np.ndarray:
        return x

    @api
    def nested(self, xs: dict[str, np.ndarray]) -> list[float]:
        return [float(each.sum()) for each in xs.values()]

    @api
    def file(self, file: Annotated[Path, ContentType("text/*")]) -> str:
        return file.read_text()

    @api
    def maybe(self, file: Path | None = None, files: list[Path] | None = None) -> int:
        return 0

    @api
    def root(self, items: list[int], /) -> int:
        return sum(items)

    @api
    def many(self, *args: int, **kwargs: str) -> list[Any]:
        return [*args, kwargs]

    @api
    def told(self, text: str, ctx: Context, n: int = 1) -> str:
        return text * n

    @api
    def stream(self, n: int) -> Iterator[str]:
        yield from map(str, range(n))

    @api
    async def stream_objects(self, n: int) -> AsyncIterator[Point]:
        yield Point(x=n)

    @api
    def optional_text(self) -> str | None:
        return None


def endpoint(name: str) -> Endpoint:
    return Endpoint(cast(Any, Sample).apis[name], "Sample")


def called(name: str, body: Any) -> Any:
    found = endpoint(name)
    return found.caller(Sample())(found.bind_json(json.dumps(body).encode()), None)


def test_defaults_are_filled_in() -> None:
    assert called("plain", {"text": "a"}) == {"text": "a", "n": 3, "opt": None}


def test_unknown_arguments_are_ignored() -> None:
    assert called("plain", {"text": "a", "else": 1})["n"] == 3


def test_an_empty_body_is_an_empty_object() -> None:
    assert endpoint("bounded").bind_json(b"") == {"n": 2}


def test_bounds_hold() -> None:
    assert called("bounded", {"n": 5}) == 5
    with pytest.raises(InvalidArguments):
        called("bounded", {"n": 6})


def test_models_are_made() -> None:
    assert called("model", {"point": {"x": 1}}) == Point(x=1)


@pytest.mark.parametrize(
    ("body", "kind", "loc"),
    [
        (b"[]", "model_type", []),
        (b'{"n": 1}', "missing", ["text"]),
        (b'{"text": 5}', "string_type", ["text"]),
        (b'{"text":', "json_invalid", []),
    ],
)
def test_a_fault_is_told_with_its_place(body: bytes, kind: str, loc: list[str]) -> None:
    with pytest.raises(InvalidArguments, match="1 validation error for Input") as raised:
        endpoint("plain").bind_json(body)
    (detail,) = raised.value.detail
    assert (detail["type"], detail["loc"]) == (kind, loc)
    assert "input" not in detail


def test_arrays_are_converted_and_reshaped() -> None:
    array = called("array", {"x": [1, 2, 3, 4]})
    assert array.dtype == np.int32
    assert array.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("x", [[1, 2, 3], ["a", "b"], [[1], [2, 3]], {"a": 1}])
def test_what_is_no_such_array_is_refused(x: Any) -> None:
    with pytest.raises(InvalidArguments):
        called("array", {"x": x})


def test_arrays_are_known_inside_of_other_types() -> None:
    assert called("nested", {"xs": {"a": [1, 2], "b": [3]}}) == [3.0, 3.0]


def test_arrays_are_known_inside_of_models() -> None:
    report = called("report", {"report": {"readings": {"a": {"values": [1, 2, 3, 4]}}}})
    assert isinstance(report, Report)
    assert isinstance(report.readings["a"], Reading)
    values = report.readings["a"].values
    assert values.dtype == np.float32
    assert values.tolist() == [[1, 2], [3, 4]]
    found = endpoint("report")
    assert json.loads(found.encode(report).body)["readings"]["a"]["values"] == [[1, 2], [3, 4]]
    said = found.input_schema["properties"]["report"]["properties"]["readings"]
    assert said["type"] == "object"
    with pytest.raises(InvalidArguments):
        called("report", {"report": {"readings": {"a": {"values": [1]}}}})


def test_a_text_is_no_path_inside_of_models_either() -> None:
    with pytest.raises(InvalidArguments) as raised:
        called("report", {"report": {"readings": {}, "where": "/etc/passwd"}})
    assert raised.value.detail[0]["type"] == "path_type"


def test_what_has_no_schema_keeps_nothing_else_from_having_one() -> None:
    found = endpoint("opaque")
    assert found.input_schema["properties"]["text"]["type"] == "string"
    assert found.output_schema["type"] == "object"


def test_an_upload_becomes_a_file_that_is_gone_with_its_folder() -> None:
    folder = Folder()
    upload = Upload(folder, filename="../../a.txt", content_type="text/plain", data=b"hello")
    found = endpoint("file")
    values = found.bind_values({"file": upload})
    path = values["file"]
    assert path.name.endswith("a.txt")
    assert path.parent == folder.path
    assert found.caller(Sample())(values, None) == "hello"
    folder.close()
    assert not path.exists()


def test_a_file_of_another_type_is_refused() -> None:
    upload = Upload(Folder(), filename="a.png", data=b"")
    with pytest.raises(InvalidArguments) as raised:
        endpoint("file").bind_values({"file": upload})
    assert "image/png" in str(raised.value.detail)


@pytest.mark.parametrize("value", ["/etc/passwd", 3, None, "http://127.0.0.1/"])
def test_json_never_names_a_file(value: Any) -> None:
    with pytest.raises(InvalidArguments) as raised:
        called("file", {"file": value})
    assert raised.value.detail[0]["type"] == "path_type"
    assert raised.value.detail[0]["msg"] == "Invalid file type"


def test_files_may_be_optional() -> None:
    assert endpoint("maybe").file_fields == {"file": False, "files": True}
    assert endpoint("maybe").bind_json(b"{}") == {"file": None, "files": None}


def test_a_root_input_is_the_whole_body() -> None:
    assert called("root", [4, 5]) == 9
    with pytest.raises(InvalidArguments):
        called("root", {"items": [1]})
    assert endpoint("root").input_schema == {
        "type": "array",
        "items": {"type": "integer"},
        "root_input": True,
    }


def test_variadic_parameters_are_served() -> None:
    assert called("many", {"args": [1, 2], "a": "x"}) == [1, 2, {"a": "x"}]


def test_the_context_is_no_argument() -> None:
    found = endpoint("told")
    assert list(found.input_schema["properties"]) == ["text", "n"]
    context = Context.without_request(Folder(), {})
    assert found.caller(Sample())(found.bind_json(b'{"text": "a", "n": 2}'), context) == "aa"


def test_the_schema_is_in_the_form_that_clients_read() -> None:
    assert endpoint("plain").input_schema == {
        "title": "Input",
        "type": "object",
        "required": ["text"],
        "properties": {
            "text": {"title": "Text", "type": "string"},
            "n": {"default": 3, "title": "N", "type": "integer"},
            "opt": {"default": None, "title": "Opt", "type": "number"},
        },
    }
    assert endpoint("array").input_schema["properties"]["x"] == {
        "title": "X",
        "type": "tensor",
        "format": "numpy-array",
        "dtype": "int32",
        "shape": [2, -1],
        "dim": 2,
    }
    assert "$ref" not in str(endpoint("model").input_schema)
    assert endpoint("stream").output_schema == {
        "type": "string",
        "is_stream": True,
        "media_type": "text/event-stream",
    }


def test_optional_text_is_json_that_is_valid() -> None:
    found = endpoint("optional_text")
    assert found.encode(None).body == b"null"
    encoded = found.encode("a")
    assert (encoded.body, dict(encoded.headers)["Content-Type"]) == (b'"a"', "application/json")


def test_text_goes_out_as_it_is_and_arrays_as_lists() -> None:
    assert endpoint("told").encode("a").body == b"a"
    assert endpoint("array").encode(np.array([[1.5, 2.0]])).body == b"[[1.5,2.0]]"
    assert endpoint("array").encode(np.array([1.0, np.nan])).body == b"[1.0,NaN]"


def test_rows_are_joined_and_cut() -> None:
    @service
    class Batched:
        @api(batchable=True, batch_dim=(1, 0))
        def sums(self, x: np.ndarray) -> np.ndarray:
            return np.asarray(x.sum(axis=0))

    found = Endpoint(cast(Any, Batched).apis["sums"], "Batched")
    parts = [{"x": np.ones((2, 3))}, {"x": np.ones((2, 1))}]
    assert [found.batch_of(part)[0] for part in parts] == [3, 1]
    joined = found.join(parts)
    assert joined["x"].shape == (2, 4)
    result = found.caller(Batched())(joined, None)
    assert [part.tolist() for part in found.split(result, [3, 1])] == [[2.0, 2.0, 2.0], [2.0]]
    with pytest.raises(LoadFailed, match="was given 5 rows and answered 4 rows"):
        found.split(result, [5])


def test_what_cannot_be_served_is_told_when_it_is_declared() -> None:
    class Two:
        def call(self, a: int, b: int) -> int:
            return a

    with pytest.raises(LoadFailed, match="exactly one argument"):
        Endpoint(Api(function=Two.call, name="call", route="/call", batchable=True), "Two")
