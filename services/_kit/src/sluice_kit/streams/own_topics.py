"""Topics that a stream processor has for itself, and makes before it reads; those of the events are made by `sluice_kit.broker`."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from sluice_kit.streams.options import WorkerOptions

SEGMENT_MS = 3_600_000
"""Of a changelog. Only whole segments are compacted: with Kafka's default of a week a restart would read a week of windows."""


def changelog_of(table: str, options: WorkerOptions) -> str:
    """Its name, which is the one that Faust gives it."""
    return f"{options.group}-{table}-changelog"


async def ensure_changelog(topic: str, options: WorkerOptions) -> None:
    """Create it if it is missing, compacted. Raises KafkaError.

    Faust makes it too, but goes on before its own consumer knows of it: on a new broker the first batch then ended the worker
    (PartitionsMismatch, "has 0 partitions").
    """
    await ensure_topic(topic, options, {"cleanup.policy": "compact", "segment.ms": str(SEGMENT_MS)})


async def ensure_topic(name: str, options: WorkerOptions, topic_configs: Mapping[str, str]) -> None:
    """Create it if it is missing, with the partitions of the sources: the embedded broker would give it one. Raises KafkaError."""
    admin = AIOKafkaAdminClient(**options.client)
    await admin.start()
    try:
        if name in await admin.list_topics():
            return
        topic = NewTopic(
            name=name,
            num_partitions=options.partitions,
            replication_factor=options.replication_factor,
            topic_configs=dict(topic_configs),
        )
        await admin.create_topics([topic])
    except TopicAlreadyExistsError:
        pass  # another instance was faster
    finally:
        await admin.close()
