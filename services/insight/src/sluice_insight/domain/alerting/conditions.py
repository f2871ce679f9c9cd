"""For whom a rule's condition holds at a moment, from the board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from sluice_insight.domain.alerting.disparities import Measured, unequal
from sluice_insight.domain.alerting.rules import (
    BY_THE_CLOCK,
    Absence,
    BurnRate,
    Change,
    DeadLetters,
    Disparity,
    MissingEvents,
    Rule,
    Standstill,
    Threshold,
)
from sluice_insight.domain.alerting.states import Alert, Labels, Signal
from sluice_insight.domain.board import MINUTE, Board, Point, Query
from sluice_insight.domain.catalogue import metric
from sluice_insight.domain.part import DIMENSIONS, Series

SECOND = 1_000_000
NO_NEWS = 10 * MINUTE
"""After so long without a newer watermark nothing more is waited for: a mesh that fell silent has no traffic."""


class Gaps(Protocol):
    """One producer's events on one topic."""

    @property
    def topic(self) -> str: ...
    @property
    def producer(self) -> str: ...
    @property
    def missing(self) -> Sequence[tuple[int, int]]:
        """The numbers, first and last."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A partition of which a group of consumers has committed a position."""

    group: str
    topic: str
    partition: int
    waiting: int
    still: int
    """For so many microseconds the group's position has not moved."""
    has_moved: bool = False
    """Whether it was seen to move there: else it may have stood there for longer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A series' value by its labels and unit."""

    labels: Labels
    point: Point


def complete_moment(board: Board, held_back_to: int | None, *, now: int) -> int:
    """The full minute of event time up to which conditions can be judged."""
    complete = board.complete_up_to(now)
    if held_back_to is not None:
        complete = min(complete, held_back_to)
    moment = max(complete, now - NO_NEWS)
    return moment - moment % MINUTE


def moment_of(rule: Rule, *, complete: int, now: int) -> int:
    """The moment at which a rule is judged: that up to which all is in, but for what nothing later can change."""
    # What is missing is missing now, and holds the event time back: it is judged by the clock.
    if isinstance(rule.condition, BY_THE_CLOCK):
        return now - now % MINUTE
    # A round of self-tests is whole when it comes: to wait for its minute, or for slower traffic, would only be late.
    if rule.metric and metric(rule.metric).family == "probe":
        return now - now % SECOND
    return complete


@dataclass(frozen=True)
class Beside:
    """What conditions look at beside the board."""

    measured: Sequence[Measured] = ()
    """Disparities, the newest of each."""
    dead_letters: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """How many were given up, by the length of the window until now, and by topic."""
    standing: Sequence[Standing] = ()
    """Groups of consumers before which events wait."""


def signals(
    rule: Rule,
    board: Board,
    gaps: Iterable[Gaps],
    *,
    at: int,
    beside: Beside = Beside(),
    still_open: Sequence[Alert] = (),
) -> list[Signal]:
    """Those for whom the condition holds at this moment. Nothing after it is looked at.

    `still_open` are the rule's alerts: what is absent is known by them alone, once the lookback holds nothing of it any more.
    """
    match rule.condition:
        case MissingEvents(above=above):
            return _missing(gaps, above)
        case DeadLetters(above=above):
            return _given_up(beside.dead_letters.get(rule.window, {}), above)
        case Standstill() as condition:
            return _standing_still(beside.standing, condition, rule.window)
        case Disparity() as condition:
            return unequal(rule, condition, beside.measured, at=at)
        case Threshold() as condition:
            return [
                _signal(seen) for seen in _values(rule, board, at - rule.window, at) if condition.holds(_number(seen))
            ]
        case Change() as condition:
            return _changed(rule, condition, board, at)
        case BurnRate() as condition:
            return _burning(rule, condition, board, at)
        case Absence() as condition:
            return _absent(rule, condition, board, at, still_open)


def _missing(gaps: Iterable[Gaps], above: int) -> list[Signal]:
    found = []
    for gap in gaps:
        count = sum(last - first + 1 for first, last in gap.missing)
        if count > above:
            labels = (("producer", gap.producer), ("topic", gap.topic))
            found.append(Signal(labels=labels, causes={f"missing={count}": 1.0}))
    return found


def _given_up(counts: Mapping[str, int], above: int) -> list[Signal]:
    return [
        Signal(labels=(("topic", topic),), causes={f"dead_letters={count}": 1.0}, words={"count": str(count)})
        for topic, count in sorted(counts.items())
        if count > above
    ]


def _standing_still(standing: Sequence[Standing], condition: Standstill, window: int) -> list[Signal]:
    counts = Counter[Labels]()
    for one in standing:
        if one.group in condition.groups and one.waiting and one.still >= window:
            counts[(("group", one.group), ("topic", one.topic))] += one.waiting
    return [
        Signal(labels=labels, causes={f"waiting={count}": 1.0}, words={"count": str(count)})
        for labels, count in sorted(counts.items())
    ]


def ended(rule: Rule, beside: Beside) -> frozenset[Labels]:
    """Those for whom the condition is known to be over, so that nothing is kept: their groups moved on, or nothing waits any more.

    Of what was not asked, or not answered, nothing is known.
    """
    if not isinstance(rule.condition, Standstill):
        return frozenset()
    is_over: dict[Labels, bool] = {}
    for one in beside.standing:
        labels = (("group", one.group), ("topic", one.topic))
        goes_on = one.waiting == 0 or (one.has_moved and one.still < rule.window)
        is_over[labels] = is_over.get(labels, True) and goes_on
    return frozenset(labels for labels, each in is_over.items() if each)


def _changed(rule: Rule, condition: Change, board: Board, at: int) -> list[Signal]:
    end = at - condition.earlier
    before = {
        (seen.labels, seen.point.unit): _number(seen) for seen in _values(rule, board, end - condition.baseline, end)
    }
    return [
        _signal(seen)
        for seen in _values(rule, board, at - rule.window, at)
        if (key := (seen.labels, seen.point.unit)) in before and condition.holds(_number(seen), before[key])
    ]


def _burning(rule: Rule, condition: BurnRate, board: Board, at: int) -> list[Signal]:
    found: dict[Labels, Signal] = {}
    for burn in condition.pairs:
        limit = condition.limit(burn)
        short = {seen.labels: _number(seen) for seen in _values(rule, board, at - burn.short, at)}
        for seen in _values(rule, board, at - burn.long, at):
            if _number(seen) > limit and short.get(seen.labels, 0.0) > limit:
                found.setdefault(seen.labels, _signal(seen))
    return list(found.values())


def _absent(rule: Rule, condition: Absence, board: Board, at: int, still_open: Sequence[Alert]) -> list[Signal]:
    begin = at - rule.window
    there = {seen.labels for seen in _values(replace(rule, min_samples=1), board, begin, at)}
    new = {
        seen.labels: _signal(seen)
        for seen in _values(rule, board, begin - condition.lookback, begin)
        if seen.labels not in there
    }
    # Late data may take back the very moment at which an alert began: later ones are judged by the alert.
    known = [
        Signal(labels=alert.labels, stands=True)
        for alert in still_open
        if alert.labels not in new
        and alert.since < at < alert.since + condition.retired_after
        and _is_of(rule, alert.labels)
        and not _is_there(rule, alert.labels, there)
    ]
    return [*new.values(), *known]


def _is_of(rule: Rule, labels: Labels) -> bool:
    """Whether the rule, which may have been changed since, can still tell of these labels."""
    return all(name in _names(rule) and value in rule.filters.get(name, (value,)) for name, value in labels)


def _is_there(rule: Rule, labels: Labels, there: Collection[Labels]) -> bool:
    # Of fewer labels than the rule tells apart is a series that has none of the others, or one from before the rule told them apart.
    # Nobody can say which, and an alert that never ends of what is there would be worse than one that ends.
    if len(labels) == len(_names(rule)):
        return labels in there
    return any(set(labels) <= set(each) for each in there)


def _values(rule: Rule, board: Board, start: int, end: int) -> list[Seen]:
    """The metric over the whole span, by what the rule keeps apart; only where enough was observed."""
    query = Query(metrics=(rule.metric,), filters=rule.filters, group_by=rule.group_by, start=start, end=end)
    if metric(rule.metric).family == "drift":
        # The stated rate of false alarms is that of closed windows.
        points = _newest(point for point in board.points(query) if point.closed and point.start + point.length <= end)
    else:
        points = board.merged(query, name=query.group)
    enough = [
        point for point in points if point.value.value is not None and point.value.sample_count >= rule.min_samples
    ]
    return [Seen(_labels(point.series, rule), point) for point in enough]


def _newest(points: Iterable[Point]) -> list[Point]:
    # Points come by series and start. A reading that says nothing must not hide one that does.
    found: dict[Series, Point] = {}
    for point in points:
        if point.value.value is not None:
            found[point.series] = point
    return list(found.values())


def _labels(series: Series, rule: Rule) -> Labels:
    return tuple(sorted((name, value) for name in _names(rule) if (value := getattr(series, name))))


def _names(rule: Rule) -> tuple[str, ...]:
    """The dimensions that the rule tells apart."""
    return rule.group_by if metric(rule.metric).family != "drift" else tuple(Series.__dataclass_fields__)


def labels_of(rule: Rule) -> frozenset[str]:
    """Names of the labels that alerts of the rule can have."""
    match rule.condition:
        case MissingEvents():
            return frozenset({"producer", "topic"})
        case DeadLetters():
            return frozenset({"topic"})
        case Standstill():
            return frozenset({"group", "topic"})
        case Disparity():
            return frozenset({*DIMENSIONS, "attribute", "group", "policy"})
        case _:
            return frozenset(_names(rule))


def _signal(seen: Seen) -> Signal:
    return Signal(labels=seen.labels, point=seen.point, causes=seen.point.causes)


def _number(seen: Seen) -> float:
    value = seen.point.value.value
    assert value is not None
    return value
