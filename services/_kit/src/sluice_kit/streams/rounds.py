"""When to publish: the same rounds under every runner."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sluice_kit.streams.holding import AnyHolding
from sluice_kit.streams.options import Rhythm
from sluice_kit.streams.sequence import SourceWithheld
from sluice_kit.telemetry import logger

log = logger(__name__)


class PublishRounds:
    """Publishes what is due now and then, and rests in proportion."""

    def __init__(
        self,
        holding: AnyHolding,
        publish_due: Callable[[], Awaitable[None]],
        *,
        name: str,
        rhythm: Rhythm,
        assigned: Callable[[], Sequence[Any] | None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`assigned` gives the source partitions of this worker; None while they are being given out anew."""
        self._holding, self._publish_due, self._name, self._rhythm = holding, publish_due, name, rhythm
        self._assigned = assigned
        self._now = now
        self._last_tick, self._next_round = now(), 0.0

    @property
    def is_ready(self) -> bool:
        """True while the table is recovered and the timer goes."""
        return self._holding.recovered and self._now() - self._last_tick < self._rhythm.stalled_seconds

    async def tick(self) -> None:
        """One tick of the timer. Raises SourceWithheld, for which the worker is to end, and nothing else: any would end it."""
        begun = self._last_tick = self._now()
        assigned = self._assigned()
        if not self._holding.recovered or assigned is None:
            return
        try:
            await self._holding.align(assigned)
            # That is no publishing: it takes a Faust worker a second after an assignment, and what it had taken over from one that
            # had died came out fifteen seconds later for it.
            begun = self._now()
            if self._last_tick >= self._next_round:
                await self._publish_due()
        except SourceWithheld as error:
            log.critical("stream.withheld", app=self._name, reason=str(error))
            raise
        except Exception as error:
            log.warning("stream.publish_failed", app=self._name, error=type(error).__name__)
        if self._last_tick >= self._next_round:
            rest = self._rhythm.publish_rest * (self._now() - begun)
            self._next_round = self._last_tick + min(rest, self._rhythm.longest_rest_seconds)
        await self._tell(assigned)

    async def _tell(self, assigned: Sequence[Any]) -> None:
        """Last, and by itself: it is advice, and what is due does not wait for it."""
        try:
            await self._holding.tell(assigned)
        except Exception as error:
            log.warning("stream.commit_failed", app=self._name, error=type(error).__name__)
