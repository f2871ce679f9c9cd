"""The frame of a schema registry, checked against Confluent's own serializer and deserializer."""

import warnings

import pytest
from google.protobuf.message import Message
from sluice.events.v1 import cost_pb2, feedback_pb2, gateway_pb2
from sluice_events.framing import message_bytes, prefix
from sluice_events.topics import event_topics
from sluice_events.wire import UndecodableEvent, decode, encode

with warnings.catch_warnings():
    # Its optional OAuth client warns of itself on import.
    warnings.simplefilter("ignore")
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

EVENTS = [pytest.param(spec.message_class, id=spec.message_class.DESCRIPTOR.name) for spec in event_topics()]


def event(message_class: type[Message]) -> Message:
    message = message_class()
    message.metadata.event_id = "0199-event"
    return message


@pytest.mark.parametrize("message_class", EVENTS)
def test_confluents_serializer_frames_an_event_just_as_we_do(message_class):
    registry = SchemaRegistryClient.new_client({"url": "mock://sluice"})
    theirs = ProtobufSerializer(message_class, registry, {"use.deprecated.format": False})
    message = event(message_class)
    topic = encode(message).topic
    framed = theirs(message, SerializationContext(topic, MessageField.VALUE))
    schema_id = int.from_bytes(framed[1:5], "big")
    assert framed == prefix(schema_id, message_class.DESCRIPTOR) + message.SerializeToString()
    assert decode(topic, framed) == message


@pytest.mark.parametrize("message_class", [gateway_pb2.RequestCompleted, cost_pb2.BudgetChanged])
def test_confluents_deserializer_reads_what_we_frame(message_class):
    theirs = ProtobufDeserializer(message_class, {"use.deprecated.format": False})
    message = event(message_class)
    framed = prefix(70_000, message_class.DESCRIPTOR) + message.SerializeToString()
    assert theirs(framed, SerializationContext("any", MessageField.VALUE)) == message


def test_the_frame_is_what_the_documentation_says():
    assert prefix(7, gateway_pb2.RequestCompleted.DESCRIPTOR) == b"\x00\x00\x00\x00\x07\x00"
    # ReviewRequested is the third message of its file: one index, 2, zigzag-encoded.
    assert prefix(7, feedback_pb2.ReviewRequested.DESCRIPTOR) == b"\x00\x00\x00\x00\x07\x02\x04"


def test_a_nested_message_is_named_by_its_whole_path():
    nested = next(iter(gateway_pb2.RequestCompleted.DESCRIPTOR.file.message_types_by_name.values()))
    entry = cost_pb2.CostLine.DESCRIPTOR
    assert prefix(1, nested)[5:] == b"\x00"
    assert prefix(1, entry)[5:] == b"\x02\x02"


def test_a_value_without_a_frame_is_left_as_it_is():
    assert message_bytes(b"\x0a\x00") == b"\x0a\x00"
    assert message_bytes(b"") == b""


@pytest.mark.parametrize(
    "value", [b"\x00", b"\x00\x00\x00\x00\x01", b"\x00\x00\x00\x00\x01\x04\x02", b"\x00" * 5 + b"\xff" * 9]
)
def test_a_frame_that_is_cut_short_is_a_malformed_event(value):
    with pytest.raises(UndecodableEvent) as caught:
        decode("sluice.gateway.request_completed.v1", value)
    assert caught.value.reason == "malformed"
