import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.errors import InvalidRequest
from modelport.wire.v2_rest import CodecOptions, Inference, decode_infer_request
from modelport.wire.v2_template import TemplateReader

OPTIONS = CodecOptions()


def body(data: str = "[1,2]", datatype: str = "FP32", **members: Any) -> bytes:
    part = json.dumps({"name": "I", "datatype": datatype, "shape": [2]})
    rest = "".join(f",{json.dumps(k)}:{json.dumps(v)}" for k, v in members.items())
    return f'{{"inputs":[{part[:-1]},"data":{data}}}]{rest}}}'.encode()


def facts(inference: Inference) -> Any:
    """All that a request says, comparable."""
    request = inference.request
    tensors = [
        (t.name, t.datatype, t.shape, t.array.dtype, t.array.tobytes())
        for t in request.payload.tensors
    ]
    forms = [(n, f.is_binary, f.classes) for n, f in (inference.forms or {}).items()]
    return (
        tensors, request.id, request.parameters, list(request.outputs), request.sequence_id,
        inference.is_binary, inference.forms is None, forms, inference.has_classes,
    )  # fmt: skip


def outcome(read: Any) -> Any:
    try:
        return facts(read())
    except InvalidRequest as exc:
        return str(exc)


def agree(reader: TemplateReader, text: bytes) -> None:
    short = outcome(lambda: reader.decode(text, "m", OPTIONS))
    long = outcome(lambda: decode_infer_request(text, None, "m", OPTIONS))
    assert short == long


values = st.one_of(
    st.integers(-300, 300).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["true", "null", '"1"', "NaN", "1e39", "[1]", "1],[2", "2**64", "", " 7 "]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["FP32", "FP64", "INT8", "UINT64", "BOOL", "BYTES", "FP16", "BF16"]),
    st.lists(st.lists(values, max_size=3), min_size=2, max_size=5),
)
def test_the_short_way_and_the_long_way_agree(datatype: str, bodies: list[list[str]]) -> None:
    reader = TemplateReader()
    for elements in bodies:
        agree(reader, body(f"[{','.join(elements)}]", datatype, id="7"))


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"id": "7"},
        {"outputs": [{"name": "O", "parameters": {"classification": 2, "binary_data": True}}]},
        {"parameters": {"sequence_id": 5, "sequence_start": True, "p": 1}},
        {"parameters": {"binary_data_output": True}},
    ],
)
def test_all_that_stands_around_the_values_is_the_same(members: dict[str, Any]) -> None:
    reader = TemplateReader()
    for data in ("[1,2]", "[3,4]", "[5]", "[6,7]", "[[8],[9]]", "[2,2]"):
        agree(reader, body(data, **members))


def test_another_text_around_the_values_is_not_mistaken_for_the_one_before() -> None:
    reader = TemplateReader()
    texts = [body("[1,2]"), body("[1,2]", id="a"), body("[3,4]", id="b"), body("[5,6]")]
    texts += [text.replace(b'"I"', b'"J"') for text in texts]
    texts += [text[:-1] for text in texts] + [text + b" " for text in texts]
    texts += [body('[1,2],"shape":[1]'), body('[1],"data":[1,2]'), body("[2]")]
    for first in texts:
        for second in texts:
            fresh = TemplateReader()
            agree(fresh, first)
            agree(fresh, second)
            agree(reader, second)


def test_prefix_and_suffix_never_share_bytes() -> None:
    reader = TemplateReader()
    whole = body("[1,2]")
    agree(reader, whole)
    for size in range(len(whole)):
        agree(reader, whole[:size] + whole[-size:] if size else b"")
