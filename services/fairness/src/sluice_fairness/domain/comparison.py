"""A group compared with the reference: difference, ratio, interval and the chance of it without a true difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from sluice_fairness.domain.intervals import newcombe

_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Compared:
    """A value less, and over, that of the reference."""

    difference: float
    interval: tuple[float, float]
    ratio: float | None
    """None where the reference's value is 0."""
    p_value: float


Sample = tuple[float, float, int]
"""Mean, standard deviation, observations."""


def compare_rates(own: tuple[int, int], reference: tuple[int, int]) -> Compared:
    """(successes, trials) against those of the reference: Newcombe's interval, Fisher's exact test (two-sided)."""
    from scipy.stats import fisher_exact

    (s, n), (t, m) = own, reference
    p_value = float(fisher_exact([[s, n - s], [t, m - t]])[1])
    return Compared(s / n - t / m, newcombe(s, n, t, m), (s / n) / (t / m) if t else None, min(1.0, p_value))


def compare_means(own: Sample, reference: Sample) -> Compared:
    """Welch's t-test from the moments, with its interval."""
    from scipy.stats import t, ttest_ind_from_stats

    (mean, deviation, n), (other, other_deviation, m) = own, reference
    ratio = mean / other if other else None
    a, b = deviation**2 / n, other_deviation**2 / m
    if a + b == 0:  # every value of a group is the same, so that any difference is one of all its texts
        return Compared(mean - other, (mean - other, mean - other), ratio, 1.0 if mean == other else 0.0)
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
    margin = float(t.ppf((1 + _LEVEL) / 2, freedom)) * sqrt(a + b)
    p_value = float(ttest_ind_from_stats(*own, *reference, equal_var=False)[1])
    return Compared(mean - other, (mean - other - margin, mean - other + margin), ratio, p_value)


def mean_interval(mean: float, deviation: float, n: int) -> tuple[float, float]:
    """Student's 95 % interval. n > 1."""
    from scipy.stats import t

    margin = float(t.ppf((1 + _LEVEL) / 2, n - 1)) * deviation / sqrt(n)
    return mean - margin, mean + margin


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Theil and Sen's slope with its 95 % interval: the median of all pairs' slopes, which one wild minute does not move."""
    from scipy.stats import theilslopes

    found = theilslopes([y for _, y in points], [x for x, _ in points], alpha=_LEVEL)
    return float(found[0]), float(found[2]), float(found[3])
