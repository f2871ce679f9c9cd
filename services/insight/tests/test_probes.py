"""Rounds of self-tests on the board: what is counted, what alarms and when, and recall by name origin."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from sluice.events.v1.fairness_pb2 import (
    FAIRNESS_VERDICT_COMPARABLE,
    FAIRNESS_VERDICT_DISPARATE,
    FAIRNESS_VERDICT_INSUFFICIENT,
    FAIRNESS_VERDICT_UNSPECIFIED,
)
from sluice.events.v1.probe_pb2 import ProbeMeasured
from sluice.types.v1 import probe_pb2
from sluice_insight.adapters.alerting.rule_files import SHIPPED, read_rules
from sluice_insight.adapters.comparisons import Comparisons
from sluice_insight.adapters.probes import probe_parts
from sluice_insight.consumer import Feed
from sluice_insight.domain.alerting.conditions import moment_of, signals
from sluice_insight.domain.alerting.rules import Rule
from sluice_insight.domain.alerting.states import FIRING, PENDING, RESOLVED, Alerts
from sluice_insight.domain.board import MINUTE, Board, Query
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.name_origins import compared, fisher, holm
from sluice_insight.domain.probes import GUARDS, KINDS, ORIGINS
from sluice_insight.domain.watch import Watchers
from sluice_kit.configuration import source_files
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.events import topic_of

SECOND = 1_000_000
BEGIN = 1_760_000_040 * SECOND
HOUR = 60 * MINUTE
ON, OFF = probe_pb2.GUARD_STATE_GUARDED, probe_pb2.GUARD_STATE_UNGUARDED
AWAY, UNTRIED = probe_pb2.GUARD_STATE_UNAVAILABLE, probe_pb2.GUARD_STATE_UNTESTED
ROUTES = ("grpc_chat", "http_stream")


def round_(number: int, states: dict[tuple[str, str], int] | None = None, **found: int) -> ProbeMeasured:
    """The number-th round, half a minute after the one before; names of an origin found of ten, ten where not told."""
    event = ProbeMeasured(
        guards=[
            probe_pb2.GuardCheck(route=route, guard=guard, model="m", state=(states or {}).get((route, guard), ON))  # type: ignore[arg-type]
            for route in ROUTES
            for guard in GUARDS
        ],
        detections=[
            probe_pb2.DetectionCount(kind="PERSON", name_origin=origin, sought=10, found=found.get(origin, 10))
            for origin in ORIGINS
        ],
    )
    at = BEGIN + number * 30 * SECOND
    event.window.start.FromMicroseconds(at - at % MINUTE)
    event.window.length.FromMicroseconds(MINUTE)
    event.part.part_key, event.part.revision, event.part.closed = f"probe|{number}", 1, True
    event.part.complete_up_to.FromMicroseconds(at)
    event.metadata.producer, event.metadata.producer_sequence = "sluice-probes/0#aaaaaaaa", number + 1
    return event


def board(events: Iterable[ProbeMeasured]) -> Board:
    made = Board(history=24 * HOUR)
    for event in events:
        for part in probe_parts(event):
            made.put(part, now=BEGIN)
    return made


def values(
    made: Board, *metrics: str, by_route: bool = False, where: dict[str, frozenset[str]] | None = None
) -> dict[tuple[str, str], tuple[float | None, int]]:
    query = Query(
        metrics=metrics, filters=where or {}, group_by=("route",) if by_route else (), window=HOUR, end=BEGIN + 2 * HOUR
    )
    return {
        (point.metric, point.series.route): (point.value.value, point.value.sample_count)
        for point in made.points(query)
    }


def test_rounds_are_counted_by_route_and_guard() -> None:
    made = board([round_(0), round_(1, {("grpc_chat", "input_redaction"): OFF, ("http_stream", "restoration"): AWAY})])
    told = values(made, "probe.unguarded", "probe.unavailable", by_route=True)
    assert told["probe.unguarded", "grpc_chat"] == (1.0, 10)
    assert told["probe.unguarded", "http_stream"] == (0.0, 9)
    assert told["probe.unavailable", "http_stream"] == (1.0, 10)
    guards = values(made, "probe.unguarded_by_guard.input_redaction", "probe.unguarded_by_guard.restoration")
    assert guards["probe.unguarded_by_guard.input_redaction", ""] == (1.0, 4)
    assert guards["probe.unguarded_by_guard.restoration", ""] == (0.0, 3)
    assert values(made, "probe.rounds") == {("probe.rounds", ""): (2.0, 2)}


def test_what_was_not_tried_is_no_measured_zero_and_an_unknown_state_is_not_on() -> None:
    every = {(route, guard): UNTRIED for route in ROUTES for guard in GUARDS}
    newer = {("grpc_chat", guard): 99 for guard in GUARDS}
    made = board([round_(0, every), round_(1, every | newer)])
    assert values(made, "probe.unguarded") == {}
    assert values(made, "probe.untested") == {("probe.untested", ""): (20.0, 20)}


def test_recall_is_added_up_by_kind_and_origin_with_its_interval() -> None:
    made = board([round_(0, chinese=4), round_(1, chinese=2)])
    told = values(made, "probe.recall", "probe.recall_by_kind.person", "probe.recall_by_name_origin.chinese")
    assert told["probe.recall_by_name_origin.chinese", ""] == (0.3, 20)
    assert told["probe.recall", ""] == told["probe.recall_by_kind.person", ""] == (126 / 140, 140)
    with pytest.raises(ValueError, match="11 of 10"):
        probe_parts(round_(0, chinese=11))


def shipped(name: str) -> Rule:
    return next(rule for rule in read_rules(source_files(SHIPPED)) if rule.name == name)


def states(name: str, rounds: dict[int, ProbeMeasured], *, until: int) -> list[tuple[int, str]]:
    """Seconds and state of each change, judged every 15 seconds by the clock while the mesh's own event time stands still."""
    rule, alerts, found = shipped(name), Alerts(), []
    for second in range(0, until, 15):
        now = BEGIN + second * SECOND
        made = board(event for at, event in rounds.items() if at <= second)
        at = moment_of(rule, complete=0, now=now)
        changed = alerts.step(rule, signals(rule, made, [], at=at), at=at)
        found += [(second, alert.state) for alert in changed]
    return found


def test_an_unguarded_route_alarms_at_the_next_look_though_no_traffic_moves_event_time() -> None:
    off = {("http_stream", "output_moderation"): OFF}
    rounds = {30 * n: round_(n, off if 3 <= n <= 8 else {}) for n in range(30)}
    [(fired, first), (resolved, last)] = states("probe.unguarded", rounds, until=900)
    assert (fired, first, last) == (90, FIRING, RESOLVED)
    assert 240 + 120 <= resolved <= 240 + 300


def test_a_filter_that_is_away_is_no_unguarded_answer_and_is_told_when_it_lasts() -> None:
    away = {(route, guard): AWAY for route in ROUTES for guard in GUARDS}
    rounds = {30 * n: round_(n, away if n >= 3 else {}) for n in range(20)}
    assert states("probe.unguarded", rounds, until=600) == []
    pending, firing = states("probe.unavailable", rounds, until=570)[::2]
    assert pending == (90, PENDING)
    assert firing == (390, FIRING)


@pytest.mark.parametrize("apart", [30, 140, 170])
def test_a_filter_that_is_away_is_told_however_long_its_rounds_take(apart: int) -> None:
    away = {(route, guard): AWAY for route in ROUTES for guard in GUARDS}
    rounds = {second: round_(second // 30, away) for second in range(60, 1200, apart)}
    assert states("probe.unavailable", rounds, until=1200) == [
        (75, PENDING), (75, PENDING), (375, FIRING), (375, FIRING)
    ]  # fmt: skip


def recalling(policy: str, **missed: int) -> Callable[[int], ProbeMeasured]:
    """Rounds in which four values of each kind and origin are sent, as in a real one, and so many of them missed."""

    def made(number: int) -> ProbeMeasured:
        event = round_(number)
        event.ClearField("detections")
        for kind, origin in [*(("PERSON", origin) for origin in ORIGINS), *((kind, "") for kind in KINDS[1:])]:
            found = 4 - missed.get(origin or kind.lower(), 0)
            event.detections.add(kind=kind, name_origin=origin, redaction_policy=policy, sought=4, found=found)
        return event

    return made


def told_at(name: str, made: Board, second: int) -> dict[str, float | None]:
    """Redaction policy to value, of the alerts of a rule."""
    found = signals(shipped(name), made, [], at=BEGIN + second * SECOND)
    return {dict(one.labels)["redaction_policy"]: one.point.value.value for one in found if one.point}


@pytest.mark.parametrize("blind_to", [*(kind.lower() for kind in KINDS[1:]), *ORIGINS])
def test_a_filter_that_goes_blind_to_one_kind_or_origin_is_told(blind_to: str) -> None:
    sees, blind = recalling("default@1"), recalling("default@1", **{blind_to: 4})
    before = board(sees(number) for number in range(100))
    assert told_at("probe.recall_low", before, 3000) == {}
    soon = board([*map(sees, range(100)), *map(blind, range(100, 120))])
    assert told_at("probe.recall_fell", soon, 3600).keys() == {"default@1"}
    # Names of one origin are a seventh of all names: it takes longer until a tenth of the hour's are missed.
    rounds = 90 if blind_to in ORIGINS else 14
    after = board([*map(sees, range(100)), *map(blind, range(100, 100 + rounds))])
    assert told_at("probe.recall_low", after, 3000 + 30 * rounds).keys() == {"default@1"}


def test_an_accidental_miss_and_few_values_are_no_alarm() -> None:
    missing = recalling("healthcare@1", phone_number=1)
    made = board([recalling("healthcare@1")(number) for number in range(8)] + [missing(8), missing(9)])
    assert told_at("probe.recall_low", made, 300) == {}
    assert told_at("probe.recall_low", board(recalling("default@1", iban_code=4)(n) for n in range(7)), 240) == {}
    assert told_at("probe.recall_low", board(recalling("default@1", iban_code=4)(n) for n in range(8)), 240) == {
        "default@1": 0
    }


def test_a_policy_that_leaves_kinds_in_is_no_alarm_until_it_finds_fewer() -> None:
    in_, left = dict.fromkeys(ORIGINS, 4) | {"phone_number": 4, "iban_code": 4}, "secrets@1"
    rounds = [recalling(left, **in_)(number) for number in range(120)]
    assert told_at("probe.recall_low", board(rounds), 3600) == told_at("probe.recall_fell", board(rounds), 3600) == {}
    rounds += [recalling(left, **in_, api_key=4)(number) for number in range(120, 150)]
    assert told_at("probe.recall_fell", board(rounds), 4500) == {left: pytest.approx(2 / 12)}


def test_silence_of_the_self_tests_is_told_and_ends_with_the_next_round() -> None:
    rounds = {30 * n: round_(n) for n in range(4)} | {900: round_(30)}
    [(fired, first), (resolved, last)] = states("probe.absent", rounds, until=1200)
    assert (first, last) == (FIRING, RESOLVED)
    assert 900 <= resolved <= 915
    assert 90 + 240 <= fired <= 90 + 375
    assert states("probe.absent", {}, until=1200) == []


def test_recall_is_told_apart_by_redaction_policy_and_added_up_without() -> None:
    event = round_(0, chinese=4)
    for each in event.detections:
        each.redaction_policy = "strict@2" if each.name_origin == "chinese" else "default@1"
    made = board([event, round_(1)])
    names = ("probe.recall", "probe.recall_by_name_origin.chinese")
    strict = values(made, *names, where={"redaction_policy": frozenset({"strict@2"})})
    assert strict == {(name, ""): (0.4, 10) for name in names}
    assert values(made, *names)["probe.recall", ""] == (134 / 140, 140)
    query = Query(metrics=names[:1], filters={}, group_by=("redaction_policy",), window=HOUR, end=BEGIN + 2 * HOUR)
    told = {point.series.redaction_policy: point.value.sample_count for point in made.points(query)}
    assert told == {"": 70, "strict@2": 10, "default@1": 60}, "a producer of before names no policy"
    assert values(made, "probe.rounds") == {("probe.rounds", ""): (2.0, 2)}


async def test_a_round_that_is_read_twice_counts_once() -> None:
    made, comparisons = Board(history=24 * HOUR), Comparisons()
    feed = Feed(
        board=made, costs=Costs(history=HOUR), watchers=Watchers(limit=1), comparisons=comparisons,
        now=lambda: BEGIN / SECOND,
    )  # fmt: skip
    for offset in (0, 7):  # the embedded broker may give it another place
        event = round_(0, arabic=3)
        consumed = ConsumedEvent(
            message=event, topic=topic_of(ProbeMeasured).name, partition=0, offset=offset, key=b"", headers={},
            event_id="one", timestamp_ms=BEGIN // 1000,
        )  # fmt: skip
        await feed.handle([consumed])
    assert values(made, "probe.rounds") == {("probe.rounds", ""): (1.0, 1)}
    assert {each.event.sample_count for each in comparisons.of_name_origins(long_windows=True)} == {10}


def origins(rounds: int, **found: int) -> dict[str, tuple[int, object]]:
    comparisons = Comparisons()
    for number in range(rounds):
        comparisons.take(round_(number, **found))
    events = [each.event for each in comparisons.of_name_origins(long_windows=True)]
    assert {event.metric for event in events} == {"pii_recall_by_name_origin"}
    return {event.group: (event.verdict, event) for event in events}


def test_an_origin_whose_names_are_missed_is_told_apart_from_chance() -> None:
    told = origins(12, west_african=6, hispanic=9, **dict.fromkeys(set(ORIGINS) - {"west_african", "hispanic"}, 9))
    assert told["west_african"][0] == FAIRNESS_VERDICT_DISPARATE
    event = told["west_african"][1]
    assert (event.value, event.sample_count, event.lower < 0.6 < event.upper) == (0.6, 120, True)  # type: ignore[attr-defined]
    assert event.difference_upper < 0 < event.adjusted_p_value < 0.01  # type: ignore[attr-defined]
    rest = {verdict for origin, (verdict, _) in told.items() if origin != "west_african"}
    assert rest == {FAIRNESS_VERDICT_COMPARABLE, FAIRNESS_VERDICT_UNSPECIFIED}, "the best is compared with nobody"


def test_names_of_a_round_that_saw_two_policies_count_under_both() -> None:
    comparisons, event = Comparisons(), round_(0, arabic=3)
    more = probe_pb2.DetectionCount(kind="PERSON", name_origin="arabic", sought=30, found=27, redaction_policy="new@2")
    event.detections.append(more)
    comparisons.take(event)
    told = {each.event.group: each.event for each in comparisons.of_name_origins(long_windows=True)}
    assert (told["arabic"].sample_count, told["arabic"].value) == (40, 0.75)


def test_few_names_say_nothing() -> None:
    assert {verdict for verdict, _ in origins(2, west_african=0).values()} == {FAIRNESS_VERDICT_INSUFFICIENT}


def test_names_of_more_than_an_hour_before_are_forgotten() -> None:
    comparisons = Comparisons()
    for number in [*range(10), *range(200, 210)]:
        comparisons.take(round_(number))
    assert {each.event.sample_count for each in comparisons.of_name_origins(long_windows=True)} == {100}


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_the_exact_test_is_fishers(sought: int, other_sought: int, data: st.DataObject) -> None:
    found, other = data.draw(st.integers(0, sought)), data.draw(st.integers(0, other_sought))
    expected = fisher_exact([[found, sought - found], [other, other_sought - other]])[1]
    assert fisher((found, sought), (other, other_sought)) == pytest.approx(min(1.0, expected), rel=1e-6)


def test_equal_origins_alarm_no_more_often_than_is_stated() -> None:
    import random

    dice, alarms = random.Random(7), 0
    for _ in range(400):
        counts = {origin: (sum(dice.random() < 0.8 for _ in range(60)), 60) for origin in ORIGINS}
        alarms += any(each.difference and each.difference.is_disparate for each in compared(counts))
    assert alarms <= 10  # 1 % of 400 is 4; more than 10 has a chance of 0.3 %


def test_the_correction_is_holms() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
