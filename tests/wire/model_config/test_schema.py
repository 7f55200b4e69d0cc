"""The fields in ``specs`` are those of the protobuf schema, no more and no less."""

from typing import Any, get_type_hints

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from modelport.specs import EnsembleStep, Latest, ModelConfig, OneOf, Resource, Single, Within
from modelport.wire.model_config import schema
from modelport.wire.model_config.schema import ONE_OF_BY_RECORD, Field, fields_of
from modelport.wire.proto import model_config_pb2
from modelport.wire.proto.pool import POOL


def _pairs(record: type, message: Any) -> dict[type, Descriptor]:
    """Every dataclass with the message it stands for."""
    pairs = {record: message}
    for name, field in fields_of(record).items():
        if field.is_record and name in message.fields_by_name:
            assert isinstance(field.item, type)
            pairs.update(_pairs(field.item, _value_type(message.fields_by_name[name]).message_type))
    return pairs


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _value_type(field: Any) -> Any:
    return field.message_type.fields_by_name["value"] if _is_map(field) else field


def _described(field: FieldDescriptor) -> tuple[str, object]:
    container = "map" if _is_map(field) else "list" if field.is_repeated else "one"
    value = _value_type(field)
    if value.enum_type is not None:
        return container, OneOf(tuple(each.name for each in value.enum_type.values))
    item = _ITEM_BY_TYPE.get(value.type, "record")
    return container, item


def _declared(field: Field) -> tuple[str, object]:
    return field.container, "record" if field.is_record else field.item


_ITEM_BY_TYPE: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_BOOL: bool,
    FieldDescriptor.TYPE_DOUBLE: float,
    FieldDescriptor.TYPE_FLOAT: Single(),
    FieldDescriptor.TYPE_INT32: Within(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: Within(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: Within(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: Within(0, 2**64 - 1),
}

PAIRS = list(_pairs(ModelConfig, model_config_pb2.ModelConfig.DESCRIPTOR).items())


@pytest.mark.parametrize(("record", "message"), PAIRS, ids=[pair[0].__name__ for pair in PAIRS])
def test_a_record_has_the_fields_of_its_message(record: type, message: Descriptor) -> None:
    declared = {name: _declared(field) for name, field in fields_of(record).items()}
    assert declared == {field.name: _described(field) for field in message.fields}


@pytest.mark.parametrize(("record", "message"), PAIRS, ids=[pair[0].__name__ for pair in PAIRS])
def test_fields_that_exclude_one_another_are_those_of_the_message(
    record: type, message: Descriptor
) -> None:
    groups = {tuple(field.name for field in group.fields) for group in message.oneofs}
    several = {group for group in groups if len(group) > 1}
    assert set(ONE_OF_BY_RECORD.get(record, ())) == several


def test_every_message_of_the_schema_is_reached() -> None:
    def nested(message: Descriptor) -> list[str]:
        own = [] if message.GetOptions().map_entry else [message.full_name]
        return own + [name for each in message.nested_types for name in nested(each)]

    file = model_config_pb2.DESCRIPTOR
    names = {name for each in file.message_types_by_name.values() for name in nested(each)}
    assert names == {message.full_name for _, message in PAIRS}


def test_fields_are_written_in_the_order_of_the_schema() -> None:
    names = [field.name for field in model_config_pb2.ModelConfig.DESCRIPTOR.fields]
    assert list(fields_of(ModelConfig)) == names


@pytest.mark.parametrize(("record", "message"), PAIRS, ids=[pair[0].__name__ for pair in PAIRS])
def test_defaults_are_those_of_proto3_or_what_its_zero_stands_for(
    record: type, message: Descriptor
) -> None:
    stands_for_zero = {(EnsembleStep, "model_version"): -1, (Latest, "num_versions"): 1}
    for name, field in fields_of(record).items():
        descriptor = message.fields_by_name[name]
        if field.container != "one" or field.is_record or field.may_be_absent:
            assert not field.default(), name
        elif isinstance(field.item, OneOf):
            assert field.default() == field.item.names[descriptor.default_value]
        else:
            assert field.default() == stands_for_zero.get((record, name), descriptor.default_value)


def test_numbers_of_the_top_level_are_tritons() -> None:
    numbers = {field.name: field.number for field in model_config_pb2.ModelConfig.DESCRIPTOR.fields}
    assert numbers == {
        "name": 1, "platform": 2, "version_policy": 3, "max_batch_size": 4, "input": 5,
        "output": 6, "instance_group": 7, "default_model_filename": 8, "cc_model_filenames": 9,
        "metric_tags": 10, "dynamic_batching": 11, "optimization": 12, "sequence_batching": 13,
        "parameters": 14, "ensemble_scheduling": 15, "model_warmup": 16, "backend": 17,
        "model_operations": 18, "model_transaction_policy": 19, "batch_input": 20,
        "batch_output": 21, "model_repository_agents": 23, "response_cache": 24, "runtime": 25,
        "model_metrics": 26,
    }  # fmt: skip


def test_our_messages_stay_out_of_the_default_pool() -> None:
    """A model.py that imports tritonclient.grpc registers the same names there."""
    assert model_config_pb2.DESCRIPTOR.pool is POOL
    assert POOL is not descriptor_pool.Default()


def test_a_keyword_is_renamed_in_python_only() -> None:
    assert fields_of(Resource)["global"].attribute == "is_global"
    assert "is_global" in get_type_hints(Resource)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        (7, "7"),
        (1 << 200, "a number of very many digits"),
        (0.5, "0.5"),
        ("a", '"a"'),
        ("ä", '"ä"'),
        ("\x1b[31m\ud800", '"\\u001b[31m\\ud800"'),
        ("x" * 70, '"' + "x" * 57 + '..."'),
        ([1], "a list"),
        ({}, "an object"),
        (b"", "a value of type bytes"),
    ],
)
def test_values_from_outside_are_shown_briefly_and_safely(value: object, text: str) -> None:
    assert schema.shown(value) == text


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 16777217.0, 3.4028234663852886e38, 1e-45])
def test_single_precision_is_shortest_and_stable(value: float) -> None:
    import numpy as np

    rounded = schema.single(value)
    assert np.float32(rounded) == np.float32(value)
    assert schema.single(rounded) == rounded
    assert len(repr(rounded)) <= len(repr(float(np.float32(value))))
