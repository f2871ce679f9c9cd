"""A window against its reference: one verdict a feature, one for all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b

import numpy as np

from sluice_drift.domain import statistics
from sluice_drift.domain.detectors.largest_bin import largest_bin_test
from sluice_drift.domain.detectors.weighted_chi_squares import upper_tail
from sluice_drift.domain.pooled import pool
from sluice_drift.domain.reference import Reference, embedding_matrix
from sluice_drift.domain.sample import TextSample
from sluice_drift.domain.trailing import ALWAYS_PINNED, Span, TrailingRules
from sluice_drift.domain.window import DriftWindow


class Verdict(StrEnum):
    """What a test says."""

    INSUFFICIENT = "insufficient"
    STABLE = "stable"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How drift is decided."""

    false_alarm_rate: float = 0.01
    """Chance that a window without drift is called drifted, all features together."""
    minimum_observations: int = 30
    """Fewer in the window: insufficient."""

    @property
    def beyond_shuffles(self) -> bool:
        """True when a test must reach p-values that shuffles cannot (their smallest is 1/5000), as with the rate of a day."""
        return self.false_alarm_rate < _MOST_TESTS / (1 + statistics.PERMUTATIONS)


_MOST_TESTS = 20
"""Tests of one window at most; each must be able to alarm by itself at rate / tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """How one feature differs. p_value is None where there were too few observations."""

    name: str
    statistic: str
    observations: int
    reference_observations: int
    value: float = 0.0
    p_value: float | None = None
    verdict: Verdict = Verdict.INSUFFICIENT
    stability_index: float | None = None
    divergence: float | None = None
    bins: tuple[tuple[str, int, int], ...] = ()
    """(name, count in the window, count in the reference)."""
    largest_change: str = ""
    trailing: int = 0
    """Windows before that it is compared with; 0: the pinned reference."""
    gap: int = 0
    """Windows between it and the newest of these."""
    base: TextSample | None = None
    """What it is compared with."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The features by p-value, and the verdict on all."""

    verdict: Verdict
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True)
class _Bases:
    """What a window may be compared with."""

    window: DriftWindow
    reference: Reference
    before: Sequence[DriftWindow]

    _pooled: dict[tuple[str, Span], TextSample] = field(default_factory=dict)

    def of(self, side: str, span: Span) -> TextSample:
        """Texts of the windows before that are of the same version, or the reference's where there are none to be."""
        if not span.windows:
            found: TextSample = getattr(self.reference, side)
            return found
        if (side, span) not in self._pooled:
            self._pooled[side, span] = self._pool(side, span)
        return self._pooled[side, span]

    def _pool(self, side: str, span: Span) -> TextSample:
        newest, oldest = (self.window.start - number * self.window.length for number in (span.nearest, span.furthest))
        near = (each for each in self.before if oldest <= each.start <= newest)
        return pool(getattr(each, side) for each in near if each.reference_version == self.window.reference_version)


class Comparer:
    """Compares windows with references. Keeps the spectra of the references met last."""

    _KEPT = 256

    def __init__(self, detection: Detection, trailing: TrailingRules = ALWAYS_PINNED) -> None:
        self._detection, self._trailing = detection, trailing
        self._spectra: OrderedDict[tuple[str, int, str], np.ndarray] = OrderedDict()

    def compare(self, window: DriftWindow, reference: Reference, before: Sequence[DriftWindow] = ()) -> Comparison:
        """Compare with the reference, or with the windows before where the rules say so (newest first).

        The same arguments give the same numbers: shuffles are seeded by the window's key.
        """
        if window.reference_version != reference.version:
            return Comparison(Verdict.INSUFFICIENT, ())
        bases = _Bases(window, reference, before)
        return self._judge([feature for side in ("prompt", "answer", "request") for feature in self._of(side, bases)])

    def _of(self, side: str, bases: _Bases) -> Iterable[Feature]:
        window, sample = bases.window, getattr(bases.window, side)
        for name in self._histograms_of(side, sample):
            span = self._trailing.span(window.series, f"{side}.{name}")
            base = bases.of(side, span)
            pair = sample.histogram(name), base.histogram(name)
            ready = bool(span.windows or bases.reference.is_ready(side)) and self._are_enough(*pair)
            yield _against(span, base, self._histogram(f"{side}.{name}", *pair, window, ready))
        if side != "request":
            span = self._trailing.span(window.series, f"{side}.embedding")
            base = bases.of(side, span)
            yield _against(span, base, self._embedding(side, sample, base, bases.reference))

    @staticmethod
    def _histograms_of(side: str, sample: TextSample) -> list[str]:
        """What every text has, and what is known of some text of the window."""
        return ([] if side == "request" else ["language", "words"]) + sorted(sample.facts)

    def _are_enough(self, window: Mapping[str, int], base: Mapping[str, int]) -> bool:
        return sum(window.values()) >= self._detection.minimum_observations <= sum(base.values())

    def _histogram(
        self, name: str, window: Mapping[str, int], base: Mapping[str, int], owner: DriftWindow, ready: bool
    ) -> Feature:
        bins = tuple((each, window.get(each, 0), base.get(each, 0)) for each in sorted({*window, *base}))
        feature = Feature(
            name=name,
            statistic="chi_squared",
            observations=sum(window.values()),
            reference_observations=sum(base.values()),
            bins=bins,
        )
        if not ready:
            return feature
        if self._detection.beyond_shuffles:
            feature = replace(feature, statistic="largest_bin")
            value, p_value = largest_bin_test(window, base)
        else:
            value, p_value = statistics.histogram_test(window, base, rng=np.random.default_rng(_seed(owner.key, name)))
        return replace(
            feature,
            value=value,
            p_value=p_value,
            stability_index=statistics.population_stability_index(window, base),
            divergence=statistics.jensen_shannon_divergence(window, base),
            largest_change=statistics.largest_change(window, base),
        )

    def _embedding(self, side: str, sample: TextSample, base: TextSample, reference: Reference) -> Feature:
        feature = Feature(
            name=f"{side}.embedding",
            statistic="mean_shift",
            observations=sample.embedded,
            reference_observations=base.embedded,
        )
        enough = self._detection.minimum_observations
        if not reference.pinned or sample.embedded < enough or base.embedded < enough:
            return feature
        if len(sample.embedding_sum) != len(base.embedding_sum):
            return feature
        value = statistics.mean_shift(sample.mean_embedding(), sample.embedded, base.mean_embedding(), base.embedded)
        p_value = upper_tail(self._spectrum(side, reference), value)
        return replace(feature, value=value, p_value=p_value)

    def _spectrum(self, side: str, reference: Reference) -> np.ndarray:
        key = (reference.key, reference.version, side)
        if key not in self._spectra:
            matrix = embedding_matrix(getattr(reference, f"{side}_embeddings"))
            self._spectra[key] = statistics.mean_shift_spectrum(matrix)
        self._spectra.move_to_end(key)
        while len(self._spectra) > self._KEPT:
            self._spectra.popitem(last=False)
        return self._spectra[key]

    def _judge(self, features: list[Feature]) -> Comparison:
        tested = [feature for feature in features if feature.p_value is not None]
        rejected = statistics.holm([f.p_value or 0.0 for f in tested], rate=self._detection.false_alarm_rate)
        judged = [
            replace(feature, verdict=Verdict.DRIFTED if drifted else Verdict.STABLE)
            for feature, drifted in zip(tested, rejected, strict=True)
        ]
        judged.sort(key=lambda feature: feature.p_value or 0.0)
        rest = tuple(feature for feature in features if feature.p_value is None)
        if not judged:
            return Comparison(Verdict.INSUFFICIENT, rest)
        return Comparison(Verdict.DRIFTED if any(rejected) else Verdict.STABLE, (*judged, *rest))


def _against(span: Span, base: TextSample, feature: Feature) -> Feature:
    return replace(feature, trailing=span.windows, gap=span.nearest - 1, base=base)


def _seed(*parts: str) -> int:
    return int.from_bytes(blake2b("|".join(parts).encode(), digest_size=8).digest(), "big")
