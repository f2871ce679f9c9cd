"""The states of alerts: pending, firing, resolved; one alert for a rule and its labels at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sluice_insight.domain.alerting.rules import Rule
from sluice_insight.domain.board import Point

PENDING, FIRING, RESOLVED = "pending", "firing", "resolved"
Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """The condition of a rule holds for these labels."""

    labels: Labels
    point: Point | None = None
    causes: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    """More that the summary can say; labels say which alert it is, these only how it stands."""
    stands: bool = False
    """It is what was told already, and there is nothing newer to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert as it stands. Times are event time in microseconds."""

    rule: str
    labels: Labels
    state: str
    since: int
    changed_at: int
    held_at: int
    """When the condition held last."""
    severity: str = ""
    summary: str = ""
    runbook: str = ""
    point: Point | None = None
    causes: Mapping[str, float] = field(default_factory=dict)
    silenced_by: tuple[str, ...] = ()
    """Silences because of which receivers are not told of this state."""
    never_fired: bool = False
    """Resolved before it fired."""

    @property
    def key(self) -> Key:
        """What it is deduplicated by."""
        return self.rule, self.labels

    @property
    def alert_id(self) -> str:
        """The same from pending to resolved, and the same whichever instance finds it."""
        labels = ",".join(f"{name}={value}" for name, value in self.labels)
        return f"{self.rule}|{labels}|{datetime.fromtimestamp(self.since // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


class Alerts:
    """The newest alert of every rule and labels. `step` is the only thing that changes states."""

    def __init__(self, known: Iterable[Alert] = ()) -> None:
        self._known: dict[Key, Alert] = {}
        for alert in known:
            self.restore(alert)

    def restore(self, alert: Alert) -> None:
        """Take in what was said earlier; the newest of a key stands."""
        self._known[alert.key] = alert

    def open(self, rule: str = "") -> list[Alert]:
        """Pending and firing ones, of a rule or of all."""
        return [alert for alert in self._known.values() if alert.state != RESOLVED and rule in ("", alert.rule)]

    def step(self, rule: Rule, signals: Iterable[Signal], *, at: int, ended: Collection[Labels] = ()) -> list[Alert]:
        """What changes when at this moment the rule's condition holds for exactly these labels.

        For those that are known to have `ended` it is over now, however long the rule keeps them.
        """
        holding = {signal.labels: signal for signal in signals}
        changed: list[Alert] = []
        for labels, signal in holding.items():
            changed += self._hold(rule, signal, self._known.get((rule.name, labels)), at)
        for alert in self.open(rule.name):
            if alert.labels not in holding and (alert.labels in ended or self._is_over(rule, alert, at)):
                changed.append(self._put(_over(alert, at)))
        return changed

    def drop(self, rules: Iterable[str], *, at: int) -> list[Alert]:
        """Resolve what is open of rules that are gone; `rules` are those that are left."""
        left = set(rules)
        gone = [alert for alert in self.open() if alert.rule not in left]
        return [self._put(_over(alert, max(at, alert.changed_at))) for alert in gone]

    def hush(self, changed: Iterable[Alert], silencing: Callable[[Alert], tuple[str, ...]], *, at: int) -> list[Alert]:
        """What changed, with the silences that keep it from receivers; and what fires on after its last silence has ended.

        A receiver that was told that an alert fires is told of its end, and no other is.
        """
        said: dict[str, tuple[str, ...]] = {}
        found = []
        for alert in changed:
            by = said.get(alert.alert_id, alert.silenced_by) if alert.state == RESOLVED else silencing(alert)
            said[alert.alert_id] = by
            known = self._known[alert.key]
            if known.alert_id == alert.alert_id:
                self._put(replace(known, silenced_by=by))
            found.append(replace(alert, silenced_by=by))
        for alert in self.open():
            if alert.state == FIRING and alert.silenced_by and alert.alert_id not in said and not silencing(alert):
                found.append(self._put(replace(alert, silenced_by=(), changed_at=max(at, alert.changed_at))))
        return found

    def _hold(self, rule: Rule, signal: Signal, known: Alert | None, at: int) -> list[Alert]:
        if known is None or known.state == RESOLVED:
            if known is not None and at <= known.changed_at:
                return []  # this moment was judged already; a new alert must have a new id
            return self._open(rule, signal, at)
        known = self._put(replace(known, held_at=max(at, known.held_at)))
        if known.state == PENDING and at - known.since >= rule.lasts:
            firing = replace(known, state=FIRING, changed_at=at)
            return [self._put(firing if signal.stands else _told(firing, rule, signal))]
        return []

    def _open(self, rule: Rule, signal: Signal, at: int) -> list[Alert]:
        state = FIRING if rule.lasts == 0 else PENDING
        alert = Alert(rule=rule.name, labels=signal.labels, state=state, since=at, changed_at=at, held_at=at)
        return [self._put(_told(alert, rule, signal))]

    def _is_over(self, rule: Rule, alert: Alert, at: int) -> bool:
        # Late data may take back the very moment at which it held: then it is over at once, unless it is to be kept.
        return at >= alert.changed_at and (alert.state == PENDING or at - alert.held_at >= rule.keeps)

    def _put(self, alert: Alert) -> Alert:
        self._known[alert.key] = alert
        return alert


def _over(alert: Alert, at: int) -> Alert:
    return replace(alert, state=RESOLVED, changed_at=at, never_fired=alert.state == PENDING)


def _told(alert: Alert, rule: Rule, signal: Signal) -> Alert:
    value = signal.point.value.value if signal.point else None
    return replace(
        alert,
        severity=rule.severity,
        summary=rule.say({**signal.words, **dict(signal.labels)}, value),
        runbook=rule.runbook,
        point=signal.point,
        causes=signal.causes,
    )
