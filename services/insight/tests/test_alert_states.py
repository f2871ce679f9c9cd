"""States of alerts, and for whom the conditions hold."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice.events.v1 import drift_pb2
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.fairness_pb2 import FAIRNESS_VERDICT_COMPARABLE, FAIRNESS_VERDICT_DISPARATE, FairnessMeasured
from sluice_insight.adapters.alerting.disparate import disparate
from sluice_insight.adapters.alerting.evaluator import CaughtUp, Evaluator
from sluice_insight.adapters.alerting.events import Told, event_of
from sluice_insight.adapters.alerting.log import AlertLog
from sluice_insight.adapters.comparisons import Comparisons
from sluice_insight.adapters.events import drift_part
from sluice_insight.adapters.sources import Sources
from sluice_insight.domain.alerting.conditions import Beside, Standing, complete_moment, ended, signals
from sluice_insight.domain.alerting.rules import (
    Absence,
    Burn,
    BurnRate,
    Change,
    Condition,
    DeadLetters,
    Disparity,
    MissingEvents,
    Rule,
    Standstill,
    Threshold,
)
from sluice_insight.domain.alerting.states import FIRING, PENDING, RESOLVED, Alerts, Signal
from sluice_insight.domain.board import MINUTE, Board
from sluice_insight.domain.part import Part, Series, Totals

BEGIN = 1_760_000_040 * 1_000_000
NOW = BEGIN + 600 * MINUTE
ALLOWED = {(None, PENDING), (None, FIRING), (PENDING, FIRING), (PENDING, RESOLVED), (FIRING, RESOLVED)}


def rule(condition: Condition = Threshold(above=0.5), **more: object) -> Rule:  # noqa: B008
    given_ = {"metric": "quality.failed_ratio", "group_by": ("tenant_id",), "severity": "warning", "summary": "$value"}
    return Rule(name="r", condition=condition, **(given_ | more))  # type: ignore[arg-type]


@given(
    held=st.lists(st.sets(st.sampled_from("ab")), max_size=40),
    lasts=st.integers(0, 4),
    keeps=st.integers(0, 4),
    restart=st.integers(0, 40),
)
def test_every_alert_goes_from_pending_to_resolved_once_also_over_a_restart(
    held: list[set[str]], lasts: int, keeps: int, restart: int
) -> None:
    its, alerts, log = rule(lasts=lasts * MINUTE, keeps=keeps * MINUTE), Alerts(), AlertLog()
    states: dict[str, list[str | None]] = defaultdict(lambda: [None])
    open_ids: dict[object, str] = {}
    for number, names in enumerate(held):
        if number == restart:
            alerts = Alerts(alert for told in log.told() if (alert := told.restored()))
        at = BEGIN + number * MINUTE
        for alert in alerts.step(its, [Signal(labels=(("tenant_id", name),)) for name in names], at=at):
            assert (states[alert.alert_id][-1], alert.state) in ALLOWED
            assert alert.state != FIRING or at - alert.since >= its.lasts
            assert open_ids.get(alert.key, alert.alert_id) == alert.alert_id, "two alerts for the same labels"
            states[alert.alert_id].append(alert.state)
            if alert.state == RESOLVED:
                del open_ids[alert.key]
            else:
                open_ids[alert.key] = alert.alert_id
            event = event_of(alert)
            event.metadata.producer = "sluice-insight/0"
            assert log.take(event)
        if keeps == 0:
            assert {dict(alert.labels)["tenant_id"] for alert in alerts.open()} <= names


@given(held=st.lists(st.booleans(), min_size=1, max_size=30), lasts=st.integers(0, 4))
def test_it_fires_exactly_when_it_held_for_long_enough(held: list[bool], lasts: int) -> None:
    its, alerts, run = rule(lasts=lasts * MINUTE), Alerts(), 0
    for number, holds in enumerate(held):
        alerts.step(its, [Signal(labels=())] if holds else [], at=BEGIN + number * MINUTE)
        run = run + 1 if holds else 0
        assert [alert.state for alert in alerts.open()] == ([] if not run else [FIRING if run > lasts else PENDING])


def test_a_restated_moment_resolves_and_does_not_open_the_same_alert_again() -> None:
    alerts, its, signal = Alerts(), rule(), Signal(labels=())
    [fired] = alerts.step(its, [signal], at=BEGIN)
    [resolved] = alerts.step(its, [], at=BEGIN)
    assert (resolved.alert_id, resolved.state) == (fired.alert_id, RESOLVED)
    assert alerts.step(its, [signal], at=BEGIN) == []
    [again] = alerts.step(its, [signal], at=BEGIN + MINUTE)
    assert again.alert_id != fired.alert_id


def test_what_is_open_of_a_rule_that_is_gone_is_resolved() -> None:
    alerts = Alerts()
    alerts.step(rule(), [Signal(labels=())], at=BEGIN)
    assert [alert.state for alert in alerts.drop(["another"], at=BEGIN + MINUTE)] == [RESOLVED]


def test_the_log_keeps_what_is_open_rather_than_what_is_resolved() -> None:
    log, alerts = AlertLog(most=2), Alerts()
    tenant = {name: Signal(labels=(("tenant_id", name),)) for name in "abc"}
    for minute, names in enumerate(["a", "ab", "b", "bc"]):
        for alert in alerts.step(rule(), [tenant[name] for name in names], at=BEGIN + minute * MINUTE):
            log.take(event_of(alert))
    assert [(told.tenant_id, told.event.state) for told in log.told()] == [("b", FIRING), ("c", FIRING)]


def board(*minutes: tuple[int, int, int], tenant: str = "acme") -> Board:
    """Minutes with their requests and failures."""
    found = Board(history=1200 * MINUTE)
    add(found, *minutes, tenant=tenant)
    return found


def add(found: Board, *minutes: tuple[int, int, int], tenant: str = "acme") -> None:
    for number, requests, failed in minutes:
        totals = Totals()
        totals.counts.update({"requests.requests": requests, "requests.failed": failed})
        start = BEGIN + number * MINUTE
        part = Part(
            key=f"{tenant}|{number}", family="quality", series=Series(tenant_id=tenant), start=start, length=MINUTE,
            partition=0, revision=requests, closed=True, complete_up_to=start + MINUTE, totals=totals,
        )  # fmt: skip
        found.put(part, now=NOW)


def holding(its: Rule, found: Board, minute: int) -> list[str]:
    return [dict(s.labels).get("tenant_id", "") for s in signals(its, found, [], at=BEGIN + minute * MINUTE)]


def test_a_threshold_looks_at_its_window_only_and_needs_enough_samples() -> None:
    found = board((0, 10, 9), (1, 10, 0))
    assert holding(rule(), found, 1) == ["acme"]
    assert holding(rule(), found, 2) == []
    assert holding(rule(window=2 * MINUTE, condition=Threshold(above=0.4)), found, 2) == ["acme"]
    assert holding(rule(min_samples=11), found, 1) == []
    assert holding(rule(filters={"tenant_id": frozenset(["other"])}), found, 1) == []
    assert holding(rule(Threshold(below=0.1)), found, 2) == ["acme"]


def test_a_change_compares_with_the_same_series_earlier() -> None:
    found = board((0, 100, 10), (60, 100, 40))
    assert holding(rule(Change(earlier=60 * MINUTE, baseline=MINUTE, rises_by=0.2)), found, 61) == ["acme"]
    assert holding(rule(Change(earlier=60 * MINUTE, baseline=MINUTE, rises_by=0.4)), found, 61) == []
    assert holding(rule(Change(earlier=60 * MINUTE, baseline=MINUTE, rises_to=3.9)), found, 61) == ["acme"]
    assert holding(rule(Change(earlier=60 * MINUTE, baseline=MINUTE, falls_by=0.1)), found, 61) == []
    assert holding(rule(Change(earlier=30 * MINUTE, baseline=MINUTE, rises_by=0.2)), found, 61) == []


def test_a_burn_rate_needs_both_windows() -> None:
    condition = BurnRate(objective=0.99, pairs=(Burn(long=60 * MINUTE, short=5 * MINUTE, factor=14.4),))
    burning = board(*[(minute, 100, 20) for minute in range(60)])
    assert holding(rule(condition), burning, 60) == ["acme"]
    over = board(*[(minute, 100, 20 if minute < 55 else 0) for minute in range(60)])
    assert holding(rule(condition), over, 60) == []
    begun = board(*[(minute, 100, 0 if minute < 57 else 20) for minute in range(60)])
    assert holding(rule(condition), begun, 60) == []


def test_absence_is_of_what_was_there() -> None:
    found = board((0, 100, 0), (20, 5, 0))
    add(found, *[(minute, 5, 0) for minute in range(30)], tenant="busy")
    its = rule(Absence(lookback=30 * MINUTE), metric="quality.requests", window=5 * MINUTE)
    assert holding(its, found, 30) == ["acme"]
    assert holding(its, found, 21) == []
    assert holding(its, found, 90) == []
    many = replace(its, min_samples=100)
    assert holding(many, found, 30) == ["acme"], "few are not none: busy is there"


HOUR = 60 * MINUTE
ABSENT = rule(Absence(lookback=30 * MINUTE), metric="quality.requests", window=10 * MINUTE, min_samples=50)


@dataclass
class Watched:
    """A rule judged every minute, or every so many, over a board, and each change as minute, tenant and state."""

    its: Rule
    found: Board
    alerts: Alerts = field(default_factory=Alerts)
    log: AlertLog = field(default_factory=AlertLog)
    changes: list[tuple[int, str, str]] = field(default_factory=list)

    def judge(self, first: int, last: int, *, every: int = 1) -> Watched:
        for minute in range(first, last + 1, every):
            at = BEGIN + minute * MINUTE
            still = signals(self.its, self.found, [], at=at, still_open=self.alerts.open(self.its.name))
            for alert in self.alerts.step(self.its, still, at=at):
                self.changes.append((minute, dict(alert.labels).get("tenant_id", ""), alert.state))
                event = event_of(alert)
                event.metadata.producer = "sluice-insight/0"
                self.log.take(event)
        return self

    def restart(self) -> None:
        self.alerts = Alerts(alert for told in self.log.told() if (alert := told.restored()))


def busy(first: int, last: int, *, tenant: str = "acme", into: Board | None = None) -> Board:
    """A board, or one more tenant on it, with ten requests in each of these minutes."""
    found = Board(history=30 * 24 * HOUR) if into is None else into
    add(found, *[(minute, 10, 0) for minute in range(first, last)], tenant=tenant)
    return found


async def test_the_evaluator_goes_on_with_an_absence_that_another_one_told_of() -> None:
    found, log, clock = busy(0, 60), AlertLog(), [0]

    async def publish(*events: AlertRaised) -> None:
        for event in events:
            event.metadata.producer = "sluice-insight/0"
            log.take(event)

    async def nothing() -> dict[tuple[str, int], int]:
        return {}

    def evaluator() -> Evaluator:
        return Evaluator(
            board=found, sources=Sources(), rules=lambda: [ABSENT], publish=publish, waiting=lambda: 0,
            caught_up=CaughtUp(ends=nothing, positions=dict), now=lambda: clock[0] / 1e6,
        )  # fmt: skip

    async def judged_at(judge: Evaluator, minute: int) -> list[str]:
        clock[0] = BEGIN + (minute + 10) * MINUTE  # so long nothing more is waited for
        await judge.evaluate(log)
        return [told.event.state for told in log.told()]

    assert await judged_at(evaluator(), 75) == [FIRING]
    judge = evaluator()
    assert await judged_at(judge, 200) == [FIRING]
    assert await judged_at(judge, 259) == [FIRING]
    busy(260, 261, into=found)
    assert await judged_at(judge, 261) == [RESOLVED]


@pytest.mark.parametrize("restarts", [False, True])
def test_what_is_absent_stays_told_until_it_is_there_again(restarts: bool) -> None:
    watched = Watched(ABSENT, busy(0, 60)).judge(0, 300)
    assert watched.changes == [(70, "acme", FIRING)], "it has sent nothing since the sixtieth minute"
    if restarts:
        watched.restart()
    busy(400, 401, into=watched.found)
    watched.judge(301, 405)
    assert watched.changes == [(70, "acme", FIRING), (401, "acme", RESOLVED)]


def test_a_tenant_that_rests_at_night_is_told_of_once_a_night_and_not_again_and_again() -> None:
    found, day = Board(history=30 * 24 * HOUR), 24 * 60
    for number in range(3):
        busy(number * day, number * day + 14 * 60, into=found)
        busy(number * day, (number + 1) * day, tenant="globex", into=found)
    watched = Watched(ABSENT, found).judge(0, 2 * day + 14 * 60, every=5)
    evening, morning = 14 * 60 + 10, day + 5
    assert watched.changes == [
        (evening, "acme", FIRING),
        (morning, "acme", RESOLVED),
        (day + evening, "acme", FIRING),
        (day + morning, "acme", RESOLVED),
    ]


def test_a_pause_that_the_window_is_longer_than_is_no_absence() -> None:
    patient = replace(ABSENT, window=11 * HOUR)
    found = busy(0, 14 * 60)
    busy(24 * 60, 25 * 60, into=found)
    assert Watched(patient, found).judge(0, 25 * 60, every=5).changes == []


def test_a_series_that_never_comes_again_is_retired_and_not_told_of_again() -> None:
    its = replace(ABSENT, condition=Absence(lookback=30 * MINUTE, retired_after=5 * HOUR))
    watched = Watched(its, busy(0, 60)).judge(0, 900)
    assert watched.changes == [(70, "acme", FIRING), (370, "acme", RESOLVED)]
    # It may come back after all, and go again.
    busy(1000, 1060, into=watched.found)
    watched.judge(901, 1100)
    assert watched.changes[2:] == [(1070, "acme", FIRING)]


def test_a_series_is_not_retired_before_the_lookback_has_forgotten_it() -> None:
    its = replace(ABSENT, condition=Absence(lookback=2 * HOUR, retired_after=HOUR))
    watched = Watched(its, busy(0, 120)).judge(0, 600)
    assert [state for _, _, state in watched.changes] == [FIRING, RESOLVED]
    assert watched.changes[1][0] > 130 + 60


def test_an_absence_may_last_longer_than_the_lookback_before_it_fires() -> None:
    its = replace(ABSENT, lasts=2 * HOUR, summary="$value before")
    watched = Watched(its, busy(0, 60)).judge(0, 120)
    watched.restart()
    watched.judge(121, 200)
    assert watched.changes == [(70, "acme", PENDING), (190, "acme", FIRING)]
    assert [alert.summary for alert in watched.alerts.open()] == ["300 before"]


@pytest.mark.parametrize(
    "changed",
    [
        {"filters": {"tenant_id": frozenset(["globex"])}},
        {"group_by": ("model",)},
        {"group_by": ()},
    ],
)
def test_an_absence_that_the_changed_rule_cannot_tell_of_is_over(changed: dict[str, Any]) -> None:
    watched = Watched(ABSENT, busy(0, 60)).judge(0, 300)
    watched.its = replace(ABSENT, **changed)
    assert watched.judge(301, 301).changes[-1] == (301, "acme", RESOLVED)


def test_an_absence_from_before_the_rule_told_models_apart_is_over_where_one_of_them_is_there() -> None:
    watched = Watched(ABSENT, busy(0, 60)).judge(0, 300)
    watched.its = replace(ABSENT, group_by=("tenant_id", "model"))
    assert watched.judge(301, 310).changes == [(70, "acme", FIRING)]
    totals = Totals()
    totals.counts.update({"requests.requests": 1})
    start = BEGIN + 310 * MINUTE
    part = Part(
        key="m", family="quality", series=Series(tenant_id="acme", model="small"), start=start, length=MINUTE, partition=0,
        revision=1, closed=True, complete_up_to=start + MINUTE, totals=totals,
    )  # fmt: skip
    watched.found.put(part, now=NOW)
    assert watched.judge(311, 311).changes[-1] == (311, "acme", RESOLVED)


def test_late_data_may_take_back_the_moment_at_which_an_absence_began() -> None:
    watched = Watched(ABSENT, busy(0, 60)).judge(0, 70)
    add(watched.found, (65, 11, 0))
    assert watched.judge(70, 70).changes[-1] == (70, "acme", RESOLVED)


def drifted(*causes: tuple[str, str, str, float]) -> DriftMeasured:
    event = DriftMeasured(verdict=drift_pb2.DRIFT_VERDICT_DRIFTED, observations=80)
    event.series.tenant_id, event.part.part_key, event.part.revision, event.part.closed = "acme", "drift|acme", 1, True
    event.window.start.FromMicroseconds(BEGIN)
    event.window.length.FromMicroseconds(MINUTE)
    for feature, dimension, slice_, share in causes:
        event.causes.add(feature=feature, dimension=dimension, slice=slice_, share=share)
    return event


def test_drift_is_judged_by_closed_windows_only() -> None:
    """An open one is looked at again and again as it grows: the stated rate of false alarms is not of it."""
    found, its = Board(history=24 * 60 * MINUTE), rule(metric="drift.drifted", group_by=(), window=15 * MINUTE)
    event = drifted()
    event.part.closed = False
    event.window.start.FromMicroseconds(BEGIN)
    event.window.length.FromMicroseconds(5 * MINUTE)
    found.put(drift_part(event), now=BEGIN)
    assert signals(its, found, (), at=BEGIN + 6 * MINUTE) == []
    event.part.closed = True
    found.put(drift_part(event), now=BEGIN)
    later = drifted()
    later.CopyFrom(event)
    later.verdict, later.part.closed, later.part.part_key = drift_pb2.DRIFT_VERDICT_STABLE, False, "drift|acme|later"
    later.window.start.FromMicroseconds(BEGIN + 5 * MINUTE)
    found.put(drift_part(later), now=BEGIN)
    [signal] = signals(its, found, (), at=BEGIN + 10 * MINUTE)
    assert signal.point is not None
    assert signal.point.start == BEGIN, "a window that is open does not take back what a closed one says"


def test_the_evidence_of_an_alert_outlives_a_restart() -> None:
    """Whoever resolves it after one still says what was measured: a person bound to a tenant would lose it else."""
    event = drifted()
    found, its = Board(history=1200 * MINUTE), rule(metric="drift.drifted", group_by=())
    found.put(drift_part(event), now=NOW)
    [fired] = Alerts().step(its, signals(its, found, [], at=BEGIN + MINUTE), at=BEGIN + MINUTE)
    told = event_of(fired)
    told.metadata.producer = "sluice-insight/0"
    restored = Told(told).restored()
    assert restored is not None
    assert fired.point is not None
    assert restored.point == replace(fired.point, causes={})
    [over] = Alerts([restored]).step(its, [], at=BEGIN + 60 * MINUTE)
    assert event_of(over).evidence == told.evidence
    told.ClearField("evidence")
    without = Told(told).restored()
    assert without is not None
    assert without.point is None
    assert not event_of(without).HasField("evidence")


def test_a_drift_alert_carries_the_slices_that_explain_what_moved_most() -> None:
    event = drifted(
        ("prompt.words", "prompt_version", "greeting@3", 0.8),
        ("prompt.words", "prompt_version", "greeting@2", 0.2),
        ("prompt.words", "language", "de", 1.0),
        ("answer.words", "model_digest", "abc", 1.0),
    )
    found = Board(history=1200 * MINUTE)
    found.put(drift_part(event), now=NOW)
    its = rule(metric="drift.drifted", group_by=())
    [alert] = Alerts().step(its, signals(its, found, [], at=BEGIN + MINUTE), at=BEGIN + MINUTE)
    assert event_of(alert).causes == {"prompt_version=greeting@3": 0.8, "prompt_version=greeting@2": 0.2}
    assert drift_part(drifted()).causes == {}
    many = drifted(*[("prompt.words", "tenant", f"t{i}", i / 100) for i in range(17)])
    assert list(drift_part(many).causes)[:2] == ["tenant=t16", "tenant=t15"]
    assert len(drift_part(many).causes) == 10


@dataclass
class Gap:
    topic: str
    producer: str
    missing: tuple[tuple[int, int], ...]


def test_missing_events_are_told_by_topic_and_producer() -> None:
    gaps = [Gap("t", "p", ((3, 5),)), Gap("u", "p", ())]
    its = rule(MissingEvents(above=0), metric="", group_by=())
    [signal] = signals(its, board(), gaps, at=BEGIN)
    assert (dict(signal.labels), dict(signal.causes)) == ({"topic": "t", "producer": "p"}, {"missing=3": 1.0})
    assert signals(rule(MissingEvents(above=3), metric=""), board(), gaps, at=BEGIN) == []


def disparity(group: str, ratio: float, **more: Any) -> FairnessMeasured:
    event = FairnessMeasured(
        metric="selection_rate", attribute="input_terms", group=group, reference_group="none", policy="general@3", value=ratio,
        lower=ratio - 0.1, upper=ratio + 0.1, sample_count=200, verdict=FAIRNESS_VERDICT_DISPARATE, ratio=ratio,
    )  # fmt: skip
    event.series.tenant_id, event.series.model = "acme", "small"
    event.window.start.FromMicroseconds(BEGIN)
    event.window.length.FromMicroseconds(60 * MINUTE)
    event.MergeFrom(FairnessMeasured(**more))
    return event


def unequal(*events: FairnessMeasured, at: int = BEGIN + 60 * MINUTE, **more: Any) -> list[Signal]:
    comparisons = Comparisons()
    for event in events:
        comparisons.take(event)
    its = rule(Disparity(rate="selection_rate", ratio_below=0.8), **({"metric": "", "window": 60 * MINUTE} | more))
    return signals(its, board(), [], at=at, beside=Beside(disparate(comparisons)))


def test_four_fifths_alarm_only_where_the_difference_stands_after_the_correction() -> None:
    found = unequal(
        disparity("religion", 0.7),
        disparity("age", 0.9),
        disparity("gender", 0.5, verdict=FAIRNESS_VERDICT_COMPARABLE),
        disparity("body", 0.5, metric="flag_rate"),
    )
    assert [dict(signal.labels) for signal in found] == [
        {
            "tenant_id": "acme",
            "model": "small",
            "attribute": "input_terms",
            "group": "religion",
            "policy": "general@3",
        }
    ]
    [signal] = found
    [alert] = Alerts().step(rule(summary="$group: $value, $ratio of $reference"), [signal], at=BEGIN)
    evidence = event_of(alert).evidence
    assert alert.summary == "religion: 0.7, 0.70 of none"
    assert (evidence.metric, evidence.verdict) == ("fairness.input_terms.religion.selection_rate", "disparate")
    assert (evidence.value, evidence.sample_count) == (0.7, 200)
    assert evidence.lower < evidence.value < evidence.upper


def test_a_disparity_of_minutes_of_few_texts_or_of_long_ago_does_not_alarm() -> None:
    short = disparity("religion", 0.7)
    short.window.length.FromMicroseconds(MINUTE)
    assert unequal(short) == []
    event = disparity("religion", 0.7)
    assert unequal(event, min_samples=201) == []
    assert unequal(event, filters={"tenant_id": frozenset(["other"])}) == []
    assert unequal(event, at=BEGIN + 119 * MINUTE)
    assert unequal(event, at=BEGIN + 120 * MINUTE) == []
    newer = disparity("religion", 0.95, revision=2, verdict=FAIRNESS_VERDICT_COMPARABLE)
    assert unequal(event, newer) == [], "the newest revision says that it is over"


def test_dead_letters_are_told_by_topic() -> None:
    beside = Beside(dead_letters={15 * MINUTE: {"a.dlq": 3, "b.dlq": 1}})
    its = rule(DeadLetters(above=1), metric="", window=15 * MINUTE, summary="$count on $topic")
    [signal] = signals(its, board(), [], at=BEGIN, beside=beside)
    assert (dict(signal.labels), dict(signal.causes)) == ({"topic": "a.dlq"}, {"dead_letters=3": 1.0})
    assert signals(replace(its, window=MINUTE), board(), [], at=BEGIN, beside=beside) == []
    [alert] = Alerts().step(its, [signal], at=BEGIN)
    assert alert.summary == "3 on a.dlq"


def test_a_group_that_stands_still_is_told_of_with_what_waits_on_its_partitions() -> None:
    beside = Beside(
        standing=[
            Standing("sluice-quality", "completions", partition=0, waiting=3, still=5 * MINUTE),
            Standing("sluice-quality", "completions", partition=1, waiting=4, still=9 * MINUTE),
            Standing("sluice-quality", "completions", partition=2, waiting=5, still=5 * MINUTE - 1),
            Standing("sluice-quality", "verdicts", partition=0, waiting=1, still=6 * MINUTE),
            Standing("another", "completions", partition=0, waiting=9, still=9 * MINUTE),
        ]
    )
    its = rule(
        Standstill(groups=("sluice-quality", "sluice-drift")),
        metric="",
        window=5 * MINUTE,
        summary="$group: $count on $topic",
    )
    found = signals(its, board(), [], at=BEGIN, beside=beside)
    assert [dict(signal.causes) for signal in found] == [{"waiting=7": 1.0}, {"waiting=1": 1.0}]
    said = [alert.summary for alert in Alerts().step(its, found, at=BEGIN)]
    assert said == ["sluice-quality: 7 on completions", "sluice-quality: 1 on verdicts"]


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ([], FIRING),  # nothing was answered
        ([Standing("g", "t", 0, waiting=9, still=0, has_moved=True)], RESOLVED),
        ([Standing("g", "t", 0, waiting=0, still=0)], RESOLVED),
        ([Standing("g", "t", 0, waiting=9, still=MINUTE)], FIRING),  # insight began anew, and saw no move yet
        ([Standing("g", "t", 0, waiting=0, still=0), Standing("g", "t", 1, waiting=9, still=MINUTE)], FIRING),
        ([Standing("g", "t", 0, waiting=9, still=5 * MINUTE, has_moved=True)], FIRING),
    ],
)
def test_a_standstill_ends_when_the_group_moves_and_not_when_an_observation_is_missing(
    seen: list[Standing], state: str
) -> None:
    its = rule(Standstill(groups=("g",)), metric="", window=5 * MINUTE, lasts=0, keeps=9 * MINUTE)
    alerts, still = Alerts(), Beside(standing=[Standing("g", "t", 0, waiting=9, still=5 * MINUTE)])
    [alert] = alerts.step(its, signals(its, board(), [], at=BEGIN, beside=still), at=BEGIN)
    beside, at = Beside(standing=seen), BEGIN + MINUTE
    changed = alerts.step(its, signals(its, board(), [], at=at, beside=beside), at=at, ended=ended(its, beside))
    assert [one.state for one in (*changed, alert)][0] == state


def test_nothing_is_judged_beyond_the_watermark_until_nothing_more_is_waited_for() -> None:
    found = board((0, 10, 9))
    end = BEGIN + MINUTE
    assert complete_moment(found, None, now=end + 5 * MINUTE) == end
    assert complete_moment(found, end - 1, now=end + 5 * MINUTE) == end - MINUTE
    assert complete_moment(found, None, now=end + 30 * MINUTE) == end + 20 * MINUTE


def test_the_same_change_has_the_same_event_whoever_finds_it() -> None:
    first, second = (Alerts().step(rule(), [Signal(labels=(("tenant_id", "a"),))], at=BEGIN) for _ in range(2))
    events = [event_of(alerts[0]) for alerts in (first, second)]
    assert events[0] == events[1]
    assert events[0].metadata.tenant_id == "a"


def test_another_services_alert_is_listed_and_not_gone_on_with() -> None:
    event = event_of(Alerts().step(rule(), [Signal(labels=())], at=BEGIN)[0])
    event.metadata.producer = "sluice-cost/0"
    assert Told(event).restored() is None
    log = AlertLog()
    assert log.take(event)
    assert not log.take(event)
    with pytest.raises(ValueError, match="one of the states"):
        event.state = "odd"
        log.take(event)


def test_a_dimension_that_a_series_has_none_of_is_said_in_words() -> None:
    spoken = rule(summary="$model of $tenant_id: $value, $other", group_by=("tenant_id", "model"))
    assert spoken.say({"tenant_id": "acme"}, 0.25) == "no model of acme: 0.25, $other"
    assert spoken.say({"tenant_id": "acme", "model": ""}, None) == "no model of acme: nothing, $other"
