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


@dataclass(frozen=True, slots=True)
class _Seen:
    """A place as it was first seen at its position, with events before it or without."""

    position: int
    since: float
    has_moved: bool
    """It was seen elsewhere before."""
    waits: bool


@dataclass
class StandingGroups:
    """Asks the broker at most every PAUSE_SECONDS. What it remembers is since when a position stands: after a restart, and after a
    broker that was away, since then."""

    settings: MeshSettings
    now: Callable[[], float] = time.time
    pause_seconds: float = PAUSE_SECONDS
    _asked_at: float = 0.0
    _since: dict[Place, _Seen] = field(default_factory=dict)
    _waiting: Mapping[Place, int] = field(default_factory=dict)
    _silent: set[str] = field(default_factory=set)
    _was_away: bool = False

    async def standing(self, groups: Collection[str]) -> Sequence[Standing]:
        """Places, also those before which nothing waits. A group that has committed nothing is not known; a broker that is away changes nothing."""
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
            Standing(
                group,
                place.topic,
                place.partition,
                waiting,
                int((self._asked_at - seen.since) * 1_000_000),
                seen.has_moved,
            )
            for (group, place), waiting in self._waiting.items()
            for seen in [self._since[group, place]]
        ]

    def _note(self, found: Mapping[Place, tuple[int, int]]) -> None:
        if self._was_away:  # nobody could move
            self._since, self._was_away = {}, False
        answered = {group for group, _ in found}
        # A coordinator that is just loading answers as one that knows nothing of the group: that is no reason to begin anew.
        since = {place: known for place, known in self._since.items() if place[0] not in answered}
        waiting = {place: max(0, end - position) for place, (position, end) in found.items()}
        for place, (position, _) in found.items():
            known = self._since.get(place)
            if known is not None and known.position == position and known.waits and waiting[place]:
                since[place] = known
            else:
                has_moved = known is not None and known.position != position
                since[place] = _Seen(position, self.now(), has_moved, waits=waiting[place] > 0)
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
