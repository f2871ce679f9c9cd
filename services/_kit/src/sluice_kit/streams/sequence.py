"""Gives every event to its partition exactly in the order of the log, whatever Faust and a rebalance do to it.

Faust acknowledges events that it skips after a rebalance, and those that `take_events` still buffered; so its committed
offset can run ahead of what was merged (seen: 7 events lost after two workers had swapped partitions and one was killed).
Therefore the frontier that is stored beside the windows is the truth: what lies before it is skipped, what lies
beyond it waits, and the consumer is sent back to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import faust
from faust.types import TP, EventT

from sluice_kit.telemetry import logger

log = logger(__name__)

SEEK_AGAIN_SECONDS = 2.0
SEEKS = 5
"""After so many in vain the log has a hole there (it was compacted, or holds aborted transactions)."""


REMEMBERED = 1_000
"""Records of a partition whose content is known: more than a broker loses in its last second."""


def _content(event: EventT) -> int:
    return hash(getattr(event.message, "value", None))


class Frontier(Protocol):
    """What knows how far a partition's sources are merged."""

    def next_offset(self, source: str) -> int | None:
        """The offset that follows on what is merged; None when nothing is."""

    def skip_to(self, source: str, offset: int) -> None:
        """Go on at an offset."""

    def rewind(self, source: str, end: int) -> None:
        """The log ends before what was merged."""


class SourceLog(Protocol):
    """Where the events come from."""

    def owns(self, tp: TP) -> bool:
        """True when the partition is assigned to this worker."""

    async def seek(self, tp: TP, offset: int) -> None:
        """Read on from an offset."""

    async def bounds(self, tp: TP) -> tuple[int, int]:
        """First offset held, and the one after the last."""


class FaustLog:
    """The consumer of a Faust app."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    def owns(self, tp: TP) -> bool:
        """True when the partition is assigned to this worker."""
        return tp in self._app.consumer.assignment()

    async def seek(self, tp: TP, offset: int) -> None:
        """Read on from an offset."""
        await self._app.consumer.seek(tp, offset)

    async def bounds(self, tp: TP) -> tuple[int, int]:
        """First offset held, and the one after the last."""
        first = await self._app.consumer.earliest_offsets(tp)
        last = await self._app.consumer.highwaters(tp)
        return first.get(tp) or 0, last.get(tp) or 0


@dataclass(slots=True)
class _Search:
    expected: int
    at: float
    seeks: int = 1


class Sequencer:
    """Lets events through in the order of the log, each offset once."""

    def __init__(self, source: SourceLog, *, now: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._now = now
        self._searches: dict[TP, _Search] = {}
        self._merged: dict[TP, dict[int, int]] = {}

    async def admit(self, frontier: Frontier, events: Sequence[EventT]) -> list[EventT]:
        """The events of one partition that follow on what is merged. Those beyond a gap are left out, and read again."""
        tp = events[0].message.tp
        expected = self._rewound(frontier, tp, events)
        admitted, ahead = [], None
        for event in events:
            offset = event.message.offset
            if expected is None or offset == expected:
                admitted.append(event)
                expected = offset + 1
            elif offset > expected:
                ahead = offset if ahead is None else min(ahead, offset)
        if expected is not None and ahead is not None and ahead >= expected:
            await self._go_back(frontier, tp, expected, ahead)
        elif admitted:
            self._searches.pop(tp, None)
        self._remember(tp, admitted)
        return admitted

    def _rewound(self, frontier: Frontier, tp: TP, events: Sequence[EventT]) -> int | None:
        """The offset to go on at. Where another record stands now than was merged, the broker lost its tail and gave the offsets again."""
        expected, merged = frontier.next_offset(tp.topic), self._merged.get(tp, {})
        for event in events:
            offset = event.message.offset
            if expected is not None and offset < expected and merged.get(offset, _content(event)) != _content(event):
                log.warning("source.rewritten", topic=tp.topic, partition=tp.partition, merged=expected, from_=offset)
                frontier.rewind(tp.topic, offset)
                return offset
        return expected

    def _remember(self, tp: TP, admitted: Sequence[EventT]) -> None:
        merged = self._merged.setdefault(tp, {})
        merged.update((event.message.offset, _content(event)) for event in admitted)
        for offset in sorted(merged)[:-REMEMBERED]:
            del merged[offset]

    async def align(self, frontier: Frontier, partitions: Iterable[TP]) -> None:
        """After an assignment: read on where the windows stand, not where the commit stands."""
        for tp in partitions:
            expected = frontier.next_offset(tp.topic)
            if expected is None:
                continue
            first, end = await self._source.bounds(tp)
            if end < expected:
                log.warning("source.truncated", topic=tp.topic, partition=tp.partition, merged=expected, end=end)
                frontier.rewind(tp.topic, end)
            await self._source.seek(tp, max(first, min(expected, end)))

    async def _go_back(self, frontier: Frontier, tp: TP, expected: int, ahead: int) -> None:
        search = self._searches.get(tp)
        if search is None or search.expected != expected:
            search = self._searches[tp] = _Search(expected, self._now())
        elif self._now() - search.at < SEEK_AGAIN_SECONDS:
            return
        else:
            search.seeks, search.at = search.seeks + 1, self._now()
        first, _ = await self._source.bounds(tp)
        if first > expected or search.seeks > SEEKS:
            log.warning("source.gap", topic=tp.topic, partition=tp.partition, expected=expected, next=max(first, ahead))
            frontier.skip_to(tp.topic, first if first > expected else ahead)
            expected = max(first, expected if first > expected else ahead)
        await self._source.seek(tp, expected)
