"""How well scores tell two sorts of texts apart, and whether they are probabilities."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def auc(scores: Floats, positive: Bools) -> float:
    """Area under the ROC curve: how often a positive scores higher than a negative, ties half (Mann and Whitney 1947)."""
    high, low = scores[positive], np.sort(scores[~positive])
    if not len(high) or not len(low):
        return float("nan")
    below = np.searchsorted(low, high, side="left")
    not_above = np.searchsorted(low, high, side="right")
    return float((below + not_above).sum() / (2 * len(high) * len(low)))


def auc_interval(scores: Floats, positive: Bools, *, seed: int = 0, draws: int = 400) -> tuple[float, float]:
    """95 % percentile bootstrap, positives and negatives drawn apart."""
    chance, high, low = np.random.default_rng(seed), scores[positive], scores[~positive]
    if not len(high) or not len(low):
        return float("nan"), float("nan")
    values = []
    for _ in range(draws):
        drawn = np.concatenate([chance.choice(high, len(high)), chance.choice(low, len(low))])
        values.append(auc(drawn, np.arange(len(drawn)) < len(high)))
    a, b = np.percentile(values, [2.5, 97.5])
    return float(a), float(b)


def reliability(scores: Floats, positive: Bools, *, bins: int = 10) -> list[tuple[float, float, int, float, float]]:
    """By equal bins of the score: (from, to, texts, mean score, share of positives); empty bins are left out."""
    at = np.minimum((scores * bins).astype(int), bins - 1)
    rows = []
    for number in range(bins):
        inside = at == number
        if inside.any():
            rows.append(
                (
                    number / bins,
                    (number + 1) / bins,
                    int(inside.sum()),
                    float(scores[inside].mean()),
                    float(positive[inside].mean()),
                )
            )
    return rows


def calibration_error(scores: Floats, positive: Bools, *, bins: int = 10) -> float:
    """Expected calibration error: mean distance of score and share over the bins, weighed by texts (Naeini et al. 2015)."""
    rows = reliability(scores, positive, bins=bins)
    total = sum(count for _, _, count, _, _ in rows)
    return sum(count * abs(mean - share) for _, _, count, mean, share in rows) / total if total else float("nan")
