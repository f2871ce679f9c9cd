"""Reads the events of requests into the stories."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition
from prometheus_client import Counter
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import Unavailable
from sluice_kit.process import describe
from sluice_kit.telemetry import logger

from sluice_insight.adapters.stories.events import story_event
from sluice_insight.adapters.stories.store import Stories

log = logger(__name__)
PRUNE_SECONDS = 60.0
EVENTS = Counter("sluice_insight_story_events", "Events of requests that were kept, each once.")
FORGOTTEN = Counter("sluice_insight_stories_forgotten", "Requests that were too old, or too many.")


class StoryFeed:
    """Handles batches; the store knows by their ids what it has."""

    def __init__(self, stories: Stories) -> None:
        self._stories = stories

    async def handle(self, events: Sequence[ConsumedEvent]) -> None:
        """Keeps a batch and where to go on, at once. Raises Unavailable when the file cannot be written: the batch is tried again."""
        kept = [story for event in events if (story := story_event(event.message)) is not None]
        next_offsets: dict[tuple[str, int], int] = {}
        for event in events:
            place = event.topic, event.partition
            next_offsets[place] = max(next_offsets.get(place, 0), event.offset + 1)
        try:
            EVENTS.inc(await self._stories.take(kept, next_offsets))
        except sqlite3.Error as error:
            raise Unavailable(f"the stories cannot be written ({type(error).__name__})") from error

    async def starting_offsets(self, partitions: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The file's own positions: a file that was lost is filled again from what the topics hold."""
        known = await self._stories.offsets()
        return {one: known.get((one.topic, one.partition), 0) for one in partitions}

    async def keep_bounded(self) -> None:
        """Forgets what is too old or too much, and brings an older file up to date; runs until cancelled."""
        while True:
            try:
                while gone := await self._stories.prune(int(time.time() * 1_000_000)):
                    FORGOTTEN.inc(gone)
                    await asyncio.sleep(0)
                while await self._stories.renew():
                    await asyncio.sleep(0)
            except sqlite3.Error as error:
                log.warning("stories.not_pruned", **describe(error))
            await asyncio.sleep(PRUNE_SECONDS)
