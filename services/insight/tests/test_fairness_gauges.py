"""Fairness for Prometheus: the newest complete window, few series, and no difference lost when there are too many."""

from __future__ import annotations

from collections import Counter
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from sluice.events.v1 import fairness_pb2
from sluice.events.v1.fairness_pb2 import FairnessMeasured
from sluice.types.v1 import metric_pb2
from sluice_insight.adapters.comparisons import Comparisons
from sluice_insight.adapters.fairness_gauges import FairnessGauges
from sluice_insight.domain.latest import Latest

HOUR = 3_600
NOON = 1_760_011_200
COMPARABLE, DISPARATE, INSUFFICIENT = (
    fairness_pb2.FAIRNESS_VERDICT_COMPARABLE,
    fairness_pb2.FAIRNESS_VERDICT_DISPARATE,
    fairness_pb2.FAIRNESS_VERDICT_INSUFFICIENT,
)


def measured(
    group: str, verdict: Any, *, ratio: float | None = None, start: int = NOON, length: int = HOUR, tenant: str = "acme",
    metric: str = "selection_rate", attribute: str = "input_terms", policy: str = "general@1", samples: int = 100,
    revision: int = 1,
) -> FairnessMeasured:  # fmt: skip
    event = FairnessMeasured(
        series=metric_pb2.MetricSeries(tenant_id=tenant, model="small"), metric=metric, attribute=attribute,
        group=group, policy=policy, verdict=verdict, ratio=ratio, sample_count=samples, revision=revision,
        below_four_fifths=metric == "selection_rate" and ratio is not None and ratio < 0.8,
    )  # fmt: skip
    event.window.start.FromSeconds(start)
    event.window.length.FromSeconds(length)
    return event


class Scraped:
    """What Prometheus gets at a time, of events that came in this order."""

    def __init__(self, *events: FairnessMeasured, limit: int = 50, now: float = NOON + HOUR + 60) -> None:
        comparisons = Comparisons()
        for event in events:
            comparisons.take(event)
        self._registry = CollectorRegistry()
        self._registry.register(FairnessGauges(comparisons=comparisons, limit=limit, now=lambda: now))
        self.text = generate_latest(self._registry).decode()

    def value(
        self, name: str, *, tenant: str = "acme", model: str = "small", attribute: str = "input_terms"
    ) -> float | None:
        labels = {"tenant": tenant, "model": model, "attribute": attribute}
        return self._registry.get_sample_value(f"sluice_insight_fairness_{name}", labels)

    @property
    def left_out(self) -> float | None:
        return self._registry.get_sample_value("sluice_insight_fairness_series_in_other")


def test_the_smallest_ratio_and_the_differences_found_are_told() -> None:
    scraped = Scraped(
        measured("none", fairness_pb2.FAIRNESS_VERDICT_UNSPECIFIED),
        measured("age", DISPARATE, ratio=0.9),
        measured("religion", DISPARATE, ratio=0.5),
        measured("origin", COMPARABLE, ratio=0.7),  # chance
        measured("gender", INSUFFICIENT, samples=3),
        measured("age", DISPARATE, ratio=0.2, metric="refusal_rate"),
        measured("", DISPARATE, ratio=0.1, metric="selection_rate_ratio"),  # between groups: told, never tested
    )
    names = ("selection_ratio", "below_four_fifths", "disparities", "groups_compared")
    assert [scraped.value(name) for name in names] == [0.5, 1, 3, 3]


def test_without_enough_observations_no_ratio_is_told_and_zero_groups_are() -> None:
    scraped = Scraped(measured("age", INSUFFICIENT, samples=3))
    assert (scraped.value("selection_ratio"), scraped.value("groups_compared")) == (None, 0)
    assert "sluice_insight_fairness_selection_ratio{" not in scraped.text


def test_the_highest_revision_of_the_newest_window_counts_and_what_was_not_seen_in_it_does_not() -> None:
    events = [
        measured("age", DISPARATE, ratio=0.4, start=NOON),
        measured("religion", DISPARATE, ratio=0.3, start=NOON),  # nobody mentioned it since
        measured("age", DISPARATE, ratio=0.7, start=NOON + HOUR, policy="general@2"),
        measured("age", COMPARABLE, ratio=0.95, start=NOON + HOUR, policy="general@2", revision=2),
    ]
    for order in (events, events[::-1]):
        scraped = Scraped(*order, now=NOON + 2 * HOUR + 60)
        assert [scraped.value(name) for name in ("selection_ratio", "disparities", "groups_compared")] == [0.95, 0, 1]


def test_a_series_disappears_when_its_window_ages_out() -> None:
    event = measured("age", DISPARATE, ratio=0.5)
    over = NOON + HOUR
    for now, value in ((over - 1, None), (over, 1), (over + HOUR + 599, 1), (over + HOUR + 600, None)):
        scraped = Scraped(event, now=now)
        assert scraped.value("below_four_fifths") == value, now - over
        assert ("{" in scraped.text) == (value is not None)


def test_minutes_are_too_small_to_be_shown() -> None:
    minute = measured("age", DISPARATE, ratio=0.5, length=60)
    assert Scraped(minute, now=NOON + 90).value("disparities") is None


def test_the_number_of_series_is_bounded_and_no_difference_is_lost() -> None:
    events = [
        measured(group, DISPARATE, ratio=(n + 1) / 1000, tenant=f"t{n:03}", attribute=attribute, samples=100 + n)
        for n in range(100)
        for attribute in ("input_terms", f"input_cohort.invented-{n}")
        for group in ("secret-a", "secret-b")
    ]
    scraped = Scraped(*events, limit=7)
    lines = [line for line in scraped.text.splitlines() if "{" in line]
    assert set(Counter(line.split("{")[0] for line in lines).values()) == {8}
    found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("sluice_insight_fairness_disparities{")]
    assert (sum(found), scraped.left_out) == (len(events), 193)
    rest = {"tenant": "other", "model": "other", "attribute": "other"}
    assert scraped.value("selection_ratio", **rest) == 0.001, "the worst of those without a name"
    assert scraped.value("disparities", tenant="t099") == 2, "the largest keep their names"
    assert "secret" not in scraped.text, "groups are no labels"


def test_what_comes_while_prometheus_asks_does_not_disturb_it() -> None:
    latest: Latest[_Kept] = Latest(limit=10)
    latest.put(_Kept("a"))
    latest.put(_Kept("b"))
    assert [one.key for one in latest.find(lambda one: latest.put(_Kept(f"{one.key[0]}2")))] == [("a",), ("b",)]


class _Kept:
    rank = (0, 1, True)

    def __init__(self, name: str) -> None:
        self.key = (name,)
