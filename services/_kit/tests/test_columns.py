"""Times are read as the numbers they are, wherever a message declares them."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from sluice_kit.streams.columns import decode_columns

NO_TIME = 2**60
"""Seconds that Arrow's own times cannot hold."""


def shift_class() -> Any:
    """message Shift { Timestamp begin; Pause first; message Pause { Timestamp at; map<string, Timestamp> seen; } }"""
    file = FileDescriptorProto(name="shift.proto", package="made", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    shift = file.message_type.add(name="Shift")
    pause = shift.nested_type.add(name="Pause")
    entry = pause.nested_type.add(name="SeenEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    add(entry, "value", 2, ".google.protobuf.Timestamp")
    add(pause, "at", 1, ".google.protobuf.Timestamp")
    add(pause, "seen", 2, ".made.Shift.Pause.SeenEntry").label = FieldDescriptorProto.LABEL_REPEATED
    add(shift, "begin", 1, ".google.protobuf.Timestamp")
    add(shift, "first", 2, ".made.Shift.Pause")
    pool = DescriptorPool()
    pool.AddSerializedFile(Timestamp.DESCRIPTOR.file.serialized_pb)
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("made.Shift"))


def add(message: Any, name: str, number: int, type_name: str) -> Any:
    return message.field.add(name=name, number=number, type="TYPE_MESSAGE", type_name=type_name, label="LABEL_OPTIONAL")


def test_times_in_nested_messages_and_in_maps_are_pairs_of_numbers_as_those_of_the_message_are() -> None:
    made = shift_class()
    shift = made()
    for time in (shift.begin, shift.first.at, shift.first.seen["x"]):
        time.seconds, time.nanos = NO_TIME, 7
    [row] = decode_columns(made, [shift.SerializeToString()]).to_pylist()
    pair = {"seconds": NO_TIME, "nanos": 7}
    assert (row["begin"], row["first"]["at"], dict(row["first"]["seen"])) == (pair, pair, {"x": pair})
