"""Judges the rules, and publishes what changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice_kit.telemetry import logger

from sluice_insight.adapters.alerting.events import event_of
from sluice_insight.adapters.alerting.given_up import Counts
from sluice_insight.adapters.alerting.interventions import Interventions
from sluice_insight.adapters.alerting.log import AlertLog
from sluice_insight.adapters.sources import Sources
from sluice_insight.domain.alerting.conditions import Beside, Standing, complete_moment, ended, moment_of, signals
from sluice_insight.domain.alerting.disparities import Measured
from sluice_insight.domain.alerting.rules import DeadLetters, Rule, Standstill
from sluice_insight.domain.alerting.states import Alert, Alerts
from sluice_insight.domain.board import MINUTE, Board

log = logger(__name__)
MOST_STEPS = 60
"""Minutes that are judged one by one after a time without judging; what is before them is passed over."""
CHANGES = Counter("sluice_insight_alert_changes", "Changes of alerts that were published.", ("rule", "state"))
OPEN = Gauge(
    "sluice_insight_alerts_open", "Alerts that are pending or firing, on the instance that evaluates.", ("state",)
)
SECONDS = Gauge("sluice_insight_alert_evaluation_seconds", "How long the last evaluation of all rules took.")


@dataclass
class CaughtUp:
    """Whether the board has read all that stood on its topics when this process began: before, every window looks too small."""

    ends: Callable[[], Awaitable[Mapping[tuple[str, int], int]]]
    """Where the topics ended: the offset after the last, by topic and partition. Asked once."""
    positions: Callable[[], Mapping[tuple[str, int], int]]
    patience_seconds: float = 120.0
    """A record that cannot be read moves no position: then this is how long is waited."""
    clock: Callable[[], float] = time.monotonic
    _ends: Mapping[tuple[str, int], int] | None = None
    _deadline: float = 0.0
    _is_caught_up: bool = False

    async def check(self) -> bool:
        """True once it has; it stays so."""
        if self._ends is None:
            self._ends = await self.ends()
            self._deadline = self.clock() + self.patience_seconds
        if not self._is_caught_up:
            positions = self.positions()
            behind = [place for place, end in self._ends.items() if positions.get(place, 0) < end]
            self._is_caught_up = not behind or self.clock() > self._deadline
        return self._is_caught_up


@dataclass
class Evaluator:
    """`evaluate` is called by whoever holds the lease, with all that was said of alerts before."""

    board: Board
    sources: Sources
    rules: Callable[[], Sequence[Rule]]
    publish: Callable[..., Awaitable[None]]
    waiting: Callable[[], int]
    """Events of ours that are not on their topic yet."""
    caught_up: CaughtUp
    interventions: Interventions = field(default_factory=Interventions)
    disparities: Callable[[], Sequence[Measured]] = tuple
    given_up: Callable[[Collection[int]], Awaitable[Counts]] | None = None
    """Dead letters by window and topic."""
    standing: Callable[[Collection[str]], Awaitable[Sequence[Standing]]] | None = None
    """Where events wait for these groups of consumers."""
    now: Callable[[], float] = time.time
    tell: Callable[[AlertRaised], object] = lambda event: None
    """Who answers questions about alerts: hears of each change before the moment counts as judged."""
    judged_up_to: int = 0
    """The minute of event time up to which the rules were judged here; 0 before the first round."""
    _log: AlertLog | None = None
    _alerts: Alerts = field(default_factory=Alerts)
    _judged: int = 0

    async def evaluate(self, told: AlertLog) -> None:
        """One round. Nothing is judged while what was said last is still on its way: after a kill it would be said again."""
        if self.waiting() or not await self.caught_up.check():
            return
        if told is not self._log:
            self._begin(told)
        began = time.perf_counter()
        rules = self.rules()
        beside = await self._beside(rules)
        changed = await asyncio.to_thread(self._judge, rules, beside)
        SECONDS.set(time.perf_counter() - began)
        events = [event_of(alert) for alert in changed]
        if events:
            await self.publish(*events)
        for event in events:
            self.tell(event)
        self.judged_up_to = self._judged
        for alert in changed:
            CHANGES.labels(alert.rule, alert.state).inc()
            log.info("alert.changed", alert_id=alert.alert_id, rule=alert.rule, state=alert.state)
        for state in ("pending", "firing"):
            OPEN.labels(state).set(sum(alert.state == state for alert in self._alerts.open()))

    def _begin(self, told: AlertLog) -> None:
        self._log = told
        for known in told.told():
            self.tell(known.event)
        self._alerts = Alerts(alert for each in told.told() if (alert := each.restored()) is not None)
        self._judged = 0

    async def _beside(self, rules: Sequence[Rule]) -> Beside:
        windows = {rule.window for rule in rules if isinstance(rule.condition, DeadLetters)}
        counts = await self.given_up(windows) if self.given_up is not None and windows else {}
        groups = {name for rule in rules if isinstance(rule.condition, Standstill) for name in rule.condition.groups}
        standing = await self.standing(groups) if self.standing is not None and groups else ()
        return Beside(self.disparities(), counts, standing)

    def _judge(self, rules: Sequence[Rule], beside: Beside) -> list[Alert]:
        now = int(self.now() * 1_000_000)
        end = complete_moment(self.board, self.sources.held_back_to(), now=now)
        changed = self._alerts.drop((rule.name for rule in rules), at=end)
        for at in self._moments(end):
            for rule in rules:
                changed += self._step(rule, at, now, beside)
        self._judged = max(end, self._judged)
        # By the clock: a silence is about receivers, who are told now.
        return self._alerts.hush(changed, lambda alert: self._silenced_by(alert, now), at=end)

    def _silenced_by(self, alert: Alert, now: int) -> tuple[str, ...]:
        return self.interventions.silencing(alert.rule, dict(alert.labels), at=now)

    def _moments(self, end: int) -> Sequence[int]:
        """Minutes to judge: those since the last, or that one again, because late data may have restated it."""
        if not self._judged or end <= self._judged:
            return [max(end, self._judged)]
        return range(max(self._judged + MINUTE, end - MOST_STEPS * MINUTE), end + 1, MINUTE)

    def _step(self, rule: Rule, at: int, now: int, beside: Beside) -> list[Alert]:
        moment = moment_of(rule, complete=at, now=now)
        found = signals(
            rule, self.board, self.sources.snapshot(), at=moment, beside=beside, still_open=self._alerts.open(rule.name)
        )
        return self._alerts.step(rule, found, at=moment, ended=ended(rule, beside))
