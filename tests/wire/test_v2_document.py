import msgspec
import pytest

from modelport.errors import InvalidRequest, TooLarge
from modelport.wire import v2_document
from modelport.wire.v2_document import decode_document

PART = b'{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]'


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs":[]}',
        b'{"inputs":[' + PART + b"}]}",
        b'{"id":"7","inputs":[' + PART + b',"parameters":{"a":1}},' + PART + b"}]}",
        b'{"inputs":[' + PART + b'}],"outputs":[{"name":"y","parameters":{"b":[true]}}]}',
        b'{"inputs":[' + PART + b'}],"parameters":{"c":null},"other":{}}',
        b'{"inputs":[' + PART + b'}],"parameters":[]}',
        b'{"inputs":[' + PART + b'}],"outputs":7}',
        b'{"inputs":[' + PART.replace(b"[2]", b"[-2]") + b"}]}",
        b'{"inputs":[' + PART.replace(b"[2]", b'["2"]') + b"}]}",
        b'{"inputs":[' + PART.replace(b"[2]", b"7") + b"}]}",
        b'{"inputs":[' + PART.replace(b"[1,2]", b"[1,NaN]") + b"}]}",
        b'{"inputs":[{"name":"x"}]}',
        b'{"inputs":{}}',
        b'{"inputs":[',
        b"[]",
    ],
)
def test_long_documents_are_read_as_short_ones(
    monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    def told() -> object:
        try:
            return msgspec.json.encode(decode_document(text))
        except InvalidRequest as exc:
            return exc.text

    short = told()
    monkeypatch.setattr(v2_document, "LONG_BYTES", 0)
    assert told() == short


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs":[' + PART.replace(b"[2]", b"[" + b"1," * 100 + b"1]") + b"}]}",
        b'{"inputs":[' + PART + b',"parameters":{"a":[' + b"1," * 100 + b"1]}}]}",
        b'{"inputs":[' + PART + b'}],"parameters":{"a":[' + b"1," * 100 + b"1]}}",
        b'{"inputs":[' + PART + b'}],"outputs":[' + b'{"name":"y"},' * 20 + b'{"name":"y"}]}',
    ],
)
def test_only_values_may_be_very_long(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(v2_document, "LONG_BYTES", 200)
    with pytest.raises(TooLarge, match="100 is the most that is read in one go"):
        decode_document(text, most_exact=100)


def test_values_may_be_very_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2_document, "LONG_BYTES", 200)
    text = b'{"inputs":[' + PART.replace(b"[1,2]", b"[" + b"1," * 100 + b"1]") + b"}]}"
    (part,) = decode_document(text, most_exact=100).inputs
    assert (part.name, part.shape) == ("x", (2,))
