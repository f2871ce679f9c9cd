"""The parts seen so far, and the answers to questions about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sluice_insight.domain.catalogue import Metric, Value, metric
from sluice_insight.domain.folding import currency
from sluice_insight.domain.horizon import Horizon
from sluice_insight.domain.part import Part, Series, Totals

MINUTE = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question. Times in microseconds; `start` inclusive, `end` exclusive (windows of whole hours are told whole: `until`)."""

    metrics: tuple[str, ...]
    filters: Mapping[str, frozenset[str]]
    group_by: tuple[str, ...] = ()
    window: int = MINUTE
    hop: int = 0
    """From one window's start to the next's; 0 means as long as the window. Must divide it."""
    start: int = 0
    end: int = 2**62

    def matches(self, series: Series) -> bool:
        """True when all filters hold."""
        return all(getattr(series, name) in values for name, values in self.filters.items())

    def group(self, series: Series) -> Series:
        """The series with only the dimensions grouped by."""
        return Series(**{name: getattr(series, name) for name in self.group_by})

    @property
    def is_of_whole_hours(self) -> bool:
        """True when hours are enough to answer it."""
        return self.window % (60 * MINUTE) == 0 and self.step % (60 * MINUTE) == 0

    @property
    def until(self) -> int:
        """Where its windows end. Of hours and days no part can be had: the last window is told whole, whatever it is made of."""
        return -(-self.end // self.step) * self.step if self.is_of_whole_hours else self.end

    @property
    def step(self) -> int:
        """From one window's start to the next's."""
        return self.hop or self.window

    def windows_of(self, moment: int) -> Iterable[int]:
        """Starts of the windows that a moment is in, of those that the range asks for."""
        newest = moment - moment % self.step
        last_end = -(-self.end // self.step) * self.step
        return (
            start
            for start in range(newest, moment - self.window, -self.step)
            if start >= self.start and start + self.window <= last_end
        )

    def places(self, part: Part) -> Iterable[tuple[Series, int]]:
        """The series and the windows that a part counts for."""
        series = self.group(part.series)
        return ((series, start) for start in self.windows_of(part.start))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An answer: one metric of one series in one window."""

    metric: str
    unit: str
    series: Series
    start: int
    length: int
    value: Value
    revision: int
    closed: bool
    verdict: str = ""
    causes: Mapping[str, float] = field(default_factory=dict)


class Board:
    """Parts by key, the newest revision of each, for `history` microseconds of event time or until the horizon lets them go."""

    def __init__(self, *, history: int, horizon: Horizon | None = None) -> None:
        self._horizon = horizon or Horizon(history)
        self._parts: dict[str, Part] = {}
        self._by_start: defaultdict[int, dict[str, Part]] = defaultdict(dict)
        self._newest = 0
        self._heard: dict[tuple[str, int], tuple[int, int]] = {}
        self._open: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """Starts of parts that will still be closed, by family and key."""

    @property
    def history(self) -> int:
        """How much of event time is kept at least, in microseconds."""
        return self._horizon.history

    def __len__(self) -> int:
        return len(self._parts)

    def begins_at(self, now: int) -> int:
        """The moment from which all minutes that came are kept."""
        return self._horizon.first(now)

    def parts(self) -> list[Part]:
        """All parts that are kept."""
        return list(self._parts.values())

    def starts(self) -> list[int]:
        """The moments that the parts that are kept start at."""
        return list(self._by_start)

    def starting(self, start: int, end: int) -> list[Part]:
        """The parts that start from `start` on and before `end`."""
        return [part for one in list(self._by_start) if start <= one < end for part in self._by_start[one].values()]

    def put(self, part: Part, *, now: int) -> bool:
        """Take a part in; False when it is not newer than what is known, or too old to keep."""
        self._hear(part, now)
        known = self._parts.get(part.key)
        if part.start < self._horizon.first(now) or (known is not None and part.rank <= known.rank):
            return False
        self._parts[part.key] = part
        self._by_start[part.start][part.key] = part
        if part.closed or not part.complete_up_to:
            self._open[part.family].pop(part.key, None)
        else:
            self._open[part.family][part.key] = part.start
        if part.start > self._newest:
            self._newest = part.start
            self.forget(self._horizon.first(now))
        return True

    def complete_up_to(self, now: int, *, family: str = "") -> int:
        """Event time up to which nothing more is expected, of one family or of all: the slowest partition heard in the last minute; 0 if none."""
        heard = [each for (its, _), each in self._heard.items() if not family or its == family]
        recent = [watermark for watermark, at in heard if now - at < MINUTE]
        return min(recent) if recent else max((watermark for watermark, _ in heard), default=0)

    def first_open(self, family: str) -> int | None:
        """Start of the first part that is not closed; None when all are."""
        return min(self._open[family].values(), default=None)

    def points(self, query: Query, *, parts: Sequence[Part] | None = None, since: int = 0) -> list[Point]:
        """Answers, by metric, series and start, of the parts given, or else of those kept from `since` on. Raises UnknownMetric."""
        metrics = [metric(name) for name in query.metrics]
        found: list[Point] = []
        for family in {each.family for each in metrics}:
            wanted = [each for each in metrics if each.family == family]
            chosen = self._matching(query, family, since) if parts is None else _chosen(parts, query, family)
            if family == "drift":
                found += _readings(chosen, wanted)
            else:
                found += self._merge(chosen, wanted, length=query.window, places=query.places)
        return sorted(found, key=lambda point: (point.metric, point.unit, _order(point.series), point.start))

    def merged(self, query: Query, *, name: Callable[[Series], Series]) -> list[Point]:
        """The query's whole range as one window, by the series that `name` gives each part's. Not for drift."""
        metrics = [metric(each) for each in query.metrics]
        found: list[Point] = []
        for family in {each.family for each in metrics}:
            wanted = [each for each in metrics if each.family == family]
            found += self._merge(
                self._matching(query, family),
                wanted,
                length=query.end - query.start,
                places=lambda part: [(name(part.series), query.start)],
            )
        return found

    def _matching(self, query: Query, family: str, since: int = 0) -> Iterable[Part]:
        # Copies, because Prometheus asks from another thread.
        starts = [start for start in list(self._by_start) if max(query.start, since) <= start < query.until]
        for start in starts:
            yield from _chosen(list(self._by_start.get(start, {}).values()), query, family)

    def _merge(
        self,
        parts: Iterable[Part],
        metrics: Sequence[Metric],
        *,
        length: int,
        places: Callable[[Part], Iterable[tuple[Series, int]]],
    ) -> list[Point]:
        groups: defaultdict[tuple[Series, int, str], list[Part]] = defaultdict(list)
        for part in parts:
            # A currency is no dimension of a series, but amounts of two currencies must never be added.
            for series, start in places(part):
                groups[series, start, currency(part)].append(part)
        found = []
        for (series, start, unit), members in groups.items():
            totals = Totals()
            for part in members:
                totals.merge(part.totals)
            for each in metrics:
                assert each.compute is not None
                value = each.compute(totals)
                if value.sample_count == 0:
                    continue  # nothing of the kind was observed: no point, rather than a zero that looks measured
                found.append(
                    Point(
                        metric=each.name,
                        unit=f"nano-{unit}" if each.name == "cost.nano_units" and unit else each.unit,
                        series=series,
                        start=start,
                        length=length,
                        value=value,
                        revision=sum(part.revision for part in members),
                        closed=all(self._is_closed(part) for part in members),
                    )
                )
        return found

    def _is_closed(self, part: Part) -> bool:
        # Nobody closes minutes of cost: they count as closed when a newer one has begun.
        return part.closed or (part.family == "cost" and part.start + 2 * part.length <= self._newest)

    def _hear(self, part: Part, now: int) -> None:
        if part.complete_up_to:
            source = (part.family, part.partition)
            watermark, _ = self._heard.get(source, (0, 0))
            self._heard[source] = (max(watermark, part.complete_up_to), now)

    def forget(self, before: int) -> None:
        """Let go of what starts before."""
        for start in [start for start in self._by_start if start < before]:
            for key, part in self._by_start.pop(start).items():
                del self._parts[key]
                self._open[part.family].pop(key, None)


def _chosen(parts: Iterable[Part], query: Query, family: str) -> Iterable[Part]:
    # Drift has windows of its own, and is told as it is: none of its windows reaches beyond what is asked for.
    end = query.end if family == "drift" else query.until
    return (part for part in parts if part.family == family and part.start < end and query.matches(part.series))


def _order(series: Series) -> tuple[str, ...]:
    return tuple(getattr(series, name) for name in Series.__dataclass_fields__)


def _readings(parts: Iterable[Part], metrics: Sequence[Metric]) -> list[Point]:
    """Drift is measured over a whole series: its values are given as they are, never merged."""
    found = []
    for part in parts:
        for each in metrics:
            reading = part.readings.get(each.name)
            if reading is None:
                continue
            found.append(
                Point(
                    metric=each.name,
                    unit=each.unit,
                    series=part.series,
                    start=part.start,
                    length=part.length,
                    value=Value(reading.value, reading.sample_count),
                    revision=part.revision,
                    closed=part.closed,
                    verdict=reading.verdict,
                    causes=part.causes,
                )
            )
    return found
