"""Whether any single bin of a histogram moved: an exact test without shuffles, for rates that shuffles cannot reach."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from sluice_drift.domain.statistics import common_bins


def largest_bin_test(window: Mapping[str, int], reference: Mapping[str, int]) -> tuple[float, float]:
    """The share that the bin which moved most gained or lost, and the p-value of any bin's moving.

    Given the pool, the count of one bin in the window is hypergeometric (Fisher's exact test); Bonferroni over bins. So the
    p-value is never too small whatever the counts, and as small as the counts allow: 4,999 shuffles end at 1/5000.
    """
    pairs = common_bins(window, reference)
    size, total = sum(pair[0] for pair in pairs), sum(sum(pair) for pair in pairs)
    if len(pairs) < 2 or size in (0, total):
        return 0.0, 1.0
    smallest = min(_two_sided(pair[0], sum(pair), size, total) for pair in pairs)
    bins = len(pairs) if len(pairs) > 2 else 1  # of two bins each says what the other says
    moved = max(abs(pair[0] / size - pair[1] / (total - size)) for pair in pairs)
    return moved, min(1.0, bins * smallest)


def _two_sided(count: int, successes: int, size: int, total: int) -> float:
    """Twice the smaller tail of a hypergeometric law at `count`."""
    low, high = max(0, size - (total - successes)), min(size, successes)
    values = np.arange(low, high + 1)
    logs = _log_choose(successes, values) + _log_choose(total - successes, size - values)
    mass = np.exp(logs - _log_choose(total, np.array([size]))[0])
    at = count - low
    return float(min(1.0, 2 * min(mass[: at + 1].sum(), mass[at:].sum())))


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    table = _log_factorials(1 << max(int(n), 1).bit_length())
    return table[n] - table[k] - table[n - k]


@lru_cache(maxsize=32)
def _log_factorials(size: int) -> np.ndarray:
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, size + 1, dtype=np.float64)))))
