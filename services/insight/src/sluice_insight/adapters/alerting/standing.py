"""Which groups of consumers have events before them, and for how long their positions have not moved: as the broker says it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from sluice_kit.broker import client_options
from sluice_kit.kafka_client import closed
from sluice_kit.settings import MeshSettings
from sluice_kit.telemetry import logger

from sluice_insight.domain.alerting.conditions import Standing

log = logger(__name__)
PAUSE_SECONDS = 20.0
Place = tuple[str, TopicPartition]
"""A group, and a partition that it has committed a position of."""


@dataclass
class StandingGroups:
    """Asks the broker at most every PAUSE_SECONDS. What it remembers is since when a position stands: after a restart, since then."""

    settings: MeshSettings
    now: Callable[[], float] = time.time
    pause_seconds: float = PAUSE_SECONDS
    _asked_at: float = 0.0
    _since: dict[Place, tuple[int, float]] = field(default_factory=dict)
    """The position of a place before which events wait, and when it was first seen there."""
    _waiting: Mapping[Place, int] = field(default_factory=dict)

    async def standing(self, groups: Collection[str]) -> Sequence[Standing]:
        """Places before which events wait. A group that has committed nothing is not known; a broker that is away changes nothing."""
        if self.now() - self._asked_at >= self.pause_seconds:
            try:
                self._note(await self._positions(groups))
                self._asked_at = self.now()
            except (KafkaError, OSError) as error:
                log.warning("alerts.standstill_unknown", error=type(error).__name__)
        return [
            Standing(group, place.topic, place.partition, waiting, int((self._asked_at - since) * 1_000_000))
            for (group, place), waiting in self._waiting.items()
            for _, since in [self._since[group, place]]
        ]

    def _note(self, found: Mapping[Place, tuple[int, int]]) -> None:
        now = self.now()
        if now - self._asked_at > 3 * self.pause_seconds:
            self._since = {}  # the broker was away: nobody could move
        since: dict[Place, tuple[int, float]] = {}
        for place, (position, end) in found.items():
            if end > position:
                known = self._since.get(place)
                since[place] = known if known is not None and known[0] == position else (position, now)
        self._since = since
        self._waiting = {place: found[place][1] - found[place][0] for place in since}

    async def _positions(self, groups: Collection[str]) -> dict[Place, tuple[int, int]]:
        """The committed position of each place, and where its partition ends."""
        async with self._admin() as admin:
            committed = {
                (group, place): told.offset
                for group in groups
                for place, told in (await admin.list_consumer_group_offsets(group)).items()
                if told.offset >= 0
            }
        places = sorted({place for _, place in committed})
        if not places:
            return {}
        # Named, because a consumer knows the partitions of no others.
        consumer = AIOKafkaConsumer(*{place.topic for place in places}, **client_options(self.settings))
        try:
            await consumer.start()
            ends = await consumer.end_offsets(places)
        finally:
            await closed(consumer)
        return {(group, place): (position, ends[place]) for (group, place), position in committed.items()}

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(**client_options(self.settings))
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()
