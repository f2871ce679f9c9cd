"""What fires, in one line: alerts of one rule are told together, with what they are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sluice_console.domain.answers import Alert

_SEVERITIES = ("critical", "warning")
_MOST_VALUES = 3
_TOLD = ("model", "route")


@dataclass(frozen=True, slots=True)
class FiringRule:
    """The alerts of one rule and severity that fire."""

    rule: str
    severity: str
    count: int
    about: str
    """Such as `model small; route chat, complete and 2 more`; empty where the rule is of the mesh as a whole."""
    newest_id: str
    """The alert to link to."""


def firing_rules(alerts: Iterable[Alert]) -> list[FiringRule]:
    """By rule and severity, the worst first, then the most; of alerts newest first."""
    groups: dict[tuple[str, str], list[Alert]] = {}
    for alert in alerts:
        groups.setdefault((alert.rule, alert.severity), []).append(alert)
    found = [
        FiringRule(rule, severity, len(group), _about(group), group[0].id) for (rule, severity), group in groups.items()
    ]
    return sorted(found, key=lambda one: (_rank(one.severity), -one.count, one.rule))


def _rank(severity: str) -> int:
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else len(_SEVERITIES)


def _about(alerts: list[Alert]) -> str:
    series = [_series(alert) for alert in alerts]
    told = [_values(name, series) for name in _TOLD]
    return "; ".join(filter(None, told)) or _values("tenant", series)


def _series(alert: Alert) -> Mapping[str, str]:
    if alert.labels:
        return {name.removesuffix("_id"): value for name, value in alert.labels.items()}
    return alert.evidence.series if alert.evidence else {}


def _values(name: str, series: list[Mapping[str, str]]) -> str:
    values = sorted({one[name] for one in series if one.get(name)})
    more = f" and {len(values) - _MOST_VALUES} more" if len(values) > _MOST_VALUES else ""
    return f"{name} {', '.join(values[:_MOST_VALUES])}{more}" if values else ""
