"""The detectors' p-values are neither too small nor useless, also far out in the tail."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_drift.domain.detectors.budget import rate_of_a_window
from sluice_drift.domain.detectors.largest_bin import largest_bin_test
from sluice_drift.domain.detectors.weighted_chi_squares import upper_tail
from sluice_drift.domain.observation import Profile, pack_embedding
from sluice_drift.domain.pooled import pool
from sluice_drift.domain.sample import TextSample
from sluice_drift.settings import DriftSettings

SHARES = (0.6, 0.2, 0.1, 0.06, 0.03, 0.01)
COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 300), max_size=6)


def histograms(rng: np.random.Generator) -> tuple[dict[str, int], dict[str, int]]:
    """A window of 60 and a reference of 200 texts of the same law."""
    return tuple(dict(zip("abcdef", rng.multinomial(n, SHARES).tolist(), strict=True)) for n in (60, 200))  # type: ignore[return-value]


def test_the_largest_bin_is_as_rarely_significant_as_it_says() -> None:
    rng = np.random.default_rng(5)
    p_values = np.array([largest_bin_test(*histograms(rng))[1] for _ in range(4000)])
    for rate in (0.1, 0.01, 0.002):
        share = (p_values <= rate).mean()
        assert share <= rate + 3 * np.sqrt(rate / 4000), rate
    assert (p_values <= 0.1).mean() > 0.03, "so careful that it would find nothing"


def test_two_bins_give_fishers_exact_p_value() -> None:
    """By hand: the chance of 9 or 10 of 10 in the window, of 12 `a` among 30, twice for the other side."""
    tail = sum(comb(12, k) * comb(18, 10 - k) for k in (9, 10)) / comb(30, 10)
    assert largest_bin_test({"a": 9, "b": 1}, {"a": 3, "b": 17})[1] == pytest.approx(2 * tail, rel=1e-9)


@given(window=COUNTS, reference=COUNTS)
@settings(max_examples=150, deadline=None)
def test_any_histograms_give_a_p_value_whatever_the_names(window: dict[str, int], reference: dict[str, int]) -> None:
    moved, p_value = largest_bin_test(window, reference)
    assert 0 <= p_value <= 1 and 0 <= moved <= 1
    renamed = [{f"x{name}": count for name, count in each.items()} for each in (window, reference)]
    assert largest_bin_test(*renamed)[1] == pytest.approx(p_value, rel=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_tail_of_weighted_chi_squares_is_that_of_draws(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(40, 0.3))
    draws = np.zeros(200_000)
    for weight in weights:
        draws += weight * rng.standard_normal(len(draws)) ** 2
    for quantile in (0.02, 0.3, 0.5, 0.9, 0.99, 0.999):
        found = upper_tail(weights, float(np.quantile(draws, quantile)))
        error = 4 * np.sqrt(quantile * (1 - quantile) / len(draws))
        assert found == pytest.approx(1 - quantile, abs=error + 0.06 * (1 - quantile)), quantile


def test_the_tail_is_right_where_no_draws_reach() -> None:
    """With two equal weights it is exp(-x / 2 w): known at any depth."""
    for depth in (1e-3, 1e-6, 1e-12):
        assert upper_tail(np.array([0.5, 0.5]), -float(np.log(depth))) == pytest.approx(depth, rel=0.08)


@given(
    weights=st.lists(st.floats(1e-6, 10), min_size=1, max_size=20),
    values=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=2, unique=True),
)
@settings(max_examples=150, deadline=None)
def test_a_larger_shift_is_never_more_probable(weights: list[float], values: list[float]) -> None:
    low, high = (upper_tail(np.array(weights), value) for value in sorted(values))
    assert 0 < high <= low * 1.01 <= 1.02


def test_nothing_that_varies_gives_no_alarm() -> None:
    assert upper_tail(np.zeros(4), 1.0) == 1.0
    assert largest_bin_test({"en": 50}, {"en": 200}) == (0.0, 1.0)


@given(
    st.lists(st.tuples(st.sampled_from(["en", "de"]), st.integers(0, 99), st.floats(-1, 1)), max_size=30),
    st.integers(0, 30),
)
@settings(max_examples=80, deadline=None)
def test_windows_pooled_are_the_window_of_all_texts(texts: list[tuple[str, int, float]], cut: int) -> None:
    profiles = [Profile(language, words, pack_embedding([x, 0.5])) for language, words, x in texts]
    parts = [TextSample(), TextSample(), TextSample()]
    for number, profile in enumerate(profiles):
        parts[number < cut].add(profile)
        parts[2].add(profile)
    assert pool(parts[:2]) == parts[2]


def test_a_days_budget_is_spent_on_the_windows_of_a_day() -> None:
    assert rate_of_a_window(0.01, window_seconds=300) == pytest.approx(0.01 / 288)
    assert rate_of_a_window(0.01, window_seconds=86_400) == 0.01
    settings_of_a_day = DriftSettings(daily_false_alarm_rate=0.05, window_seconds=60)
    assert settings_of_a_day.detection().false_alarm_rate == pytest.approx(0.05 / 1440)
    assert DriftSettings().detection().false_alarm_rate == 0.01
