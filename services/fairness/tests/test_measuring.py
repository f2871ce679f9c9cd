"""What is computed of counts: equal to counting by hand, and honest about little data."""

from __future__ import annotations

import random
from statistics import NormalDist, mean, stdev

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sluice_fairness.domain import frames
from sluice_fairness.domain.board import Frame
from sluice_fairness.domain.comparison import compare_means, compare_rates, slope
from sluice_fairness.domain.counts import GroupCounts
from sluice_fairness.domain.facts import Series
from sluice_fairness.domain.intervals import holm, newcombe, wilson
from sluice_fairness.domain.measuring import Judging, Measurement, Verdict, measure

HOUR = 3_600_000_000


def counts(judged: int, blocked: int, **more: int) -> GroupCounts:
    return GroupCounts(judged=judged, blocked=blocked, allowed=judged - blocked, **more)


def found(groups: dict[str, GroupCounts], **judging: float) -> dict[tuple[str, str], Measurement]:
    frame = Frame(Series("acme"), 0, 60, 1, groups)
    return {(each.metric, each.group): each for each in measure(frame, Judging(**judging))}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans()), min_size=1, max_size=80))
def test_a_frame_of_weighted_rows_equals_one_of_single_rows_and_counting_by_hand(rows: list[tuple[str, bool]]) -> None:
    groups = sorted({group for group, _ in rows})
    counted = {g: (sum(v for k, v in rows if k == g), sum(k == g for k, _ in rows)) for g in groups}
    disparity = frames.rates_by_group(counted)
    single = MetricFrame(
        metrics=selection_rate,
        y_true=np.zeros(len(rows)),
        y_pred=np.array([float(v) for _, v in rows]),
        sensitive_features={"group": np.array([k for k, _ in rows])},
    )
    by_hand = {group: successes / trials for group, (successes, trials) in counted.items()}
    assert disparity.by_group == pytest.approx(by_hand) == single.by_group.to_dict()
    assert disparity.difference == pytest.approx(max(by_hand.values()) - min(by_hand.values()))
    assert disparity.difference == pytest.approx(single.difference())
    if disparity.ratio is not None:
        assert disparity.ratio == pytest.approx(min(by_hand.values()) / max(by_hand.values()))


def test_false_blocks_are_fairlearns_false_positive_rate() -> None:
    group = counts(200, 50, false_blocks=12, upheld_blocks=30, upheld_passes=60, misses=9)
    measured = found({"input_terms/religion": group, "input_terms/none": counts(500, 5)})
    truth = np.array([0] * 72 + [1] * 39)
    decided = np.array([1] * 12 + [0] * 60 + [1] * 30 + [0] * 9)
    assert measured["false_positive_rate", "religion"].value == pytest.approx(false_positive_rate(truth, decided))
    assert measured["false_negative_rate", "religion"].value == pytest.approx(9 / 39)


def test_a_group_that_is_blocked_more_is_disparate_and_the_four_fifths_rule_says_so() -> None:
    measured = found({"input_terms/religion": counts(200, 80), "input_terms/none": counts(2000, 40)})
    religion = measured["selection_rate", "religion"]
    assert (religion.value, religion.verdict, religion.is_below_four_fifths) == (0.6, Verdict.DISPARATE, True)
    assert religion.compared is not None
    assert religion.compared.interval[0] < religion.compared.difference == pytest.approx(-0.38)
    assert religion.compared.interval[1] < 0
    assert measured["selection_rate_difference", ""].value == pytest.approx(0.38)
    assert measured["selection_rate_ratio", ""].value == pytest.approx(0.6 / 0.98)
    assert measured["block_rate", "religion"].verdict is Verdict.NONE


def test_a_small_group_is_insufficient_whatever_its_rate() -> None:
    measured = found({"input_terms/religion": counts(29, 29), "input_terms/none": counts(2000, 40)})
    religion = measured["selection_rate", "religion"]
    assert (religion.verdict, religion.value, religion.compared, religion.sample_count) == (
        Verdict.INSUFFICIENT, 0.0, None, 29,
    )  # fmt: skip
    assert ("selection_rate_difference", "") not in measured


def test_without_enough_of_the_reference_groups_are_told_and_not_judged() -> None:
    measured = found({"input_terms/religion": counts(100, 50), "input_terms/none": counts(3, 0)})
    assert measured["selection_rate", "religion"].verdict is Verdict.NONE
    assert measured["selection_rate", "none"].verdict is Verdict.INSUFFICIENT


def test_a_declared_cohort_is_compared_with_all_others_together() -> None:
    measured = found(
        {
            "input_cohort.plan/free": counts(300, 120),
            "input_cohort.plan/pro": counts(200, 8),
            "input_cohort.plan/team": counts(100, 4),
        }
    )
    free, pro = measured["selection_rate", "free"], measured["selection_rate", "pro"]
    assert (free.reference, free.verdict, free.is_below_four_fifths) == ("others", Verdict.DISPARATE, True)
    assert free.compared is not None
    assert free.compared.difference == pytest.approx(180 / 300 - 288 / 300)
    assert pro.compared is not None
    assert pro.compared.difference == pytest.approx(192 / 200 - 276 / 400)
    assert measured["selection_rate_ratio", ""].value == pytest.approx(0.6 / 0.96)


def test_a_cohort_alone_says_nothing_and_answers_count_by_what_callers_wrote() -> None:
    assert found({"input_cohort.plan/free": counts(1000, 10)}) == {}
    answered = {"refusals_judged": 100, "refusals": 40}
    groups = {name: counts(100, 1, **answered) for name in ("output_cohort.plan/free", "output_cohort.plan/pro")}
    assert ("refusal_rate", "free") not in found(groups)
    assert ("refusal_rate", "free") in found({name.replace("output", "input"): c for name, c in groups.items()})


def test_with_too_few_others_a_cohort_is_told_and_not_judged() -> None:
    measured = found({"input_cohort.plan/free": counts(100, 50), "input_cohort.plan/pro": counts(29, 0)})
    assert measured["selection_rate", "free"].verdict is Verdict.NONE
    assert measured["selection_rate", "free"].reference == ""
    assert measured["selection_rate", "pro"].verdict is Verdict.INSUFFICIENT


def test_texts_that_mention_nobody_are_not_measured() -> None:
    assert found({"input_terms/none": counts(1000, 10), "output_terms/none": counts(1000, 0)}) == {}


def test_the_false_alarm_rate_over_all_groups_and_metrics_is_the_stated_one() -> None:
    """Five groups and the reference from one distribution: at most 5 % of 200 windows alarm, and 2 sigma."""
    dice, alarms = random.Random(5), 0
    for _ in range(200):
        groups = {}
        for name in ("none", "age", "body", "class", "gender", "religion"):
            size = 400 if name == "none" else 60
            scores = [dice.randrange(10_000) for _ in range(size)]
            blocked, flagged = (sum(dice.random() < 0.2 for _ in range(size)) for _ in range(2))
            more = {"score_sum": sum(scores), "score_square_sum": sum(s * s for s in scores), "flagged": flagged}
            groups[f"input_terms/{name}"] = counts(size, blocked, **more)
        alarms += any(each.verdict is Verdict.DISPARATE for each in found(groups, false_alarm_rate=0.05).values())
    assert alarms / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


def test_the_long_windows_trend_is_over_its_short_ones() -> None:
    minutes = tuple(
        (minute * 60_000_000, {"input_terms/age": counts(100, minute), "input_terms/none": counts(100, 0)})
        for minute in range(10)
    )
    groups = {"input_terms/age": counts(1000, 45), "input_terms/none": counts(1000, 0)}
    frame = Frame(Series("acme"), 0, HOUR, 1, groups, minutes)
    [age] = [each for each in measure(frame, Judging()) if (each.metric, each.group) == ("block_rate", "age")]
    assert age.trend is not None
    assert age.trend[0] == pytest.approx(0.6)  # a hundredth a minute


def test_moments_give_what_the_values_give() -> None:
    dice = random.Random(1)
    own, other = [dice.gauss(5, 2) for _ in range(40)], [dice.gauss(4, 1) for _ in range(60)]
    compared = compare_means((mean(own), stdev(own), 40), (mean(other), stdev(other), 60))
    whole = stats.ttest_ind(own, other, equal_var=False)
    assert compared.p_value == pytest.approx(whole.pvalue)
    assert compared.interval == pytest.approx(tuple(whole.confidence_interval()))


def test_rates_are_compared_by_fishers_exact_test() -> None:
    """Tea: 3 of 4 against 1 of 4 (Fisher 1935): two-sided p = 34/70."""
    assert compare_rates((3, 4), (1, 4)).p_value == pytest.approx(34 / 70)
    assert compare_rates((3, 4), (0, 4)).ratio is None


def test_newcombes_interval_is_that_of_his_paper() -> None:
    """Newcombe 1998, table II, method 10, contrast (a): 56/70 - 48/80 = 0.2000, interval 0.0524 to 0.3339."""
    assert newcombe(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(("successes", "trials"), [(0, 30), (15, 30), (30, 30), (1, 1000)])
def test_wilsons_interval_is_scipys(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    rejected = set()
    for rank, index in enumerate(order):
        if p_values[index] * (len(p_values) - rank) > level:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_a_slope_is_not_moved_by_one_wild_minute() -> None:
    points = [(float(hour), 2.0 * hour) for hour in range(9)] + [(9.0, 1000.0)]
    assert slope(points)[0] == pytest.approx(2.0)


def test_the_normal_quantile_is_that_of_95_percent() -> None:
    assert wilson(50, 100)[1] - wilson(50, 100)[0] == pytest.approx(
        2 * NormalDist().inv_cdf(0.975) * (0.25 / 100 + NormalDist().inv_cdf(0.975) ** 2 / 40_000) ** 0.5
        / (1 + NormalDist().inv_cdf(0.975) ** 2 / 100)
    )  # fmt: skip
