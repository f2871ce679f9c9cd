"""Everything drift knows of the series of one partition, and how observations change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sluice_drift.domain.observation import Observation, Series
from sluice_drift.domain.reference import Reference
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


@dataclass(frozen=True, slots=True)
class Due:
    """A window as it stands now, ready to be compared and published."""

    window: DriftWindow
    reference: Reference
    revision: int
    closed: bool
    complete_up_to: int


class Partition:
    """Merges observations into references and windows. A replay changes nothing."""

    def __init__(self, partition: int, rules: Rules, *, records: Iterable[Record] = (), now: int) -> None:
        kept = list(records)
        self.number = partition
        self._rules = rules
        self._references = {each.series: each for each in kept if isinstance(each, Reference)}
        self._windows = {each.identity: each for each in kept if isinstance(each, DriftWindow)}
        self._marks = next((each for each in kept if isinstance(each, Marks)), Marks(partition))
        self._clock = Clock(self._marks, idle_after=rules.idle_after, now=now)
        self._published: dict[tuple[Series, int], tuple[int, bool]] = {}
        self._unsettled = set(self._windows)
        self._changed: dict[tuple[int, object], Record] = {}
        self._deleted: list[str] = []
        self.dropped: Counter[str] = Counter()
        """Observations that count nowhere, by reason: late, replayed, repeated, old_model."""

    @property
    def windows(self) -> Iterable[DriftWindow]:
        """All windows remembered."""
        return self._windows.values()

    @property
    def references(self) -> Iterable[Reference]:
        """All references."""
        return self._references.values()

    def next_offset(self, source: str) -> int | None:
        """The offset that follows on what is done with of a source topic; None when nothing is."""
        return self._marks.frontier.get(source)

    def skip_to(self, source: str, offset: int) -> None:
        """Go on at an offset, because the log no longer holds what is before it."""
        self._marks.frontier[source] = offset

    def rewind(self, source: str, end: int) -> None:
        """The log ends at `end`, before what was done with: the broker lost records."""
        self._marks.frontier[source] = end

    def advance(self, source: str, through: int) -> dict[str, Record | None]:
        """Everything of a source up to an offset is done with; returns what must be stored."""
        self._marks.frontier[source] = max(self._marks.frontier.get(source, 0), through + 1)
        return {self._marks.key: self._marks}

    def absorb(self, observations: Sequence[Observation], *, now: int) -> dict[str, Record | None]:
        """Merge observations, those of one source partition in the order of their offsets.

        Returns what must be stored. References first: if a crash keeps only a prefix of the writes, an observation of
        a lost window is merged again, but none can be in a window *and* in a reference that is collected anew.
        """
        for observation in observations:
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
            if self._published.get(identity) != (window.revision, closed):
                result.append(Due(window, self._references[window.series], window.revision, closed, watermark))
        return result

    def mark_published(self, due: Due) -> None:
        """The window is out: it is due again only when it changes."""
        identity = due.window.identity
        self._published[identity] = (due.revision, due.closed)
        if due.closed and due.window.revision == due.revision:
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
        if reference.collects(observation) and not reference.holds(observation):
            reference.add(observation, size=self._rules.reference_size)
            self._changed[0, reference.series] = reference
        window = self._window(observation)
        if window is None:
            self.dropped["late"] += 1
            return
        collected = reference.holds(observation)
        if not window.merge(reference.placed(observation), collected=collected, reference_version=reference.version):
            self.dropped["replayed"] += 1
            return
        self._changed[1, window.identity] = window
        self._unsettled.add(window.identity)

    def _reference_for(self, observation: Observation) -> Reference | None:
        reference = self._references.get(observation.series)
        if reference is None:
            reference = self._begin(Reference(observation.series, self.number))
        model = observation.embedding_model
        if not model or not reference.embedding_model or model == reference.embedding_model:
            return reference
        if model in reference.retired_models:
            return None
        return self._begin(reference.successor(model))

    def _begin(self, reference: Reference) -> Reference:
        """A version of a reference begins to be collected."""
        self._references[reference.series] = reference
        return reference

    def _window(self, observation: Observation) -> DriftWindow | None:
        start = observation.at - observation.at % self._rules.length
        identity = (observation.series, start)
        if identity not in self._windows:
            if start + self._rules.length <= self._marks.forgotten_before:
                return None
            self._windows[identity] = DriftWindow(observation.series, start, self._rules.length, self.number)
        return self._windows[identity]

    def _forget(self, horizon: int) -> None:
        horizon -= horizon % self._rules.length
        if horizon <= self._marks.forgotten_before:
            return
        self._marks.forgotten_before = horizon
        for identity in [each.identity for each in self._windows.values() if each.end <= horizon]:
            if identity not in self._unsettled:
                self._deleted.append(self._windows.pop(identity).key)
                self._published.pop(identity, None)

    def _take_changes(self) -> dict[str, Record | None]:
        ordered = sorted(self._changed.items(), key=lambda item: item[0][0])
        changes: dict[str, Record | None] = {record.key: record for _, record in ordered}
        changes |= dict.fromkeys(self._deleted)
        changes[self._marks.key] = self._marks
        self._changed, self._deleted = {}, []
        return changes
