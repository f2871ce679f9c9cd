"""What the kit's publisher writes, read with other people's libraries alone: librdkafka's client and the CloudEvents SDK."""

import asyncio
import importlib
import sys
from datetime import UTC
from pathlib import Path

import pytest
from cloudevents.core.bindings import kafka as cloudevents_kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.kafka import KafkaMessage as OldKafkaMessage
from cloudevents.v1.kafka import from_binary as old_from_binary
from sluice_events.topics import event_topics
from sluice_kit.broker import ensure_topics
from sluice_kit.publisher import EventPublisher

sys.path.insert(0, str(Path(__file__).parents[2] / "protos"))
examples = importlib.import_module("contracts.examples")

BY_TOPIC = {spec.name: spec for spec in event_topics()}


@pytest.fixture
async def published(kafka, confluent_records) -> dict[str, tuple]:
    """Every event, written by the kit's publisher: topic to what was given and the record that stands there."""
    await ensure_topics(kafka)
    publisher = EventPublisher(producer="sluice-test/0", settings=kafka)
    given = {topic: examples.example(spec.message_class.DESCRIPTOR) for topic, spec in BY_TOPIC.items()}
    await publisher.start()
    await publisher.publish(*given.values())
    async with asyncio.timeout(60):
        while publisher.depth:
            await asyncio.sleep(0.02)
    await publisher.stop()
    records = await asyncio.to_thread(confluent_records, kafka, list(BY_TOPIC), len(BY_TOPIC))
    return {record.topic(): (given[record.topic()], record) for record in records}


async def test_a_plain_kafka_client_finds_every_event_under_its_key(published):
    assert set(published) == set(BY_TOPIC)
    for topic, (event, record) in published.items():
        at = event
        for name in BY_TOPIC[topic].key_path.split("."):
            at = getattr(at, name)
        assert record.key().decode() == (at or event.metadata.event_id)
        assert BY_TOPIC[topic].message_class.FromString(record.value()).metadata.event_id == event.metadata.event_id


async def test_the_cloudevents_sdk_reads_every_event(published):
    for topic, (event, record) in published.items():
        message = cloudevents_kafka.KafkaMessage(dict(record.headers()), record.key(), record.value())
        read = cloudevents_kafka.from_binary(message, JSONFormat(), CloudEvent)
        assert read.get_specversion() == "1.0"
        assert read.get_type() == topic
        assert read.get_id() == event.metadata.event_id
        assert read.get_source().startswith("sluice-test/0#")
        assert read.get_subject() == event.metadata.request_id
        assert read.get_time() == event.metadata.occurred_at.ToDatetime(tzinfo=UTC)
        assert read.get_datacontenttype() == "application/protobuf"
        assert read.get_dataschema() == f"urn:sluice:{event.DESCRIPTOR.full_name}"
        assert read.get_extension("sequence") == "1"
        assert read.get_extension("dataclassification") == BY_TOPIC[topic].classification
        data = read.get_data()
        value = data.encode() if isinstance(data, str) else data  # the SDK hands bytes that are UTF-8 over as text
        told = BY_TOPIC[topic].message_class.FromString(value)
        assert told.metadata.request_id == event.metadata.request_id
        assert len(told.ListFields()) == len(event.ListFields())


async def test_the_sdks_older_interface_reads_them_too(published):
    for topic, (event, record) in published.items():
        message = OldKafkaMessage(dict(record.headers()), record.key(), record.value())
        read = old_from_binary(message, data_unmarshaller=BY_TOPIC[topic].message_class.FromString)
        assert (read["type"], read["id"]) == (topic, event.metadata.event_id)
        assert read.data.metadata.tenant_id == event.metadata.tenant_id
