"""Gives every event to its partition exactly in the order of the log, whatever Faust and a rebalance do to it.

Faust acknowledges events that it skips after a rebalance, and did those that `take_events` still buffered; so a committed
offset can run ahead of what was merged (seen: 7 events lost after two workers had swapped partitions and one was killed).
Therefore the frontier that is stored beside the windows is the truth: what lies before it is skipped, what lies
beyond it waits, and the consumer is sent back to it. Where that is in vain a second reader says what the log holds: only a
hole is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sluice_kit.streams import second_reader
from sluice_kit.streams.source import Place, SourceEvent
from sluice_kit.telemetry import logger

log = logger(__name__)

SEEK_AGAIN_SECONDS = 2.0
SEEKS = 5
"""After so many in vain the log is asked whether it has a hole there (it was compacted, or has the markers of transactions)."""
SILENCE_SECONDS = 10.0
"""For so long nothing of what was sought came: a broker that stands still is rarely away for longer, and a fetch never is."""

HELD_SECONDS = 120.0
"""For so long the log may say that it holds what does not come: twice as long as a worker may be without a sign of life."""

REMEMBERED = 1_000
"""Records of a partition whose content is known: more than a broker loses in its last second."""
TRUST_SECONDS = 5.0
"""For so long after a look at what was merged, copies of it are no reason to look again: an outbox sends many at once."""


class SourceWithheld(Exception):
    """The log holds what does not come, however often it is sought: the worker ends, and its successor reads anew."""

    def __init__(self, tp: Place, offset: int) -> None:
        super().__init__(
            f"{tp.topic}/{tp.partition} from offset {offset} on is in the log, and did not come for {HELD_SECONDS:.0f} s: "
            "the worker must end, so that another consumer reads it."
        )


def _content(event: SourceEvent) -> int:
    """0 where there is none."""
    value = getattr(event.message, "value", None)
    return hash(value) if value is not None else 0


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

    def owns(self, tp: Place) -> bool:
        """True when the partition is assigned to this worker."""

    async def seek(self, tp: Place, offset: int) -> None:
        """Read on from an offset."""

    async def bounds(self, *tps: Place) -> Mapping[Place, tuple[int, int]]:
        """First offset held, and the one after the last, of each of these partitions."""

    async def next_held(self, tp: Place, offset: int) -> int | None:
        """Offset of the first record at or after this one, seen by another reader than the one that `seek` sends; the end of
        the log where there is none. None where that cannot be said: the broker does not answer, or the log ends before."""

    async def commit(self, positions: Mapping[Place, int]) -> None:
        """Tell the broker up to where all is stored: advice, for whoever looks at the group."""


class FaustLog:
    """The consumer of a Faust app."""

    def __init__(self, app: Any, client: Mapping[str, Any]) -> None:
        """`client`: aiokafka's options, for the second reader."""
        self._app, self._client = app, client

    def owns(self, tp: Place) -> bool:
        """True when the partition is assigned to this worker."""
        return tp in self._app.consumer.assignment()

    async def seek(self, tp: Place, offset: int) -> None:
        """Read on from an offset."""
        await self._app.consumer.seek(tp, offset)

    async def bounds(self, *tps: Place) -> Mapping[Place, tuple[int, int]]:
        """First offset held, and the one after the last, of each of these partitions. Each question waits for the fetch that is
        under way in the consumer's thread, half a second where nothing comes: so all are asked about at once."""
        first = await self._app.consumer.earliest_offsets(*tps)
        last = await self._app.consumer.highwaters(*tps)
        return {tp: (first.get(tp) or 0, last.get(tp) or 0) for tp in tps}

    async def next_held(self, tp: Place, offset: int) -> int | None:
        """Offset of the first record at or after this one; the end where there is none; None where that cannot be said."""
        return await second_reader.next_held(self._client, tp, offset)

    async def commit(self, positions: Mapping[Place, int]) -> None:
        """Tell the broker, and Faust, up to where all is stored. Faust commits only what follows without a gap on what it has
        committed: once a seek had passed over something it committed nothing more of that partition, and kept all it would have."""
        await self._app.consumer._commit_offsets(positions)


@dataclass(slots=True)
class _Sought:
    """A place that the consumer was sent to, and from which nothing came yet."""

    next: int
    at: float
    seeks: int = 1


@dataclass(slots=True, kw_only=True)
class _Search(_Sought):
    """What follows on what is merged."""

    frontier: Frontier
    held_since: float | None = None
    """Since when the log says, whenever it is asked, that it holds what is sought."""

    @property
    def patience(self) -> float:
        """Seconds until an event from beyond is a reason to seek again. They grow once the log is asked each time."""
        return min(SEEK_AGAIN_SECONDS * max(1, self.seeks - SEEKS + 1), SILENCE_SECONDS)


class _Look(_Sought):
    """What was merged is read again, from the oldest record that is remembered on."""


class Sequencer:
    """Lets events through in the order of the log, each offset once.

    A broker that was killed may have lost its tail and given the offsets again (kafka-faust.md 1.2). It shows by a record
    that differs from what was merged there, or by a copy of a merged record further on: its producer sent it again. Then
    what is remembered is read again, and where the log begins to differ the frontier goes back.
    """

    def __init__(self, source: SourceLog, *, now: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._now = now
        self._searches: dict[Place, _Search] = {}
        self._merged: dict[Place, dict[int, int]] = {}
        self._looks: dict[Place, _Look] = {}
        self._trusted_until: dict[Place, float] = {}
        self._begun: dict[Place, int] = {}
        """The first offset that was admitted since the partition was assigned."""

    async def admit(self, frontier: Frontier, events: Sequence[SourceEvent]) -> list[SourceEvent]:
        """The events of one partition that follow on what is merged. Those beyond a gap are left out, and read again.

        Raises SourceWithheld where what is sought does not come, though the log says for minutes that it holds it.
        """
        tp = events[0].message.tp
        if tp in self._looks:
            events = await self._looked_at(frontier, tp, events)
            if not events:
                return []
        elif self._is_doubtful(frontier.next_offset(tp.topic), tp, events):
            await self._look(frontier, tp)
            return []
        expected = self._rewound(frontier, tp, events)
        if expected is None:
            # Nothing is stored, so nothing was counted: not even what another worker, or the one before, has committed. (A
            # broker that stood still while the table was read back gave one partition of it as empty, and 58 of 1,005 were lost.)
            expected = await self._first(tp)
        admitted, ahead = [], None
        for event in events:
            offset = event.message.offset
            if expected is None or offset == expected:
                admitted.append(event)
                expected = offset + 1
            elif offset > expected:
                ahead = offset if ahead is None else min(ahead, offset)
        if expected is not None and ahead is not None and ahead >= expected:
            await self._go_back(frontier, tp, expected)
        elif admitted:
            self._searches.pop(tp, None)
        self._remember(tp, admitted)
        return admitted

    def _is_doubtful(self, expected: int | None, tp: Place, events: Sequence[SourceEvent]) -> bool:
        """True when the log may differ from what was merged, and these events do not show from where on."""
        merged = self._merged.get(tp)
        if expected is None or not merged:
            return False
        same, contents = min(merged) - 1, set(merged.values()) - {0}
        trusted = self._now() < self._trusted_until.get(tp, 0.0)
        if all(event.message.offset >= expected for event in events):  # the usual case, in a fifth of the time
            return not trusted and not contents.isdisjoint(map(_content, events))
        for event in events:
            offset, content = event.message.offset, _content(event)
            if offset >= expected and content in contents and not trusted:
                return True
            if offset < expected and merged.get(offset, content) != content:
                return offset != same + 1  # what stands before it was seen to be the same: it begins here
            same = offset
        return False

    async def _look(self, frontier: Frontier, tp: Place) -> None:
        begin = max(await self._first(tp), min(self._merged[tp]))
        self._looks[tp] = _Look(begin, self._now())
        log.warning("source.doubtful", topic=tp.topic, partition=tp.partition, from_=begin)
        await self._source.seek(tp, begin)

    async def _looked_at(self, frontier: Frontier, tp: Place, events: Sequence[SourceEvent]) -> list[SourceEvent]:
        """What of these events comes after the look at what was merged; all before is read again and waits."""
        look, merged = self._looks[tp], self._merged.get(tp, {})
        expected = frontier.next_offset(tp.topic) or 0
        for place, event in enumerate(events):
            offset = event.message.offset
            if look.next < expected and offset == look.next:
                if merged.get(offset, _content(event)) != _content(event):
                    self._end_look(tp)
                    return list(events[place:])
                look.next, look.at = offset + 1, self._now()
            if look.next >= expected:
                self._end_look(tp)
                return list(events[place:])
        await self._look_again(tp, look)
        return []

    async def _look_again(self, tp: Place, look: _Look) -> None:
        if self._now() - look.at < SEEK_AGAIN_SECONDS:
            return
        if look.seeks > SEEKS:
            self._end_look(tp)
            return
        look.seeks, look.at = look.seeks + 1, self._now()
        await self._source.seek(tp, look.next)

    def _end_look(self, tp: Place) -> None:
        del self._looks[tp]
        self._trusted_until[tp] = self._now() + TRUST_SECONDS

    def _rewound(self, frontier: Frontier, tp: Place, events: Sequence[SourceEvent]) -> int | None:
        """The offset to go on at. Where another record stands now than was merged, the frontier goes back to it."""
        expected, merged = frontier.next_offset(tp.topic), self._merged.get(tp, {})
        for event in events:
            offset = event.message.offset
            if expected is not None and offset < expected and merged.get(offset, _content(event)) != _content(event):
                log.warning("source.rewritten", topic=tp.topic, partition=tp.partition, merged=expected, from_=offset)
                frontier.rewind(tp.topic, offset)
                self._merged[tp] = {known: content for known, content in merged.items() if known < offset}
                return offset
        return expected

    def _remember(self, tp: Place, admitted: Sequence[SourceEvent]) -> None:
        if admitted:
            self._begun.setdefault(tp, admitted[0].message.offset)
        merged = self._merged.setdefault(tp, {})
        merged.update((event.message.offset, _content(event)) for event in admitted[-REMEMBERED:])
        for offset in sorted(merged)[:-REMEMBERED]:
            del merged[offset]

    def reassigned(self) -> None:
        """The partitions are given out anew: nothing is sought, and nothing was read, under the new assignment."""
        self._looks.clear()
        self._searches.clear()
        self._begun.clear()

    async def align(self, frontiers: Mapping[Place, Frontier]) -> None:
        """After an assignment: read on where the windows stand, not where the commit stands.

        What is remembered from before is looked at again: a broker that was killed is why most partitions are given out anew.
        """
        for tp, bounds in (await self._source.bounds(*frontiers)).items() if frontiers else ():
            await self._align(frontiers[tp], tp, *bounds)

    async def _align(self, frontier: Frontier, tp: Place, first: int, end: int) -> None:
        self._looks.pop(tp, None)
        expected = frontier.next_offset(tp.topic)
        if expected is None:
            self._merged.pop(tp, None)
            await self._search(frontier, tp, first)
            return
        cut = end < expected
        if cut:
            log.warning("source.truncated", topic=tp.topic, partition=tp.partition, merged=expected, end=end)
            frontier.rewind(tp.topic, end)
            expected = end
        merged = self._merged[tp] = {o: c for o, c in self._merged.get(tp, {}).items() if first <= o < expected}
        begun = self._begun.get(tp)
        if merged and (begun is None or min(merged) < begun):
            self._looks[tp] = _Look(min(merged), self._now())
            await self._source.seek(tp, min(merged))
        elif cut or begun is None:
            await self._search(frontier, tp, max(first, expected))
        else:  # it is being read, or what follows was passed over before this came
            self._searches.setdefault(tp, _Search(expected, self._now(), frontier=frontier))

    async def seek_again(self) -> None:
        """To be called now and then: where nothing came of what was sought, although the log holds it, it is sought once more.

        A seek may be in vain: Faust's own handed out what it had fetched before, and dropped what was read again as already seen
        (`fetching.py` has mended that). Without a further event nobody would notice, and a partition stayed unread.
        Raises SourceWithheld.
        """
        now = self._now()
        silent = {
            tp: sought
            for tp, sought in [*self._searches.items(), *self._looks.items()]
            if now - sought.at >= SILENCE_SECONDS and self._source.owns(tp)
        }
        for tp, (first, end) in (await self._source.bounds(*silent)).items() if silent else ():
            sought = silent[tp]
            if sought is not self._looks.get(tp, self._searches.get(tp)):
                continue  # something came while the bounds were asked for
            # what comes from beyond a hole is an answer, and counts as one
            sought.at = self._now() - SEEK_AGAIN_SECONDS
            if isinstance(sought, _Search):
                await self._silent(tp, sought, first, end)
            elif first <= sought.next < end:
                log.info("source.sought_again", topic=tp.topic, partition=tp.partition, offset=sought.next, end=end)
                await self._source.seek(tp, sought.next)

    async def _silent(self, tp: Place, search: _Search, first: int, end: int) -> None:
        if end <= search.next:
            del self._searches[tp]  # all is read
            return
        log.info("source.sought_again", topic=tp.topic, partition=tp.partition, offset=search.next, end=end)
        await self._sought_in_vain(tp, search, first, end)

    async def _search(self, frontier: Frontier, tp: Place, offset: int) -> None:
        self._searches[tp] = _Search(offset, self._now(), frontier=frontier)
        await self._source.seek(tp, offset)

    async def _first(self, tp: Place) -> int:
        return (await self._source.bounds(tp))[tp][0]

    async def _go_back(self, frontier: Frontier, tp: Place, expected: int) -> None:
        search = self._searches.get(tp)
        if search is None or search.next != expected:
            search = self._searches[tp] = _Search(expected, self._now(), seeks=0, frontier=frontier)
        elif self._now() - search.at < search.patience:
            return
        search.at = self._now()
        await self._sought_in_vain(tp, search, *(await self._source.bounds(tp))[tp])

    async def _sought_in_vain(self, tp: Place, search: _Search, first: int, end: int) -> None:
        """Seek again, and where the log holds nothing of it pass on to what it does hold, and no farther.

        Raises SourceWithheld where it holds what does not come.
        """
        search.seeks += 1
        offset = max(first, search.next)
        if search.seeks > SEEKS and first <= search.next < end:
            offset = await self._held(tp, search)
        if self._searches.get(tp) is not search:
            return  # something came while the log was asked, or the partition moved
        if offset > search.next:
            log.warning("source.gap", topic=tp.topic, partition=tp.partition, expected=search.next, next=offset)
            search.frontier.skip_to(tp.topic, offset)
            self._searches[tp] = _Search(offset, self._now(), frontier=search.frontier)
            await self._source.commit({tp: offset})
        await self._source.seek(tp, offset)

    async def _held(self, tp: Place, search: _Search) -> int:
        """Where to read on, by what the log itself says: where it does not answer, nowhere else than was sought."""
        held = await self._source.next_held(tp, search.next)
        if held is None:
            search.held_since = None
        elif held <= search.next and self._searches.get(tp) is search:
            now = self._now()
            since = search.held_since = now if search.held_since is None else search.held_since
            log.warning(
                "source.withheld",
                topic=tp.topic,
                partition=tp.partition,
                offset=search.next,
                seconds=round(now - since),
            )
            if now - since >= HELD_SECONDS:
                raise SourceWithheld(tp, search.next)
        return search.next if held is None else max(held, search.next)
