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
    """Asks the broker at most every PAUSE_SECONDS. What it remembers is since when a position stands: after a restart, and after a
    broker that was away, since then."""

    settings: MeshSettings
    now: Callable[[], float] = time.time
    pause_seconds: float = PAUSE_SECONDS
    _asked_at: float = 0.0
    _since: dict[Place, tuple[int, float]] = field(default_factory=dict)
    """The position of a place before which events wait, and when it was first seen there."""
    _waiting: Mapping[Place, int] = field(default_factory=dict)
    _silent: set[str] = field(default_factory=set)
    _was_away: bool = False

    async def standing(self, groups: Collection[str]) -> Sequence[Standing]:
        """Places before which events wait. A group that has committed nothing is not known; a broker that is away changes nothing."""
        if self.now() - self._asked_at >= self.pause_seconds:
            try:
                found = await self._positions(groups)
            except (KafkaError, OSError) as error:
                log.warning("alerts.standstill_unknown", error=type(error).__name__)
                self._was_away = True
            else:
                self._note(found)
                self._note_silent(set(groups) - {group for group, _ in found})
                self._asked_at = self.now()
        return [
            Standing(group, place.topic, place.partition, waiting, int((self._asked_at - since) * 1_000_000))
            for (group, place), waiting in self._waiting.items()
            for _, since in [self._since[group, place]]
        ]

    def _note(self, found: Mapping[Place, tuple[int, int]]) -> None:
        if self._was_away:  # nobody could move
            self._since, self._was_away = {}, False
        answered = {group for group, _ in found}
        # A coordinator that is just loading answers as one that knows nothing of the group: that is no reason to begin anew.
        since = {place: known for place, known in self._since.items() if place[0] not in answered}
        waiting = {place: end - position for place, (position, end) in found.items() if end > position}
        for place in waiting:
            position, known = found[place][0], self._since.get(place)
            since[place] = known if known is not None and known[0] == position else (position, self.now())
        self._since, self._waiting = since, waiting

    def _note_silent(self, silent: set[str]) -> None:
        for group in sorted(silent - self._silent):
            # Its service never ran here, or the broker lets us not describe the group: its answer is the same.
            log.info("alerts.standstill_group_unknown", group=group)
        self._silent = silent

    async def _positions(self, groups: Collection[str]) -> dict[Place, tuple[int, int]]:
        """The committed position of each place, but not before what is kept, and where its partition ends."""
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
            begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        finally:
            await closed(consumer)
        return {key: (max(position, begins[key[1]]), ends[key[1]]) for key, position in committed.items()}

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(**client_options(self.settings))
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()
