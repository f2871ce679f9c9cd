"""Sends observations on to the partition that owns their series.

A two-sample test needs the whole series; the events are keyed by request. One record carries all observations of a series
in a batch. A crash may send some again: they carry their place in the log, by which their owner knows them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

from sluice_kit.events import UndecodableEvent
from sluice_kit.streams.dead_letters import DeadLetters, read
from sluice_kit.streams.source import Sender, SourceEvent

from sluice_drift.adapters import telemetry
from sluice_drift.adapters.facts import observations_of
from sluice_drift.adapters.records import encode_observations
from sluice_drift.domain.observation import Observation, Series
from sluice_drift.domain.reference import series_key

OBSERVATIONS_PER_RECORD = 500
"""About 300 kB with two embeddings of 64 dimensions and six slices each; a record may have 1 MB."""

PlaceOf = Callable[[str, int], int]
"""The place of a topic's offset among all that ever stood in this partition."""


class Router:
    """Forwards batches; returns when the broker has them."""

    def __init__(self, *, target: Sender, dead_letters: DeadLetters) -> None:
        self._target = target
        self._dead_letters = dead_letters

    async def route(self, events: Sequence[SourceEvent], place: PlaceOf) -> None:
        """Forward the observations of a batch, those of one source partition in order; `place` names their offsets."""
        by_series: defaultdict[Series, list[Observation]] = defaultdict(list)
        for event in events:
            for observation in await self._observations(event, place):
                by_series[observation.series].append(observation)
        sent = []
        for series, observations in by_series.items():
            key = series_key(series).encode()
            for first in range(0, len(observations), OBSERVATIONS_PER_RECORD):
                value = encode_observations(observations[first : first + OBSERVATIONS_PER_RECORD])
                sent.append(await self._target.send(key=key, value=value))
            telemetry.ROUTED.inc(len(observations))
        await asyncio.gather(*sent)

    async def _observations(self, event: SourceEvent, place: PlaceOf) -> list[Observation]:
        record = event.message
        try:
            return observations_of(
                read(event),
                partition=record.partition,
                offset=place(record.topic, record.offset),
                record_time=round(record.timestamp * 1_000_000),  # int() would cut some short by a microsecond
            )
        except UndecodableEvent as error:
            await self._dead_letters.park(event, reason=error.reason)
            return []
