"""People, sessions, scopes, words and charts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sluice_console.adapters.key_files import keyring_of
from sluice_console.domain import overview, spending, wording
from sluice_console.domain.answers import Alert, Amount, Point, Points, SpendGroup
from sluice_console.domain.charts import Chart, Line, over_time, windows
from sluice_console.domain.comparisons import Feature
from sluice_console.domain.evidence import seen_at
from sluice_console.domain.firing import firing_rules
from sluice_console.domain.looking_back import KeptWindow, LookingBack, name_of, named
from sluice_console.domain.overview import charts, figures, mean
from sluice_console.domain.people import Person, Role
from sluice_console.domain.scope import RANGE_NAMES, RANGES, BadScope, scope_of
from sluice_console.domain.sessions import Sessions, Throttle
from sluice_kit.configuration import ConfigurationRefused, SourceFile

NOON = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)
OLGA = Person("olga", Role.OPERATOR)


@pytest.mark.parametrize(
    ("role", "may"),
    [(Role.AUDITOR, {Role.AUDITOR}), (Role.REVIEWER, {Role.AUDITOR, Role.REVIEWER}), (Role.OPERATOR, set(Role))],
)
def test_each_role_may_do_what_the_ones_before_it_may(role: Role, may: set[Role]) -> None:
    assert {other for other in Role if Person("x", role).may(other)} == may


def test_a_session_ends_after_idling_and_in_any_case_after_its_time() -> None:
    now = [0.0]
    sessions = Sessions(seconds=100, idle_seconds=30, limit=10, now=lambda: now[0])
    token, _ = sessions.begin(OLGA)
    for now[0] in (20.0, 45.0, 70.0, 95.0):
        assert sessions.find(token) is not None
    now[0] = 100.0
    assert sessions.find(token) is None
    idle, _ = sessions.begin(OLGA)
    now[0] += 30.0
    assert sessions.find(idle) is None


def test_every_session_has_names_of_its_own_and_the_oldest_goes_when_there_are_too_many() -> None:
    sessions = Sessions(seconds=100, idle_seconds=100, limit=3, now=lambda: 0.0)
    begun = [sessions.begin(OLGA) for _ in range(4)]
    assert len({token for token, _ in begun} | {session.csrf_token for _, session in begun}) == 8
    assert [sessions.find(token) is not None for token, _ in begun] == [False, True, True, True]
    assert not begun[1][1].accepts(begun[2][1].csrf_token)


def test_guessing_is_slowed_down_by_address_and_memory_is_bounded() -> None:
    now = [0.0]
    throttle = Throttle(failures=3, seconds=60, limit=2, now=lambda: now[0])
    for now[0] in (0.0, 10.0, 20.0):
        assert throttle.wait("a") == 0
        throttle.failed("a")
    assert throttle.wait("a") == 40.0
    assert throttle.wait("b") == 0
    now[0] = 61.0
    assert throttle.wait("a") == 0
    for other in "bcd":
        throttle.failed(other)
    assert len(throttle._seen) == 2


def test_every_outcome_stands_in_the_stack_rejected_ones_too() -> None:
    counts = {"succeeded": 5, "blocked_inputs": 1, "blocked_outputs": 1, "failed": 1, "cancelled": 2, "rejected": 3}
    at = NOON.replace(second=0) - timedelta(minutes=1)
    points = Points(
        [Point(f"quality.{name}", "1", {}, at, timedelta(minutes=1), float(value)) for name, value in counts.items()]
        + [Point("quality.requests", "1", {}, at, timedelta(minutes=1), 13.0)]
    )
    stack = charts(points, scope_of({"range": "15m"}, OLGA), NOON, [])[0]
    assert sum(value or 0 for line in stack.lines for value in line.values) == 13


@pytest.mark.parametrize("metric", [*overview.SHARES, *overview.ANSWERS])
def test_every_share_that_is_asked_for_is_shown(metric: str) -> None:
    at = NOON.replace(second=0) - timedelta(minutes=1)
    points = Points([Point(metric, "1", {}, at, timedelta(minutes=1), 0.125, 8)])
    scope = scope_of({"range": "15m"}, OLGA)
    drawn = [value for one in charts(points, scope, NOON, []) for line in one.lines for value in line.values]
    assert 0.125 in drawn or "12.5 %" in [one.value for one in overview.figures(points, scope, None)]


def test_the_course_of_drift_counts_the_windows_that_are_over_by_what_became_of_them() -> None:
    at = NOON.replace(second=0) - timedelta(minutes=5)

    def compared(minute: int, value: float | None, *, closed: bool = True) -> Point:
        start = at + timedelta(minutes=minute, seconds=20)
        return Point("drift.drifted", "1", {}, start, timedelta(minutes=1), value, 60, closed=closed)

    over = [compared(0, 1.0), compared(0, 0.0), compared(0, 0.0), compared(2, 1.0), compared(3, None)]
    points = Points([*over, compared(4, 1.0, closed=False)])
    scope = scope_of({"range": "15m"}, OLGA)
    [drift] = [one for one in charts(points, scope, NOON, []) if one.id == "drift"]
    same, drifted = ([value for value in line.values if value] for line in drift.lines)
    assert (same, drifted) == ([2.0], [1.0, 1.0])
    [nothing] = [one for one in charts(Points([]), scope, NOON, []) if one.id == "drift"]
    assert nothing.is_empty


@pytest.mark.parametrize(
    ("name", "first", "last", "note"),
    [
        ("24h", "12:00", "12:00", "a window is 30 minutes"),
        ("7d", "19 Nov 12:00", "26 Nov 12:00", "a window is 3 hours"),
        ("30d", "27 Oct", "26 Nov", "a window is a day"),
    ],
)
def test_a_window_is_labelled_with_its_day_where_the_range_is_of_several(
    name: str, first: str, last: str, note: str
) -> None:
    chart = charts(Points([]), scope_of({"range": name}, OLGA), NOON, [])[0]
    assert (chart.labels[0], chart.labels[-1], chart.note) == (first, last, note)
    assert len(set(chart.labels[1:])) == len(chart.labels) - 1 <= 72


def test_beyond_a_day_windows_are_of_whole_hours_for_so_the_history_is_kept() -> None:
    scopes = [scope_of({"range": name}, OLGA) for name in RANGES]
    assert all(scope.window % timedelta(hours=1) == timedelta() for scope in scopes if scope.length > timedelta(days=1))
    assert set(RANGES) == set(RANGE_NAMES)


def test_what_was_spent_in_an_hour_is_added_up_over_the_kinds_of_rows() -> None:
    hour = "2026-11-26T12"
    groups = [
        SpendGroup([kind, hour], Amount("USD", nano), 1, 1, 0, 0) for kind, nano in (("judge", 1), ("inference", 2))
    ]
    [chart] = spending.over_time(groups, "24h", NOON)
    assert chart.lines[0].values[-1] == 3e-9


def test_bins_that_are_numbers_stand_in_the_order_of_numbers() -> None:
    bins, counts = ["1", "16-31", "2-3", "128+", "en", "4-7"], [1, 2, 3, 4, 5, 6]
    chart = Feature("prompt.words", "", 0.0, None, None, None, "", bins, counts, counts, "").chart
    assert chart is not None
    assert chart.labels == ["1", "2-3", "4-7", "16-31", "128+", "en"]
    assert [round((value or 0) * 21) for value in chart.lines[1].values] == [1, 3, 6, 2, 4, 5]


def test_who_is_bound_to_a_tenant_sees_that_one_whatever_the_address_says() -> None:
    bound = Person("anna", Role.AUDITOR, "acme")
    assert scope_of({"tenant": "globex", "by": "tenant"}, bound).tenant == "acme"
    assert scope_of({"tenant": "globex"}, OLGA).tenant == "globex"
    assert scope_of({}, OLGA).tenant == ""


@pytest.mark.parametrize("query", [{"range": "9y"}, {"by": "shoe size"}, {"model": "a\nb"}, {"tenant": "x" * 201}])
def test_an_address_that_no_page_makes_is_named(query: dict[str, str]) -> None:
    with pytest.raises(BadScope, match=next(iter(query))):
        scope_of(query, OLGA)


KEY = "a" * 64


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("version: 2\nkeys: [{id: a, sha256: " + KEY + ", role: operator}]", ":1: version"),
        ("version: 1\nkeys:\n  - {id: a, sha256: secret, role: operator}", ":3: keys[0].sha256"),
        ("version: 1\nkeys:\n  - {id: a, sha256: " + KEY + ", role: king}", ":3: keys[0].role"),
        ("version: 1\nkeys: []", ":2: keys"),
        (
            "version: 1\nkeys:\n  - {id: a, sha256: "
            + KEY
            + ", role: auditor}\n  - {id: a, sha256: "
            + KEY
            + ", role: auditor}",
            ":4: keys[1].id: a stands twice",
        ),
        (
            "version: 1\nkeys:\n  - {id: a, sha256: " + KEY + ", role: auditor, tenant: 'No Tenant'}",
            ":3: keys[0].tenant",
        ),
    ],
)
def test_a_mistake_in_the_file_of_keys_is_told_with_its_line_and_never_with_the_value(text: str, mistake: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        keyring_of((SourceFile(Path("keys.yaml"), text.encode()),))
    assert mistake in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_key_that_is_not_enabled_opens_nothing() -> None:
    text = f"version: 1\nkeys:\n  - {{id: a, sha256: {KEY}, role: auditor, enabled: false}}"
    assert not keyring_of((SourceFile(Path("keys.yaml"), text.encode()),)).holds(Person("a", Role.AUDITOR))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (wording.share(None), "\N{EM DASH}"),
        (wording.share(0), "0 %"),
        (wording.chance(None), "\N{EM DASH}"),
        (wording.chance(0.0123), "0.0123"),
        (wording.chance(0.00001), "< 0.0001"),
        (wording.share(0.0004), "0.04 %"),
        (wording.share(0.194), "19.4 %"),
        (wording.seconds(0.0008), "0.8 ms"),
        (wording.seconds(4.641), "4.64 s"),
        (wording.seconds(200), "3 min"),
        (wording.count(12_345), "12.3k"),
        (wording.count(1_234), "1,234"),
        (wording.money(Amount("EUR", 306_110)), "0.00030611 EUR"),
        (wording.money(Amount("EUR", -2_500_000_000)), "-2.5000 EUR"),
        (wording.money(Amount("EUR", 1)), "0.000000001 EUR"),
        (wording.brief(Amount("USD", 306_110)), "0.000306 USD"),
        (wording.brief(Amount("USD", 1_234_567_890)), "1.23 USD"),
        (wording.brief(Amount("USD", 98_765_432_100)), "98.77 USD"),
        (wording.ago(NOON - timedelta(minutes=5), NOON), "5 min ago"),
        (wording.ago(NOON + timedelta(minutes=5), NOON), "just now"),
    ],
)
def test_numbers_are_told_as_people_read_them(told: str, words: str) -> None:
    assert told == words


def test_a_window_is_named_as_it_is_read_again() -> None:
    for at in (NOON, NOON.replace(second=0)):
        assert named(name_of(at)) == at
    assert name_of(NOON.replace(second=0)) == "2026-11-26T12:00Z"
    assert named("") is None


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-02-30T12:00Z", "2026-11-26T12:00", "2026-11-26T12:00+01:00", "\u0662026-11-26T12:00Z"]
)
def test_what_names_no_window_is_refused(text: str) -> None:
    with pytest.raises(BadScope, match="window must be"):
        named(text)


@pytest.mark.parametrize(
    ("asked", "older", "newer", "is_known"),
    [
        (None, 1, None, True),
        (0, 1, None, True),
        (1, 3, 0, True),
        (2, 3, 1, False),
        (3, None, 1, True),
        (9, None, 3, False),
    ],
)
def test_from_every_window_the_ones_beside_it_that_are_kept_are_found(
    asked: int | None, older: int | None, newer: int | None, is_known: bool
) -> None:
    kept = [KeptWindow(NOON - timedelta(hours=hours), 0) for hours in (0, 1, 3)]
    back = LookingBack(kept, None if asked is None else NOON - timedelta(hours=asked))
    beside = [None if one is None else KeptWindow(NOON - timedelta(hours=one), 0) for one in (older, newer)]
    assert ([back.older, back.newer], back.is_known) == (beside, is_known)
    assert LookingBack([]).older is None


def test_windows_are_aligned_and_what_was_not_measured_is_a_gap() -> None:
    moments = windows(NOON - timedelta(minutes=3), NOON, timedelta(minutes=1))
    assert [moment.minute for moment in moments] == [57, 58, 59, 0]
    points = [
        Point("m", "1", {}, moments[1], timedelta(minutes=1), 2.0),
        Point("m", "1", {}, moments[1], timedelta(minutes=1), 3.0),
    ]
    assert over_time(points, moments) == [None, 5.0, None, None]


def test_a_share_over_windows_weighs_each_by_what_was_observed_in_it() -> None:
    points = [
        Point("m", "ratio", {}, NOON, timedelta(minutes=1), value, samples=samples)
        for value, samples in ((1.0, 1), (0.0, 99), (None, 0))
    ]
    assert mean(points) == pytest.approx(0.01)
    assert mean([]) is None
    assert Points(points).latest("m").value == 0.0  # type: ignore[union-attr]


def test_a_chart_says_in_words_and_in_a_table_what_it_draws() -> None:
    chart = Chart("c", "Latency", "line", "seconds", ["12:00", "12:01"], [Line("half", [None, 0.5], "main")])
    assert chart.summary == "Latency. half: latest 500 ms, highest 500 ms"
    assert chart.rows == [("12:01", ["500 ms"])]
    assert not chart.is_empty


def test_drift_at_the_top_is_of_closed_windows_only() -> None:
    def window(minute: int, value: float, *, closed: bool) -> Point:
        start = NOON - timedelta(minutes=minute)
        return Point(
            metric="drift.drifted", unit="1", series={}, start=start, length=timedelta(minutes=5), value=value, closed=closed
        )  # fmt: skip

    def told(*points: Point) -> tuple[str, str, str]:
        figure = figures(Points(points), scope_of({}, OLGA), {})[-1]
        return figure.value, figure.note, figure.tone

    open_one = window(5, 1.0, closed=False)
    assert told(open_one) == ("\N{EM DASH}", "no closed window says anything", "")
    assert told(window(10, 0.0, closed=True), open_one) == ("stable", "0 of 1 closed windows", "")
    assert told(window(10, 1.0, closed=True), open_one) == ("drifted", "1 of 1 closed windows", "warn")


def alert_of(metric: str, *, ago: timedelta, length: timedelta, **series: str) -> Alert:
    start = NOON.replace(second=0) - ago
    point = Point(metric=metric, unit="1", series=series, start=start, length=length, value=1.0, samples=9)
    return Alert(id="a", rule="r", state="firing", since=None, evidence=point)


@pytest.mark.parametrize(
    ("metric", "series", "minutes", "address"),
    [
        (
            "drift.drifted",
            {"tenant": "a b", "model": "small"},
            7,
            "/drift?tenant=a+b&model=small&window=2026-11-26T11%3A53Z",
        ),
        ("drift.drifted", {"tenant": "", "model": "small"}, 7, "/drift?tenant=&model=small&window=2026-11-26T11%3A53Z"),
        (
            "fairness.input_terms.religion.selection_rate",
            {"tenant": "acme"},
            70,
            "/fairness?metric=selection_rate&attribute=input_terms&windows=hour",
        ),
        (
            "fairness.input_cohort.plan.free.block_rate",
            {},
            70,
            "/fairness?metric=block_rate&attribute=input_cohort.plan&windows=hour",
        ),
        ("quality.blocked_ratio", {"tenant": "acme", "model": "m", "route": ""}, 7, "/?tenant=acme&model=m&range=15m"),
        ("quality.latency_seconds.p95", {"model": "m"}, 300, "/?model=m&range=6h"),
        ("quality.ungrounded_ratio", {"model": "m"}, 7, "/?model=m&range=15m"),
        ("quality.refusal_ratio", {"model": "m"}, 7, "/?model=m&range=15m"),
        ("quality.requests", {"model": "m"}, 40 * 1440, ""),
        ("quality.judge_score", {"model": "m"}, 7, ""),
        ("cost.unpriced_requests", {"model": "m"}, 700, "/cost?model=m&period=24h"),
        (
            "probe.unguarded",
            {"route": "chat"},
            7,
            "/requests?probes=on&from=2026-11-26T11%3A53&until=2026-11-26T12%3A54",
        ),
        (
            "probe.recall_by_name_origin.west_african",
            {},
            7,
            "/fairness?metric=pii_recall_by_name_origin&windows=hour",
        ),
        ("weather.rain", {}, 7, ""),
    ],
)
def test_an_alert_leads_to_the_page_that_shows_its_evidence(
    metric: str, series: dict[str, str], minutes: int, address: str
) -> None:
    alert = alert_of(metric, ago=timedelta(minutes=minutes), length=timedelta(hours=1), **series)
    assert seen_at(alert, NOON) == address


def test_events_that_are_missing_are_seen_on_the_page_of_alerts_and_what_has_no_page_leads_nowhere() -> None:
    def without(**labels: str) -> Alert:
        return Alert(id="a", rule="r", state="firing", since=None, evidence=None, labels=labels)

    assert seen_at(without(producer="sluice-cost/0#1", topic="t"), NOON) == "#sources"
    assert seen_at(without(topic="t"), NOON) == ""


def test_an_alert_of_a_comparison_leads_to_its_own_window() -> None:
    alert = alert_of(
        "fairness.input_cohort.plan.v1.2.selection_rate", ago=timedelta(hours=2), length=timedelta(hours=1)
    )
    alert = replace(alert, labels={"attribute": "input_cohort.plan", "group": "v1.2"})
    wanted = "/fairness?metric=selection_rate&attribute=input_cohort.plan&windows=hour&window=2026-11-26T10%3A00Z"
    assert seen_at(alert, NOON) == wanted


def test_alerts_of_one_rule_are_told_together_with_what_they_are_about_the_worst_first() -> None:
    def fires(rule: str, severity: str, **labels: str) -> Alert:
        return Alert(
            id=f"{rule}-{labels}",
            rule=rule,
            state="firing",
            since=None,
            evidence=None,
            severity=severity,
            labels=labels,
        )

    unguarded = [
        fires("probe.unguarded", "critical", model="small", route=f"route-{i}", tenant_id="probes") for i in range(5)
    ]
    drifted = Point("drift.drifted", "", {"tenant": "acme", "model": ""}, datetime.now(UTC), timedelta(minutes=5), 1.0)
    others = [
        fires("events.missing", ""),
        Alert(id="d", rule="drift", state="firing", since=None, evidence=drifted, severity="warning"),
    ]
    told = firing_rules([*others, *unguarded])
    assert [(one.count, one.rule, one.severity, one.about) for one in told] == [
        (5, "probe.unguarded", "critical", "model small; route route-0, route-1, route-2 and 2 more"),
        (1, "drift", "warning", "tenant acme"),
        (1, "events.missing", "", ""),
    ]
    assert told[0].newest_id == unguarded[0].id
