"""Two-sample tests whose chance of a false alarm is known, and measures of how large a difference is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

PERMUTATIONS = 4999
"""Smallest p-value 1/5000: enough for rates of a window; for the rate of a day see detectors/largest_bin.py."""
_RARE = 5


def histogram_test(
    window: Mapping[str, int], reference: Mapping[str, int], *, rng: np.random.Generator
) -> tuple[float, float]:
    """Pearson's chi-squared statistic of two histograms, and its permutation p-value.

    Shuffling the texts between the two samples gives a multivariate hypergeometric histogram, so the p-value is exact
    whatever the counts (chi-squared tables are not, for rare bins). p = (1 + #{as large}) / (1 + permutations), never
    zero and never too small: Phipson & Smyth, "Permutation p-values should never be zero" (2010).
    """
    bins = common_bins(window, reference)
    if len(bins) < 2:
        return 0.0, 1.0
    observed = np.array([pair[0] for pair in bins])
    pooled = observed + np.array([pair[1] for pair in bins])
    statistic = _chi_squared(observed[None, :], pooled)[0]
    shuffled = rng.multivariate_hypergeometric(pooled, int(observed.sum()), size=PERMUTATIONS, method="marginals")
    # The tiny slack counts shuffles that equal the observation as "as large", whatever the rounding.
    larger = np.count_nonzero(_chi_squared(shuffled, pooled) >= statistic * (1 - 1e-9))
    return float(statistic), (1 + larger) / (1 + PERMUTATIONS)


def common_bins(window: Mapping[str, int], reference: Mapping[str, int]) -> list[tuple[int, int]]:
    """Counts by bin; bins with fewer than five texts in all are one bin, so that many rare ones cannot add up."""
    pairs = [(window.get(name, 0), reference.get(name, 0)) for name in sorted({*window, *reference})]
    common = [pair for pair in pairs if sum(pair) >= _RARE]
    rare = [pair for pair in pairs if 0 < sum(pair) < _RARE]
    return common + ([(sum(p[0] for p in rare), sum(p[1] for p in rare))] if rare else [])


def _chi_squared(samples: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Statistic of each row of samples, shape (k, bins), against the rest of the pool."""
    total, size = pooled.sum(), samples[0].sum()
    expected = pooled * (size / total)
    rest = pooled * ((total - size) / total)
    return (((samples - expected) ** 2) * (1 / expected + 1 / rest)).sum(axis=1)


def mean_shift_spectrum(reference: np.ndarray) -> np.ndarray:
    """Weights of the law of the mean shift without drift, from a reference of shape (m, d).

    For samples of n and m vectors with covariance S, n m / (n + m) |mean - mean'|^2 tends to sum(l_i z_i^2) with l_i the
    eigenvalues of S and z_i standard normal: the null of MMD with the linear kernel (Gretton et al., "A fast,
    consistent kernel two-sample test", 2009). detectors/weighted_chi_squares.py gives its tail.
    """
    spectrum: np.ndarray = np.clip(np.linalg.eigvalsh(np.cov(reference, rowvar=False)), 0, None)
    return spectrum


def mean_shift(window_mean: np.ndarray, window_size: int, reference_mean: np.ndarray, reference_size: int) -> float:
    """How far the means are apart, in units that do not grow with the samples when nothing drifts."""
    scale = window_size * reference_size / (window_size + reference_size)
    return float(scale * np.sum((window_mean - reference_mean) ** 2))


def holm(p_values: Sequence[float], *, rate: float) -> list[bool]:
    """Which tests reject so that the chance of *any* false one is at most `rate` (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > rate / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def population_stability_index(window: Mapping[str, int], reference: Mapping[str, int]) -> float:
    """PSI in nats; half a text is added to every bin, because an empty bin would make it infinite."""
    bins = sorted({*window, *reference})
    p = _shares(window, bins, smoothing=0.5)
    q = _shares(reference, bins, smoothing=0.5)
    return float(np.sum((p - q) * np.log(p / q)))


def jensen_shannon_divergence(window: Mapping[str, int], reference: Mapping[str, int]) -> float:
    """Divergence to base 2: 0 (equal) to 1 (nothing in common)."""
    bins = sorted({*window, *reference})
    p, q = _shares(window, bins), _shares(reference, bins)
    middle = (p + q) / 2
    return float(np.clip((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2, 0, 1))


def largest_change(window: Mapping[str, int], reference: Mapping[str, int]) -> str:
    """The bin whose share moved most."""
    bins = sorted({*window, *reference})
    moved = np.abs(_shares(window, bins) - _shares(reference, bins))
    return bins[int(np.argmax(moved))] if bins else ""


def _shares(counts: Mapping[str, int], bins: Sequence[str], *, smoothing: float = 0.0) -> np.ndarray:
    values = np.array([counts.get(name, 0) + smoothing for name in bins], dtype=np.float64)
    return values / max(values.sum(), math.ulp(1.0))


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    present = p > 0
    return float(np.sum(p[present] * np.log2(p[present] / q[present])))
