"""Where topics end now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from sluice_kit.broker import client_options
from sluice_kit.kafka_client import closed
from sluice_kit.settings import MeshSettings


async def topic_ends(settings: MeshSettings, topics: Sequence[str]) -> Mapping[tuple[str, int], int]:
    """The offset after the last record, by topic and partition; empty partitions are left out. Raises KafkaError, OSError."""
    consumer = AIOKafkaConsumer(*topics, **client_options(settings))
    try:
        await consumer.start()
        partitions = [TopicPartition(t, p) for t in topics for p in consumer.partitions_for_topic(t) or ()]
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        return {(one.topic, one.partition): end for one, end in ends.items() if end > begins[one]}
    finally:
        await closed(consumer)
