"""Tail of a weighted sum of chi-squares: the law of the mean shift without drift, far beyond what draws reach."""

from __future__ import annotations

import math

import numpy as np


def upper_tail(weights: np.ndarray, value: float) -> float:
    """Chance that sum(weights * z^2), z independent standard normal, is at least `value`; weights >= 0, shape (d,).

    Lugannani and Rice's saddlepoint approximation (Kuonen, "Saddlepoint approximations for distributions of quadratic
    forms in normal variables", 1999): its error is relative, a few per cent at any depth.
    """
    weights = weights[weights > 1e-12 * max(float(weights.max(initial=0.0)), 1e-300)]
    if value <= 0 or not len(weights):
        return 1.0
    scaled, x = weights / weights.sum(), value / float(weights.sum())
    point = _saddlepoint(scaled, x)
    rest = 1 - 2 * point * scaled
    cumulant = -0.5 * float(np.log(rest).sum())
    depth = math.copysign(math.sqrt(max(2 * (point * x - cumulant), 0.0)), point)
    if abs(depth) < 1e-3:  # the formula is 0/0 at the mean: its limit there
        spread = 2 * float((scaled**2).sum())
        skewness = 8 * float((scaled**3).sum()) / spread**1.5
        return 0.5 - skewness / (6 * math.sqrt(2 * math.pi))
    slope = point * math.sqrt(2 * float(((scaled / rest) ** 2).sum()))
    corrected = depth + math.log(slope / depth) / depth
    return min(1.0, max(0.5 * math.erfc(corrected / math.sqrt(2)), 5e-324))


def _saddlepoint(weights: np.ndarray, x: float) -> float:
    """Where the cumulant generating function's slope is x, by bisection: the slope rises from 0 to infinity."""
    largest = float(weights.max())
    high = (1 - 1e-12) / (2 * largest)
    low = -1.0
    while float((weights / (1 - 2 * low * weights)).sum()) > x:
        low *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if float((weights / (1 - 2 * middle * weights)).sum()) < x else (low, middle)
    return (low + high) / 2
