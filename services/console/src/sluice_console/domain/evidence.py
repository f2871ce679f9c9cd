"""On which page the evidence of an alert is seen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlencode

from sluice_console.domain.answers import Alert, Point
from sluice_console.domain.comparisons import RECALL_BY_ORIGIN
from sluice_console.domain.looking_back import name_of
from sluice_console.domain.overview import SERIES, SLICED
from sluice_console.domain.scope import RANGES
from sluice_console.domain.spending import PERIODS

SOURCES = "#sources"
"""Of the page of alerts itself: which producers' events are missing."""
_ON_OVERVIEW = frozenset({*SERIES, *SLICED} - {"drift.drifted"})
_FAIRNESS_RATES = frozenset(
    {"selection_rate", "flag_rate", "block_rate", "false_positive_rate", "false_negative_rate", "refusal_rate"}
)
_LONG_WINDOW = timedelta(minutes=10)
"""From here on a window of fairness counts as an hour's, as insight has it."""


def seen_at(alert: Alert, now: datetime) -> str:
    """The address of the page, with the filters of what the alert is about; empty where no page shows it."""
    point = alert.evidence
    if point is None:
        return SOURCES if set(alert.labels) == {"producer", "topic"} else ""
    match point.metric.partition(".")[0]:
        case "drift":
            # Also an empty name: it is that of the series over all tenants, or models.
            series = {name: point.series.get(name, "") for name in ("tenant", "model")}
            return _address("/drift", series | {"window": name_of(point.start)})
        case "fairness":
            return _fairness(point, alert.labels.get("attribute", ""))
        case "probe":
            return _probes(point)
        case "quality" | "cost":
            return _slice(point, now)
    return ""


def _fairness(point: Point, compared: str) -> str:
    """`compared` is the attribute of what fairness itself compared, in a window of its own, which the page can show."""
    # fairness.<attribute>.<group>.<rate>; an attribute may have a dot itself, and so may a group.
    whose, _, rate = point.metric.removeprefix("fairness.").rpartition(".")
    attribute = compared or whose.rpartition(".")[0]
    if rate not in _FAIRNESS_RATES or not attribute:
        return ""
    window = {"window": name_of(point.start)} if compared else {}
    return _address("/fairness", {"metric": rate, "attribute": attribute, "windows": _windows(point)} | window)


def _probes(point: Point) -> str:
    """The self-tests of that time, and what became of each."""
    if point.metric.startswith("probe.recall_by_name_origin."):
        return _address("/fairness", {"metric": RECALL_BY_ORIGIN, "windows": _windows(point)})
    until = point.start + point.length + timedelta(minutes=1)
    return _address("/requests", {"probes": "on", "from": _minute(point.start), "until": _minute(until)})


def _slice(point: Point, now: datetime) -> str:
    """Of the overview, or of the ledger what only that has; in the shortest time that the measurement is in."""
    filters = {name: value for name, value in point.series.items() if value}
    age = now - point.start
    if point.metric in _ON_OVERVIEW:
        range_ = next((name for name, (length, _) in RANGES.items() if age <= length), "")
        return _address("/", filters | {"range": range_}) if range_ else ""
    if point.metric.startswith("cost."):
        period = next((name for name, length in PERIODS.items() if age <= length), "")
        return _address("/cost", filters | {"period": period}) if period else ""
    return ""


def _windows(point: Point) -> str:
    return "hour" if point.length >= _LONG_WINDOW else "minute"


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M}"


def _address(page: str, query: Mapping[str, str]) -> str:
    return f"{page}?{urlencode(query)}"
