"""Events in a schema registry's frame: a real registry, the kit's publisher, and Confluent's own consumer."""

import asyncio
import json
import urllib.request
import warnings

import pytest
from sluice.events.v1 import cost_pb2, feedback_pb2, gateway_pb2
from sluice_kit.broker import ensure_topics
from sluice_kit.events import decode, event_topics, topic_of
from sluice_kit.publisher import EventPublisher
from sluice_kit.schema_registry import SchemaRegistry, SchemaRegistryError
from sluice_kit.settings import MeshSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its optional OAuth client warns of itself on import
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext


def completed(request_id: str) -> gateway_pb2.RequestCompleted:
    event = gateway_pb2.RequestCompleted(model="small")
    event.metadata.request_id, event.usage.output_tokens = request_id, 42
    return event


async def until(condition, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def test_what_the_publisher_writes_is_read_by_confluents_deserializer_with_the_registry(
    kafka, registry_url, confluent_records
):
    settings = kafka.model_copy(update={"kafka_schema_registry_url": registry_url})
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(completed("r-1"), completed("r-2"))
    await until(lambda: publisher.depth == 0)
    await publisher.stop()
    topic = topic_of(gateway_pb2.RequestCompleted).name
    records = await asyncio.to_thread(confluent_records, settings, [topic], 2)
    context = SerializationContext(topic, MessageField.VALUE)
    with SchemaRegistryClient({"url": registry_url}) as client:
        theirs = ProtobufDeserializer(gateway_pb2.RequestCompleted, {"use.deprecated.format": False}, client)
        seen = [await asyncio.to_thread(theirs, record.value(), context) for record in records]
    assert {event.metadata.request_id for event in seen} == {"r-1", "r-2"}
    assert {event.usage.output_tokens for event in seen} == {42}
    assert [decode(topic, r.value(), r.headers()) for r in records] == seen


async def test_every_schema_can_be_registered_with_what_it_imports(kafka, registry_url):
    settings = kafka.model_copy(update={"kafka_schema_registry_url": registry_url})
    assert await SchemaRegistry(settings).register_all() == len(event_topics())
    with urllib.request.urlopen(f"{registry_url}/subjects", timeout=10) as response:
        subjects = set(json.load(response))
    assert subjects >= {f"{spec.name}-value" for spec in event_topics()}
    assert "sluice/events/v1/metadata.proto" in subjects


async def test_registering_again_gives_the_same_frame(kafka, registry_url):
    settings = kafka.model_copy(update={"kafka_schema_registry_url": registry_url})
    topic = topic_of(feedback_pb2.ReviewRequested).name
    assert await SchemaRegistry(settings).frame(topic) == await SchemaRegistry(settings).frame(topic)


async def test_events_wait_on_disk_while_the_registry_is_away_and_then_go_out_in_order(
    kafka, registry_url, confluent_records
):
    nobody = "http://127.0.0.1:9"
    away = kafka.model_copy(update={"kafka_schema_registry_url": nobody})
    await ensure_topics(kafka)
    publisher = EventPublisher(producer="sluice-test/0", settings=away)
    await publisher.start()
    await publisher.publish(completed("r-1"), completed("r-1"), completed("r-1"))
    topic = topic_of(gateway_pb2.RequestCompleted).name
    await until(lambda: topic in publisher._parked)
    assert publisher.depth == 3
    publisher._schemas = SchemaRegistry(kafka.model_copy(update={"kafka_schema_registry_url": registry_url}))
    await until(lambda: publisher.depth == 0)
    await publisher.stop()
    records = await asyncio.to_thread(confluent_records, kafka, [topic], 3)
    assert [decode(topic, r.value()).metadata.producer_sequence for r in records] == [1, 2, 3]
    assert {r.value()[0] for r in records} == {0}


async def test_a_registry_that_refuses_a_schema_is_named_with_the_subject(registry_url):
    settings = MeshSettings(kafka_schema_registry_url=f"{registry_url}/no-such-place")
    with pytest.raises(
        SchemaRegistryError, match=r"sluice/events/v1/metadata.proto: the registry refuses the schema \(404\)"
    ):
        await SchemaRegistry(settings).frame(topic_of(cost_pb2.CostRecorded).name)


async def test_without_a_registry_nothing_is_framed():
    assert await SchemaRegistry(MeshSettings()).frame(topic_of(cost_pb2.CostRecorded).name) == b""
    assert await SchemaRegistry(MeshSettings()).register_all() == 0
