"""The internal topic of this service; those of the events are made by the kit."""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError
from sluice_kit.streams.options import WorkerOptions

RETENTION_MS = 3_600_000
"""An observation is read within a second; an hour outlives any restart."""


async def ensure_topic(name: str, options: WorkerOptions) -> None:
    """Create the topic if it is missing. Before the worker starts: the embedded broker would give it one partition."""
    admin = AIOKafkaAdminClient(**{"bootstrap_servers": options.bootstrap, **options.security})
    await admin.start()
    try:
        if name in await admin.list_topics():
            return
        topic = NewTopic(
            name=name,
            num_partitions=options.partitions,
            replication_factor=options.replication_factor,
            topic_configs={"retention.ms": str(RETENTION_MS), "retention.bytes": str(20 * 2**20)},
        )
        await admin.create_topics([topic])
    except TopicAlreadyExistsError:
        pass  # another instance was faster
    finally:
        await admin.close()
