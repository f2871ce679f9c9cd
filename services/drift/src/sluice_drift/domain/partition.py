"""Everything drift knows of the series of one partition, and how observations change it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sluice_drift.domain.observation import Observation, Pin, Series
from sluice_drift.domain.reference import Reference
from sluice_drift.domain.trailing import ALWAYS_PINNED, TrailingRules
from sluice_drift.domain.versions import Versions
from sluice_drift.domain.watermark import Clock, Marks
from sluice_drift.domain.window import DriftWindow

Record = Reference | DriftWindow | Marks
"""What is stored, each under its own `key`."""

_SECOND = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How windows are cut and references pinned. Times in microseconds."""

    length: int = 300 * _SECOND
    lateness: int = 30 * _SECOND
    retention: int = 1800 * _SECOND
    idle_after: int = 30 * _SECOND
    reference_size: int = 200
    trailing: TrailingRules = ALWAYS_PINNED


@dataclass(frozen=True, slots=True)
class Due:
    """A window as it stands now, ready to be compared and published."""

    window: DriftWindow
    reference: Reference
    revision: int
    closed: bool
    complete_up_to: int
    before: tuple[DriftWindow, ...] = ()
    """Windows of the series before it, newest first, where features are compared with them."""


class Partition:
    """Merges observations into references and windows. A replay changes nothing."""

    def __init__(self, partition: int, rules: Rules, *, records: Iterable[Record] = (), now: int) -> None:
        kept = list(records)
        self.number = partition
        self._rules = rules
        self._versions = _by_series(each for each in kept if isinstance(each, Reference))
        self._windows = {each.identity: each for each in kept if isinstance(each, DriftWindow)}
        self._newest: dict[Series, int] = {}
        for series, start in self._windows:
            self._newest[series] = max(start, self._newest.get(series, start))
        self._marks = next((each for each in kept if isinstance(each, Marks)), Marks(partition))
        self._clock = Clock(self._marks, idle_after=rules.idle_after, now=now)
        self._published: dict[tuple[Series, int], tuple[int, bool]] = {}
        self._unsettled = {identity for identity, each in self._windows.items() if not each.final}
        self._is_rewound = False
        self._changed: dict[tuple[int, str], Record] = {}
        self._deleted: list[str] = []
        self.dropped: Counter[str] = Counter()
        """Observations that count nowhere, by reason: late, replayed, repeated, old_model. And commands that do
        nothing: unknown_series, asked_already, still_collecting."""

    @property
    def windows(self) -> Iterable[DriftWindow]:
        """All windows remembered."""
        return self._windows.values()

    @property
    def references(self) -> Iterable[Reference]:
        """The references in use, one a series."""
        return [each.current for each in self._versions.values()]

    @property
    def all_references(self) -> list[Reference]:
        """Also those of before, and those that are asked for."""
        return [one for each in self._versions.values() for one in (*each.all, each.proposed) if one is not None]

    def next_offset(self, source: str) -> int | None:
        """The offset that follows on what is done with of a source topic; None when nothing is."""
        return self._marks.frontier.get(source)

    def skip_to(self, source: str, offset: int) -> None:
        """Go on at an offset, because the log no longer holds what is before it."""
        self._marks.frontier[source] = offset

    def rewind(self, source: str, end: int) -> None:
        """The log ends at `end`, before what was done with: the broker lost records, and will give their offsets again.

        What was counted of them stays counted; what comes at their offsets has another place, and is new unless its mark is known.
        """
        self._marks.rewind(source, end)
        self._is_rewound = True

    def place(self, source: str, offset: int) -> int:
        """What an offset of a source topic is called in observations."""
        return self._marks.place(source, offset)

    def rewound(self) -> dict[str, Record | None]:
        """What must be stored before any observation is sent on: forgotten, its place would be given a second time."""
        return {self._marks.key: self._marks} if self._is_rewound else {}

    def advance(self, source: str, through: int) -> dict[str, Record | None]:
        """Everything of a source up to an offset is done with; returns what must be stored."""
        self._marks.frontier[source] = max(self._marks.frontier.get(source, 0), through + 1)
        self._is_rewound = False
        return {self._marks.key: self._marks}

    def absorb(self, observations: Sequence[Observation | Pin], *, now: int) -> dict[str, Record | None]:
        """Merge observations, those of one source partition in the order of their offsets, and obey commands between them.

        Returns what must be stored. References first: if a crash keeps only a prefix of the writes, an observation of
        a lost window is merged again, but none can be in a window *and* in a reference that is collected anew.
        """
        for observation in observations:
            if isinstance(observation, Pin):
                self._propose(observation)
                continue
            self._clock.hear(str(observation.source_partition), at=observation.at, now=now)
            self._merge(observation)
        self._forget(self._clock.watermark(now) - self._rules.lateness - self._rules.retention)
        return self._take_changes()

    def due(self, now: int) -> list[Due]:
        """Windows whose published form is out of date."""
        watermark = self._clock.watermark(now)
        result = []
        for identity in self._unsettled:
            window = self._windows[identity]
            closed = window.end + self._rules.lateness <= watermark
            before = self._before(window)
            revision = window.revision + sum(each.revision for each in before)
            if self._published.get(identity) != (revision, closed):
                result.append(Due(window, self._reference_of(window), revision, closed, watermark, before))
        return result

    def mark_published(self, due: Due) -> None:
        """The window is out: it is due again only when it changes."""
        identity = due.window.identity
        self._published[identity] = (due.revision, due.closed)
        if due.closed and due.window.revision + sum(each.revision for each in due.before) == due.revision:
            self._unsettled.discard(identity)

    def _merge(self, observation: Observation) -> None:
        counted = self._windows.get((observation.series, observation.at - observation.at % self._rules.length))
        if counted is not None and counted.knows_elsewhere(observation):
            self.dropped["repeated"] += 1
            return
        reference = self._reference_for(observation)
        if reference is None:
            self.dropped["old_model"] += 1
            return
        versions = self._versions[reference.series]
        for each in (reference, versions.proposed):
            if each is not None and each.collects(observation):
                each.add(observation, size=self._rules.reference_size)
                self._changed[0, each.key] = each
        window = self._window(observation)
        if versions.proposed is not None and versions.proposed.replaces(reference):
            self._take_over(versions, versions.proposed, at=observation.at)
        if window is None:
            self.dropped["late"] += 1
            return
        reference = versions.at(window.start)
        collected = reference.holds(observation)
        if not window.merge(reference.placed(observation), collected=collected, reference_version=reference.version):
            self.dropped["replayed"] += 1
            return
        self._changed[1, window.key] = window
        self._unsettled.add(window.identity)
        self._unsettle_after(window)

    def _unsettle_after(self, window: DriftWindow) -> None:
        """Windows that were compared with this one are out of date as well."""
        newest = self._newest[window.series]
        if newest == window.start:  # as nearly always, and then there is nothing to look for
            return
        for number in self._rules.trailing.numbers(window.series):
            start = window.start + number * window.length
            if start > newest:
                return
            later = self._windows.get((window.series, start))
            if later is not None and not later.final:
                self._unsettled.add(later.identity)

    def _before(self, window: DriftWindow) -> tuple[DriftWindow, ...]:
        numbers = self._rules.trailing.numbers(window.series)
        identities = ((window.series, window.start - number * window.length) for number in numbers)
        return tuple(self._windows[each] for each in identities if each in self._windows)

    def _reference_for(self, observation: Observation) -> Reference | None:
        versions = self._versions.get(observation.series)
        reference = versions.current if versions else self._begin(Reference(observation.series, self.number))
        model = observation.embedding_model
        if not model or not reference.embedding_model or model == reference.embedding_model:
            return reference
        if model in reference.retired_models:
            return None
        return self._begin(reference.successor(model))

    def _begin(self, reference: Reference) -> Reference:
        """A version of a reference begins to be collected."""
        if reference.series in self._versions:
            self._deleted += [each.key for each in self._versions[reference.series].begin(reference)]
        else:
            self._versions[reference.series] = Versions([reference])
        return reference

    def _propose(self, pin: Pin) -> None:
        """Collect a new version beside the one in use. What was seen already does not count for it."""
        versions = self._versions.get(pin.series)
        if versions is None:
            self.dropped["unknown_series"] += 1
            return
        if versions.proposed is not None or versions.knows(pin.command):
            self.dropped["asked_already"] += 1
            return
        if not (versions.current.pinned or versions.current.requests_pinned):
            self.dropped["still_collecting"] += 1
            return
        after = dict(versions.current.offsets)
        for window in self._windows.values():
            if window.series == pin.series:
                after |= {place: max(offset, after.get(place, -1)) for place, offset in window.offsets.items()}
        versions.proposed = versions.current.proposal(pin.command, after)
        self._changed[0, versions.proposed.key] = versions.proposed

    def _take_over(self, versions: Versions, reference: Reference, *, at: int) -> None:
        """It is full: windows that begin later than all of now are compared with it, and hold none of its observations."""
        ends = [window.end for window in self._windows.values() if window.series == reference.series]
        reference.since = max([at - at % self._rules.length + self._rules.length, *ends])
        reference.proposed = False
        self._deleted += [each.key for each in versions.begin(reference)]

    def _reference_of(self, window: DriftWindow) -> Reference:
        return self._versions[window.series].numbered(window.reference_version)

    def _window(self, observation: Observation) -> DriftWindow | None:
        start = observation.at - observation.at % self._rules.length
        identity = (observation.series, start)
        known = self._windows.get(identity)
        if known is None:
            if start + self._rules.length <= self._marks.forgotten_before:
                return None
            known = self._windows[identity] = DriftWindow(observation.series, start, self._rules.length, self.number)
            self._newest[observation.series] = max(start, self._newest.get(observation.series, start))
        return None if known.final else known

    def _forget(self, horizon: int) -> None:
        horizon -= horizon % self._rules.length
        if horizon <= self._marks.forgotten_before:
            return
        self._marks.forgotten_before = horizon
        oldest: dict[Series, int] = {}
        for series, start in self._unsettled:
            oldest[series] = min(start, oldest.get(series, start))
        for window in list(self._windows.values()):
            if window.end > horizon or window.identity in self._unsettled:
                continue
            if window.end <= self._kept_from(window.series, horizon, oldest):
                self._deleted.append(self._windows.pop(window.identity).key)
                self._published.pop(window.identity, None)
            elif not window.final:
                window.final = True
                window.marks = {}  # half a megabyte of a busy one, and there may be a day of them
                self._changed[1, window.key] = window

    def _kept_from(self, series: Series, horizon: int, oldest: Mapping[Series, int]) -> int:
        """Windows that are restated no more are kept while others, which may be or are not out yet, are compared with them."""
        most = self._rules.trailing.most(series)
        return min(horizon, oldest.get(series, horizon)) - most * self._rules.length if most else horizon

    def _take_changes(self) -> dict[str, Record | None]:
        ordered = sorted(self._changed.items(), key=lambda item: item[0][0])
        changes: dict[str, Record | None] = {record.key: record for _, record in ordered}
        changes |= dict.fromkeys(self._deleted)
        changes[self._marks.key] = self._marks
        self._changed, self._deleted = {}, []
        return changes


def _by_series(references: Iterable[Reference]) -> dict[Series, Versions]:
    found: defaultdict[Series, list[Reference]] = defaultdict(list)
    for each in references:
        found[each.series].append(each)
    return {series: Versions(kept) for series, kept in found.items()}
