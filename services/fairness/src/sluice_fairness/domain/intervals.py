"""Intervals and the correction for many tests, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

Z95 = 1.959963984540054


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927). trials > 0."""
    share, squared = successes / trials, Z95 * Z95
    centre = share + squared / (2 * trials)
    margin = Z95 * sqrt(share * (1 - share) / trials + squared / (4 * trials * trials))
    scale = 1 + squared / trials
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


def newcombe(successes: int, trials: int, other_successes: int, other_trials: int) -> tuple[float, float]:
    """The 95 % interval of a difference of two proportions from their score intervals (Newcombe 1998, method 10)."""
    p, q = successes / trials, other_successes / other_trials
    (p_low, p_high), (q_low, q_high) = wilson(successes, trials), wilson(other_successes, other_trials)
    below = sqrt((p - p_low) ** 2 + (q_high - q) ** 2)
    above = sqrt((p_high - p) ** 2 + (q - q_low) ** 2)
    return p - q - below, p - q + above


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: below alpha for any true null with a chance of at most alpha, whatever their dependence (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
