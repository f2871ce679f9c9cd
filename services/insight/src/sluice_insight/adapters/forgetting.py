"""Moves minutes that are old enough from memory into the history of hours."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge
from sluice_kit.process import describe
from sluice_kit.telemetry import logger

from sluice_insight.adapters.history import HOUR, History
from sluice_insight.domain.board import Board
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.horizon import Horizon

log = logger(__name__)
FOLD_SECONDS = 300.0
BUSY_SECONDS = 1.0
"""Between rounds while topics are caught up with: a consumer reads days of minutes in the time between two hours of the clock."""
AGAIN_SECONDS = 10.0
"""After a round that failed: a broker that starts after us is there by then."""
GIVE_UP_SECONDS = 60.0
"""After so long without a round that succeeds memory is bounded, at the cost of what waits for the disk."""
Place = tuple[str, int]
LOST = Counter(
    "sluice_insight_lost_hours",
    "Hours of metrics forgotten before they were on disk, because it, or the broker, failed.",
)
FOLDED = Counter("sluice_insight_folded_hours", "Hours of metrics that were moved from memory to disk.")
UP_TO = Gauge("sluice_insight_folded_up_to_seconds", "Event time (Unix) before which metrics are kept by the hour.")


@dataclass
class Forgetting:
    """`round` is called again and again; nothing is forgotten that could still be restated by a record that waits to be read."""

    board: Board
    costs: Costs
    horizon: Horizon
    history: History
    ends: Callable[[], Awaitable[Mapping[Place, int]]]
    """Where the topics end now: the offset after the last, by topic and partition."""
    positions: Callable[[], Mapping[Place, int]]
    """The offset after the last that was read."""
    reached: Callable[[], Mapping[Place, int]]
    """The newest window start that was read, in microseconds."""
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    patience_seconds: float = 600.0
    """A record that cannot be read moves no position: a partition that has not moved for so long holds nothing up."""
    _moved: dict[Place, tuple[int, float]] = field(default_factory=dict)
    _failing_since: float | None = None

    async def round(self) -> bool:
        """Folds every hour that is old enough; whether there is soon more to fold. Raises KafkaError, OSError, sqlite3.Error."""
        oldest = await self._oldest()
        before = oldest - self.horizon.history
        before -= before % HOUR
        is_catching_up = oldest < self.now() * 1_000_000 - HOUR
        for hour in sorted({start - start % HOUR for start in self.board.starts()}):
            if hour + HOUR > before:
                break
            await self.history.fold(self.board.starting(hour, hour + HOUR), hour=hour)
            is_catching_up = True
            FOLDED.inc()
            self._forget(self.history.folded_up_to)
        if self.history.folded_up_to < before:
            await self.history.skip(before)
        self._forget(self.history.folded_up_to)
        return is_catching_up

    def _forget(self, before: int) -> None:
        before = max(before, self.horizon.folded_up_to or 0)
        self.horizon.folded_up_to = before
        self.board.forget(before)
        self.costs.forget(before)
        UP_TO.set(self.history.folded_up_to / 1e6)

    def _give_up(self) -> None:
        """Lets go of what is twice as old as minutes become, beside the newest, when no round has succeeded for a while."""
        now = self.now()
        self._failing_since = self._failing_since or now
        hours = {start - start % HOUR for start in self.board.starts()}
        if not hours or now - self._failing_since < GIVE_UP_SECONDS:
            return
        before = min(int(now * 1_000_000), max(hours)) - 2 * self.horizon.history
        before -= before % HOUR
        if lost := sum(hour < before for hour in hours):
            LOST.inc(lost)
            self._forget(before)

    async def _oldest(self) -> int:
        """The moment up to which every partition has come."""
        now, ends, positions = self.now(), await self.ends(), self.positions()
        moments = [int(now * 1_000_000)]
        for place, end in ends.items():
            position = positions.get(place, 0)
            before, since = self._moved.get(place, (-1, now))
            if position != before:
                since = now
            self._moved[place] = position, since
            if position < end and now - since < self.patience_seconds:
                moments.append(self.reached().get(place, 0))
        return min(moments)

    async def for_ever(self) -> None:
        """Until cancelled. A disk or a broker that is away is tried again: meanwhile twice as much stays in memory, and no more."""
        while True:
            try:
                pause = BUSY_SECONDS if await self.round() else FOLD_SECONDS
                self._failing_since = None
            # What another release wrote may not be readable here: that must not end the live metrics.
            except (KafkaError, OSError, sqlite3.Error, ValueError, TypeError) as error:
                log.warning("history.not_folded", **describe(error))
                self._give_up()
                pause = AGAIN_SECONDS
            await self.sleep(pause)
