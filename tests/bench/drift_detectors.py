"""Numbers of every detector for one window, and the rules that make alarms of them."""

from __future__ import annotations

from math import erfc

import numpy as np
from drift_streams import REFERENCE, SERIES, Population
from scipy.stats import ks_2samp
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold
from sluice_drift.domain import statistics
from sluice_drift.domain.detectors.largest_bin import largest_bin_test
from sluice_drift.domain.detectors.weighted_chi_squares import upper_tail
from sluice_drift.domain.pooled import pool
from sluice_drift.domain.reference import Reference, embedding_matrix
from sluice_drift.domain.sample import TextSample
from sluice_drift.domain.window import DriftWindow

POOLED = 6
"""Windows pooled: as many as the service remembers (30 minutes)."""
SIDES = ("prompt", "answer")
_SHUFFLES = 499


class Measured:
    """One stream's reference, and what each window says against it."""

    def __init__(self, population: Population, drawn: np.ndarray, *, seed: int) -> None:
        self._population, self._rng = population, np.random.default_rng(seed)
        self._vectors = population.matrix
        self._drawn = drawn
        self.reference = Reference(SERIES, 0)
        for each in population.observations(drawn, 0):
            self.reference.add(each, size=len(drawn))
        matrices = {s: embedding_matrix(getattr(self.reference, f"{s}_embeddings")) for s in SIDES}
        self._spectra = {s: statistics.mean_shift_spectrum(m) for s, m in matrices.items()}
        self._recent: list[DriftWindow] = []

    def window(self, drawn: np.ndarray, *, shuffled: bool = True, dear: bool = False) -> dict[str, list[float]]:
        """Everything about a window; `shuffled` adds permutation tests, `dear` the detectors that need the single texts."""
        window = DriftWindow(SERIES, len(self._recent), 1, 0)
        for each in self._population.observations(drawn, REFERENCE * 1000):
            window.merge(self.reference.placed(each), collected=False, reference_version=1)
        self._recent = [*self._recent, window][-POOLED:]
        names = ["bin", "mean", "psi", "js", "pool_bin", "pool_mean"] + ["chi", "topic", "pool_chi"] * shuffled
        found: dict[str, list[float]] = {name: [] for name in names}
        for side in SIDES:
            self._cheap(found, side, getattr(window, side), shuffled=shuffled)
            together = pool([getattr(each, side) for each in self._recent])
            base = getattr(self.reference, side)
            for kind in ("languages", "words"):
                pair = getattr(together, kind), getattr(base, kind)
                found["pool_bin"].append(largest_bin_test(*pair)[1])
                if shuffled:
                    found["pool_chi"].append(statistics.histogram_test(*pair, rng=self._rng)[1])
            found["pool_mean"].append(upper_tail(self._spectra[side], _shift(together, base)))
        if dear:
            self._dear(found, drawn)
        return found

    def _cheap(self, found: dict[str, list[float]], side: str, sample: TextSample, *, shuffled: bool) -> None:
        base = getattr(self.reference, side)
        for kind in ("languages", "words"):
            pair = getattr(sample, kind), getattr(base, kind)
            if shuffled:
                found["chi"].append(statistics.histogram_test(*pair, rng=self._rng)[1])
            found["bin"].append(largest_bin_test(*pair)[1])
            found["psi"].append(statistics.population_stability_index(*pair))
            found["js"].append(statistics.jensen_shannon_divergence(*pair))
        if shuffled:
            pair = sample.histogram("topic"), base.histogram("topic")
            found["topic"].append(statistics.histogram_test(*pair, rng=self._rng)[1])
        value = _shift(sample, base)
        found["mean"].append(upper_tail(self._spectra[side], value))

    def _dear(self, found: dict[str, list[float]], drawn: np.ndarray) -> None:
        words = self._population.words
        found["ks"] = [float(ks_2samp(words[drawn[:, k]], words[self._drawn[:, k]]).pvalue) for k in (0, 1)]
        found["rbf"] = [_rbf(self._vectors[drawn[:, k]], self._vectors[self._drawn[:, k]], self._rng) for k in (0, 1)]
        found["c2st"] = [_classifier(self._both(drawn), self._both(self._drawn), self._rng)]

    def _both(self, drawn: np.ndarray) -> np.ndarray:
        return np.concatenate([self._vectors[drawn[:, 0]], self._vectors[drawn[:, 1]]], axis=1)


def _shift(sample: TextSample, base: TextSample) -> float:
    return statistics.mean_shift(sample.mean_embedding(), sample.embedded, base.mean_embedding(), base.embedded)


def _rbf(window: np.ndarray, base: np.ndarray, rng: np.random.Generator) -> float:
    """MMD with a Gaussian kernel of the median distance, by permutation."""
    pooled, n = np.concatenate([window, base]), len(window)
    squared = np.maximum(2 - 2 * pooled @ pooled.T, 0)
    kernel = np.exp(-squared / np.median(squared[squared > 1e-9]))
    np.fill_diagonal(kernel, 0)
    signs = np.full((_SHUFFLES + 1, len(pooled)), -1 / len(base))
    for row in signs:
        row[:n] = 1 / n
    signs[1:] = rng.permuted(signs[1:], axis=1)
    values = np.einsum("ij,ij->i", signs @ kernel, signs)
    return float((values >= values[0] - 1e-12).sum() / (_SHUFFLES + 1))


def _classifier(window: np.ndarray, base: np.ndarray, rng: np.random.Generator) -> float:
    """Classifier two-sample test: does a shrunk linear discriminant, cross-fitted, score the window higher? Rank-sum p-value."""
    x, y = np.concatenate([window, base]), np.repeat([1, 0], [len(window), len(base)])
    folds = StratifiedKFold(2, shuffle=True, random_state=int(rng.integers(2**31)))
    z = 0.0
    for train, test in folds.split(x, y):
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(x[train], y[train])
        scores = model.decision_function(x[test])
        ranks = scores.argsort().argsort() + 1
        n, m = int(y[test].sum()), int((1 - y[test]).sum())
        z += (ranks[y[test] == 1].sum() - n * (n + m + 1) / 2) / np.sqrt(n * m * (n + m + 1) / 12)
    return 0.5 * erfc(z / np.sqrt(2) / np.sqrt(2))


def holm(rows: np.ndarray, rate: float) -> np.ndarray:
    """Which rows of p-values, shape (windows, tests), alarm: Holm rejects any when Bonferroni does."""
    return rows.min(axis=1) <= rate / rows.shape[1]


def k_of(alarms: np.ndarray, k: int, n: int) -> np.ndarray:
    """An alarm when k of the last n windows alarmed."""
    counts = np.convolve(alarms.astype(int), np.ones(n, int))[: len(alarms)]
    return counts >= k


def decide(found: dict[str, np.ndarray], *, day: int) -> dict[str, np.ndarray]:
    """Alarms of every rule over a stream's windows; rules whose numbers are not there are left out."""
    join = np.hstack
    single, pooled = join([found["bin"], found["mean"]]), join([found["pool_bin"], found["pool_mean"]])
    rules = {}
    if "chi" in found:
        now = holm(join([found["chi"], found["mean"]]), 0.01)
        rules["chi-squared + mean shift, 1 % a window"] = now
        rules["the same with topics, 1 % a window"] = holm(join([found["chi"], found["mean"], found["topic"]]), 0.01)
        rules["topics alone, 1 % a window"] = holm(found["topic"], 0.01)
        rules["chi-squared + mean shift, 3 of the last 4 windows"] = k_of(now, 3, 4)
        rules["chi-squared + mean shift of 6 pooled windows, 1 %"] = holm(
            join([found["pool_chi"], found["pool_mean"]]), 0.01
        )
    rules["largest bin + mean shift, 1 % a window"] = holm(single, 0.01)
    for percent in (1, 5):
        rules[f"largest bin + mean shift, {percent} % a day"] = holm(single, percent / 100 / day)
        rules[f"one and 6 pooled windows, {percent} % a day"] = holm(join([single, pooled]), percent / 100 / day)
    rules["PSI > 0.2 in any histogram"] = (found["psi"] > 0.2).any(axis=1)
    rules["JS > 0.1 in any histogram"] = (found["js"] > 0.1).any(axis=1)
    rules["mean shift alone, 1 % a window"] = holm(found["mean"], 0.01)
    if "ks" in found:
        rules["KS of lengths, 1 % a window"] = holm(found["ks"], 0.01)
        rules["MMD with Gaussian kernel, 1 % a window"] = holm(found["rbf"], 0.01)
        if "topic" in found:
            both = holm(found["topic"], 0.005) | holm(found["rbf"], 0.005)
            rules["topics + MMD with Gaussian kernel, 1 % a window (half each)"] = both
        rules["classifier two-sample test, 1 % a window"] = holm(found["c2st"], 0.01)
    return rules
