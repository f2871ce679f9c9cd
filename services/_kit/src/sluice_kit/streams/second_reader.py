"""A reader beside the runner's own consumer: what it says of a log, no batch that was fetched before can overtake."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from sluice_kit.kafka_client import closed, its_cancellations_are_errors
from sluice_kit.streams.source import Place
from sluice_kit.telemetry import logger

log = logger(__name__)

ANSWER_SECONDS = 10.0
POLL_MS = 200


async def next_held(client: Mapping[str, Any], tp: Place, offset: int, *, within: float = ANSWER_SECONDS) -> int | None:
    """Offset of the first record at or after this one; the end of the log where there is none. `client`: aiokafka's options.

    None where that cannot be said: the broker did not answer within so many seconds, or the log ends before.
    """
    # As both runners read: of a transaction only the markers are no records. It has no group, so nobody's assignment moves.
    reader = AIOKafkaConsumer(**client, enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        with its_cancellations_are_errors():
            async with asyncio.timeout(within):
                await reader.start()
                return await _next_held(reader, TopicPartition(tp.topic, tp.partition), offset)
    except (KafkaError, OSError) as error:
        log.warning("source.unanswered", topic=tp.topic, partition=tp.partition, error=type(error).__name__)
        return None
    finally:
        await closed(reader)


async def _next_held(reader: AIOKafkaConsumer, place: TopicPartition, offset: int) -> int | None:
    # The end first: what is appended from now on is not to be passed over.
    end = (await reader.end_offsets([place]))[place]
    if end < offset:
        return None
    reader.assign([place])
    reader.seek(place, offset)  # before the reader looks for a first position by itself
    while await reader.position(place) < end:
        for records in (await reader.getmany(place, timeout_ms=POLL_MS, max_records=1)).values():
            return int(records[0].offset)
    return int(end)
