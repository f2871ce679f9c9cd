"""Who evaluates: the one instance that holds the partition of the alerts' topic, after it has read it to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice_kit.broker import client_options
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.kafka_client import closed
from sluice_kit.settings import MeshSettings
from sluice_kit.telemetry import logger

from sluice_insight.adapters.alerting.log import AlertLog

log = logger(__name__)
GROUP = "sluice-insight-alerting"
PAUSE_SECONDS = 1.0
SESSION_MS = 10_000


class _Held(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self) -> None:
        self.partitions: set[TopicPartition] = set()
        self.term = 0

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.partitions = set()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.partitions = set(assigned)
        self.term += 1


class Lease:
    """Runs `evaluate(log)` again and again while this instance holds the lease; the log has then all that was said."""

    def __init__(self, settings: MeshSettings, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._settings = settings
        self._pause = pause_seconds

    async def run(self, evaluate: Callable[[AlertLog], Awaitable[None]]) -> None:
        """For ever, until cancelled. A broker that is away is waited for; meanwhile nothing is evaluated."""
        while True:
            try:
                await self._hold(evaluate)
            except (KafkaError, OSError) as error:
                log.warning("alerts.lease_interrupted", error=type(error).__name__)
            await asyncio.sleep(self._pause)

    async def _hold(self, evaluate: Callable[[AlertLog], Awaitable[None]]) -> None:
        held = _Held()
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=GROUP,
            # Static: an instance that was killed and is back has it at once, and not after a session's time.
            group_instance_id=f"insight-alerting-{self._settings.instance}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=3_000,
        )
        try:
            await consumer.start()
            consumer.subscribe([topic_of(AlertRaised).name], listener=held)
            await self._rounds(consumer, held, evaluate)
        finally:
            await closed(consumer)

    async def _rounds(
        self, consumer: AIOKafkaConsumer, held: _Held, evaluate: Callable[[AlertLog], Awaitable[None]]
    ) -> None:
        term, told = 0, AlertLog()
        while True:
            if held.partitions and held.term != term:
                term, told = held.term, AlertLog()
                await consumer.seek_to_beginning(*held.partitions)
            await self._read(consumer, told)
            if held.partitions and held.term == term and await _is_at_end(consumer, held.partitions):
                await evaluate(told)

    async def _read(self, consumer: AIOKafkaConsumer, told: AlertLog) -> None:
        for records in (await consumer.getmany(timeout_ms=int(self._pause * 1000))).values():
            for record in records:
                with contextlib.suppress(
                    UndecodableEvent, ValueError
                ):  # the log's own consumer puts them on the dead letters
                    event = decode(record.topic, record.value, record.headers)
                    assert isinstance(event, AlertRaised)
                    told.take(event)


async def _is_at_end(consumer: AIOKafkaConsumer, partitions: set[TopicPartition]) -> bool:
    ends = await consumer.end_offsets(list(partitions))
    return all([await consumer.position(one) >= ends[one] for one in partitions])
