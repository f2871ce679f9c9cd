"""How many events were given up of late: dead letters by topic, as the broker counts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from sluice_kit.broker import client_options
from sluice_kit.events import DEAD_LETTER_SUFFIX, all_topics
from sluice_kit.kafka_client import closed
from sluice_kit.settings import MeshSettings
from sluice_kit.telemetry import logger

log = logger(__name__)
PAUSE_SECONDS = 20.0
Counts = Mapping[int, Mapping[str, int]]


@dataclass
class GivenUp:
    """Asks the broker at most every PAUSE_SECONDS, and remembers nothing that a restart could lose: counts are between offsets."""

    settings: MeshSettings
    now: Callable[[], float] = time.time
    pause_seconds: float = PAUSE_SECONDS
    _asked_at: float = 0.0
    _asked: frozenset[int] = frozenset()
    _counts: Counts = field(default_factory=dict)

    async def counts(self, windows: Collection[int]) -> Counts:
        """By window (microseconds until now), by topic; topics with none are left out. A broker that is away changes nothing."""
        is_fresh = self.now() - self._asked_at < self.pause_seconds and self._asked >= set(windows)
        if windows and not is_fresh:
            try:
                self._counts = await self._ask(windows)
                self._asked_at, self._asked = self.now(), frozenset(windows)
            except (KafkaError, OSError) as error:
                log.warning("alerts.dead_letters_unknown", error=type(error).__name__)
        return self._counts

    async def _ask(self, windows: Collection[int]) -> Counts:
        topics = [spec.name for spec in all_topics() if spec.name.endswith(DEAD_LETTER_SUFFIX)]
        # Named, because a consumer knows the partitions of no others.
        consumer = AIOKafkaConsumer(*topics, **client_options(self.settings))
        try:
            await consumer.start()
            places = [TopicPartition(one, p) for one in topics for p in consumer.partitions_for_topic(one) or ()]
            if not places:
                return {}
            ends = await consumer.end_offsets(places)
            return {window: await self._since(consumer, ends, window) for window in windows}
        finally:
            await closed(consumer)

    async def _since(
        self, consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int], window: int
    ) -> dict[str, int]:
        begin = int(self.now() * 1000) - window // 1000
        found: dict[str, int] = {}
        # No place means that nothing is as young as that.
        for one, place in (await consumer.offsets_for_times(dict.fromkeys(ends, begin))).items():
            if place is not None and ends[one] > place.offset:
                found[one.topic] = found.get(one.topic, 0) + ends[one] - place.offset
        return found
