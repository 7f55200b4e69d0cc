import subprocess
import sys

import pytest

import modelport
from modelport.dtypes import BYTES, FP32, INT64
from modelport.signature import TensorSignature, model, signature_of


def test_decorated_function_stays_what_it_was() -> None:
    @model(inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1]"})
    def double(x: float) -> float:
        return 2 * x

    assert double(4) == 8
    signature = signature_of(double)
    assert signature is not None
    assert signature.name == "double"


def test_shapes_lose_their_batch_where_there_is_one() -> None:
    @model(inputs={"a": " INT64[ -1,3 , -1]"}, outputs={"b": "TYPE_STRING[-1,1]"}, max_batch_size=2)
    def tried() -> None: ...

    signature = signature_of(tried)
    assert signature is not None
    assert signature.inputs == (TensorSignature("a", INT64, (3, -1)),)
    assert signature.outputs == (TensorSignature("b", BYTES, (1,)),)


def test_shapes_are_whole_without_a_batch() -> None:
    @model(inputs={"a": "FP32[-1,3]"}, outputs={"b": "FP32[1]"}, name="given")
    def tried() -> None: ...

    signature = signature_of(tried)
    assert signature is not None
    assert signature.inputs == (TensorSignature("a", FP32, (-1, 3)),)
    assert signature.name == "given"


def test_subclass_is_not_declared_by_its_base() -> None:
    @model(inputs={}, outputs={"b": "FP32[1]"})
    class Base:
        pass

    class Derived(Base):
        pass

    assert signature_of(Base) is not None
    assert signature_of(Derived) is None


@pytest.mark.parametrize("thing", [None, 3, "text", len, object()])
def test_other_things_have_no_signature(thing: object) -> None:
    assert signature_of(thing) is None


@pytest.mark.parametrize(
    ("text", "max_batch_size", "told"),
    [
        ("FP32", 0, r"write it like FP32\[-1, 10\]"),
        ("FP32[]", 0, "write it like"),
        ("FP32[a]", 0, "write it like"),
        ("FLOAT[1]", 0, "'x' has the datatype 'FLOAT'; there are BOOL, UINT8"),
        ("FP32[0]", 0, "sizes are at least 1, or -1"),
        ("FP32[-2]", 0, "sizes are at least 1, or -1"),
        ("FP32[3]", 4, "its first dimension is the batch"),
        ("FP32[-1]", 4, "at least one dimension of a row"),
    ],
)
def test_tensor_that_makes_no_sense_is_refused(text: str, max_batch_size: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        model(inputs={"x": text}, outputs={"y": "FP32[-1,1]"}, max_batch_size=max_batch_size)


def test_limits_that_make_no_sense_are_refused() -> None:
    outputs = {"y": "FP32[1]"}
    with pytest.raises(ValueError, match="at least one output"):
        model(inputs={}, outputs={})
    with pytest.raises(ValueError, match="max_batch_size and max_delay"):
        model(inputs={}, outputs=outputs, max_batch_size=-1)
    with pytest.raises(ValueError, match="instances at least 1"):
        model(inputs={}, outputs=outputs, instances=0)
    with pytest.raises(ValueError, match="execution is 'gpu'"):
        model(inputs={}, outputs=outputs, execution="gpu")


def test_public_names_are_there_and_no_others() -> None:
    assert modelport.model is model
    assert dir(modelport) == modelport.__all__
    for name in modelport.__all__:
        assert hasattr(modelport, name)
    with pytest.raises(AttributeError, match="no attribute 'serve_everything'"):
        _ = modelport.serve_everything


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, modelport; print('numpy' in sys.modules, 'modelport.signature' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]
