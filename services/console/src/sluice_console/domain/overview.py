"""The overview's figures, charts and slices, from metrics."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sluice_console.domain import wording
from sluice_console.domain.answers import Amount, Point, Points, SpendGroup, total
from sluice_console.domain.charts import Chart, Line, over_time, windows
from sluice_console.domain.scope import SLICES, Scope

COUNTS = (
    "quality.requests",
    "quality.succeeded",
    "quality.failed",
    "quality.cancelled",
    "quality.blocked_inputs",
    "quality.blocked_outputs",
    "quality.rejected",
)
SHARES = (
    "quality.blocked_ratio",
    "quality.redacted_ratio",
    "quality.failed_ratio",
    "quality.refusal_ratio",
    "quality.feedback_score",
)
TIMES = (
    "quality.latency_seconds.p50",
    "quality.latency_seconds.p95",
    "quality.time_to_first_token_seconds.p95",
)
ANSWERS = (
    "quality.empty_answer_ratio",
    "quality.truncated_ratio",
    "quality.language_mismatch_ratio",
    "quality.repetitive_ratio",
    "quality.ungrounded_ratio",
)
# Costs are added up over currencies in insight: money is asked of the ledger, and only its course over time is taken from here.
SERIES = (*COUNTS, *SHARES, *ANSWERS, *TIMES, "cost.nano_units", "drift.drifted")
_OF_SHARES = (
    ("guards", "Blocked and redacted", "of requests", (
        ("blocked", "quality.blocked_ratio", "warn"),
        ("redacted", "quality.redacted_ratio", "main"),
    )),
    ("answers", "Answers", "of answers", (
        ("refused", "quality.refusal_ratio", "main"),
        ("empty", "quality.empty_answer_ratio", "bad"),
        ("cut at the limit", "quality.truncated_ratio", "warn"),
    )),
    ("text", "What answers say", "of answers that could be judged", (
        ("repeats itself", "quality.repetitive_ratio", "main"),
        ("another language than asked in", "quality.language_mismatch_ratio", "other"),
        ("not supported by its context", "quality.ungrounded_ratio", "warn"),
    )),
)  # fmt: skip
"""Charts of shares: id, title, of what, and each line's name, metric and tone."""
SLICED = (
    "quality.requests",
    "quality.success_ratio",
    "quality.blocked_ratio",
    "quality.redacted_ratio",
    "quality.failed_ratio",
    "quality.refusal_ratio",
    "quality.feedback_score",
    "quality.latency_seconds.p95",
)
MOST_ROWS = 50


@dataclass(frozen=True, slots=True)
class Figure:
    """One big number: what it is, what it says, and a word on it."""

    name: str
    value: str
    note: str
    tone: str = ""


def figures(points: Points, scope: Scope, spent: Mapping[str, int] | None) -> list[Figure]:
    """The numbers at the top; each says over what it was taken."""
    requests = _sum(points, "quality.requests")
    minutes = scope.length.total_seconds() / 60
    p95 = points.latest("quality.latency_seconds.p95")
    # An open window is looked at again and again as it grows: only the verdict of a closed one has the stated rate of false alarms.
    drifted = [point for point in points.of("drift.drifted") if point.closed and point.value is not None]
    return [
        Figure("Requests", wording.count(requests), f"{wording.count(requests / minutes)} a minute" if requests else "none in this time"),
        Figure("Latency, 95 %", wording.seconds(p95.value if p95 else None), f"window of {_label(p95.start, scope)}" if p95 else "no answer yet"),
        _share(points, "Blocked", "quality.blocked_ratio", "of requests, in or out"),
        _share(points, "Redacted", "quality.redacted_ratio", "of requests held personal data"),
        _share(points, "Failed", "quality.failed_ratio", "of requests", bad_from=0.05),
        _cost(spent, scope.length),
        _share(points, "Liked", "quality.feedback_score", "of thumbs up or down"),
        Figure(
            "Drift", "drifted" if any(point.value for point in drifted) else "stable" if drifted else wording.NOTHING,
            f"{sum(bool(point.value) for point in drifted)} of {len(drifted)} closed windows" if drifted else "no closed window says anything",
            "warn" if any(point.value for point in drifted) else "",
        ),
    ]  # fmt: skip


def charts(points: Points, scope: Scope, now: datetime, currencies: Sequence[str]) -> list[Chart]:
    """What happened over time."""
    moments = windows(scope.start(now), now, scope.window)
    labels = [_label(moment, scope) for moment in moments]

    def line(name: str, metric: str, tone: str, *, absent: float | None = None, scale: float = 1.0) -> Line:
        return Line(name, over_time(points.of(metric), moments, absent=absent, scale=scale), tone)

    turned_away = [*points.of("quality.cancelled"), *points.of("quality.rejected")]
    has_requests = any(point.value for point in points.of("quality.requests"))
    zero = 0.0 if has_requests else None
    found = [
        Chart(
            "requests", "Requests by outcome", "stack", "count", labels,
            [
                line("answered", "quality.succeeded", "main", absent=zero),
                line("blocked on the way in", "quality.blocked_inputs", "warn", absent=zero),
                line("blocked on the way out", "quality.blocked_outputs", "other", absent=zero),
                line("failed", "quality.failed", "bad", absent=zero),
                Line("cancelled or rejected", over_time(turned_away, moments, absent=zero), "calm"),
            ],
            note=f"a window is {_span(scope.window)}",
        ),
        Chart(
            "latency", "Latency", "line", "seconds", labels,
            [
                line("half", "quality.latency_seconds.p50", "calm"),
                line("95 %", "quality.latency_seconds.p95", "main"),
                line("first token, 95 %", "quality.time_to_first_token_seconds.p95", "other"),
            ],
            note="of all requests that were let in",
        ),
        *(
            Chart(id_, title, "line", "share", labels, [line(*each) for each in lines], note=note)
            for id_, title, note, lines in _OF_SHARES
        ),
        _drift(points, moments, labels),
    ]  # fmt: skip
    if len(currencies) == 1:
        absent = 0.0 if points.of("cost.nano_units") else None
        cost = line("cost", "cost.nano_units", "main", absent=absent, scale=1e-9)
        found.append(
            Chart("cost", "Cost", "stack", f"money:{currencies[0]}", labels, [cost], note="as the ledger booked it")
        )
    return found


def _drift(points: Points, moments: Sequence[datetime], labels: Sequence[str]) -> Chart:
    compared = [point for point in points.of("drift.drifted") if point.value is not None and point.closed]

    def count(drifted: bool) -> list[float | None]:
        found = [0.0 if compared else None] * len(moments)
        for point in compared:
            place = bisect_right(moments, point.start) - 1
            if place >= 0 and bool(point.value) is drifted:
                found[place] = (found[place] or 0.0) + 1
        return found

    lines = [Line("as the reference", count(False), "calm"), Line("drifted", count(True), "warn")]
    return Chart("drift", "Drift", "stack", "count", labels, lines, note="windows compared with their reference")


@dataclass(frozen=True, slots=True)
class Row:
    """One slice, in words, with the share of requests it is."""

    name: str
    requests: int
    share: float
    cells: Sequence[str]


def rows(points: Points, by: str, spent: Sequence[SpendGroup]) -> list[Row]:
    """The slices, the busiest first."""
    found = []
    whole = _sum(points, "quality.requests") or 0
    for name in {point.series.get(by, "") for point in points.points}:
        mine = points.where(by, name)
        requests = int(_sum(mine, "quality.requests") or 0)
        p95 = mine.latest("quality.latency_seconds.p95")
        costs = total(group for group in spent if group.values[0] == name)
        cells = [
            *(wording.share(mean(mine.of(metric))) for metric in SLICED[1:-1]),
            wording.seconds(p95.value if p95 else None),
            ", ".join(wording.brief(Amount(*cost)) for cost in sorted(costs.items())) or wording.NOTHING,
        ]
        found.append(Row(name or f"(no {SLICES[by]})", requests, requests / whole if whole else 0.0, cells))
    return sorted(found, key=lambda row: (-row.requests, row.name))[:MOST_ROWS]


def mean(points: Sequence[Point]) -> float | None:
    """A share over several windows, each weighing what was observed in it."""
    known = [(point.value, point.samples) for point in points if point.value is not None and point.samples > 0]
    samples = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / samples if samples else None


def _sum(points: Points, metric: str) -> float | None:
    known = [point.value for point in points.of(metric) if point.value is not None]
    return sum(known) if known else None


def _share(points: Points, name: str, metric: str, note: str, *, bad_from: float = 2.0) -> Figure:
    value = mean(points.of(metric))
    return Figure(name, wording.share(value), note, "bad" if value is not None and value >= bad_from else "")


def _cost(spent: Mapping[str, int] | None, length: timedelta) -> Figure:
    if not spent:
        return Figure(
            "Cost an hour",
            wording.NOTHING,
            "the ledger does not answer" if spent is None else "nothing booked in this time",
        )
    hours = length.total_seconds() / 3600
    an_hour = ", ".join(wording.brief(Amount(currency, int(nano / hours))) for currency, nano in sorted(spent.items()))
    whole = ", ".join(wording.brief(Amount(currency, nano)) for currency, nano in sorted(spent.items()))
    return Figure("Cost an hour", an_hour, f"{whole} in this time")


def _label(at: datetime, scope: Scope) -> str:
    """When a window begins: with its day, where the range is of several."""
    if scope.window >= timedelta(days=1):
        return wording.day(at)
    return wording.clock(at) if scope.length <= timedelta(days=1) else f"{wording.day(at)} {wording.clock(at)}"


def _span(window: timedelta) -> str:
    minutes = int(window.total_seconds() // 60)
    size, one = (1440, "a day") if minutes >= 1440 else (60, "an hour") if minutes >= 60 else (1, "a minute")
    return one if minutes == size else f"{minutes // size} {one.split()[1]}s"
