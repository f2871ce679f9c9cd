"""Which slice of the observations explains that a feature changed, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sluice_drift.domain.comparison import Comparison, Feature, Verdict
from sluice_drift.domain.reference import Reference
from sluice_drift.domain.sample import Counts, TextSample
from sluice_drift.domain.window import DriftWindow

DIMENSIONS_TOLD = 2
SMALLEST_SHARE = 0.01
LEAST_EXPLAINED = 0.1
"""A dimension whose slices changed alike explains nothing; less than this is noise."""
REST = "(rest)"

_THE_SAME = {("language", "language"), ("tools", "finish_reason"), ("outcome", "finish_reason")}
"""A language is no reason for a change of languages."""

Vector = Callable[[Counts], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One slice's part in the change of one feature. `mix + within` of all slices of a dimension add up to 1."""

    feature: str
    dimension: str
    slice: str
    mix: float
    within: float
    window_share: float
    reference_share: float
    explained: float = 0.0

    @property
    def share(self) -> float:
        """Its part of the whole change."""
        return self.mix + self.within


def causes_of(window: DriftWindow, reference: Reference, comparison: Comparison) -> tuple[Cause, ...]:
    """Causes of all drifted features, in their order."""
    drifted = [each for each in comparison.features if each.verdict is Verdict.DRIFTED]
    return tuple(cause for feature in drifted for cause in _of_feature(feature, window, reference))


def _of_feature(feature: Feature, window: DriftWindow, reference: Reference) -> Iterable[Cause]:
    side, _, what = feature.name.partition(".")
    sample, base = getattr(window, side, None), feature.base or getattr(reference, side, None)
    if not isinstance(sample, TextSample) or not isinstance(base, TextSample):
        return ()
    vector = _vector(what, sample, base)
    if vector is None:
        return ()
    found = []
    for dimension in sample.slices.keys() & base.slices.keys():
        if (what, dimension) in _THE_SAME or not _is_whole(sample, dimension) or not _is_whole(base, dimension):
            continue  # a reference of an earlier release has no slices
        found.append(decompose(feature.name, dimension, sample, base, vector))
    told = [each for each in found if each and each[0].explained >= LEAST_EXPLAINED]
    told.sort(key=lambda causes: (-causes[0].explained, causes[0].dimension))
    return [cause for causes in told[:DIMENSIONS_TOLD] for cause in _named(causes)]


def _is_whole(sample: TextSample, dimension: str) -> bool:
    return sum(each.observations for each in sample.slices[dimension].values()) == sample.observations


def _vector(what: str, sample: Counts, base: Counts) -> Vector | None:
    """How counts are seen as a vector in which squared distance is the size of the change: the mean embedding, or shares of
    bins scaled as in the symmetric chi-squared distance (in second order, eight times the Jensen-Shannon divergence in nats).
    """
    if what == "embedding":
        length = len(sample.embedding_sum)
        if not length or length != len(base.embedding_sum):
            return None
        return lambda counts: counts.mean_embedding() if len(counts.embedding_sum) == length else np.zeros(length // 8)
    bins = sorted({*sample.histogram(what), *base.histogram(what)})
    if not bins:
        return None
    scale = 1 / np.sqrt((_shares(sample.histogram(what), bins) + _shares(base.histogram(what), bins)) / 2)
    return lambda counts: _shares(counts.histogram(what), bins) * scale


def _shares(counts: Mapping[str, int], bins: Sequence[str]) -> np.ndarray:
    values = np.array([counts.get(name, 0) for name in bins], dtype=np.float64)
    return values / max(values.sum(), 1.0)


def decompose(feature: str, dimension: str, sample: TextSample, base: TextSample, vector: Vector) -> list[Cause]:
    """The change D = p - q as a sum over slices, each projected on D; largest share first.

    With w and r the shares of a slice in window and reference, p_s and q_s its means:
    D = sum (w - r) ((p_s + q_s) / 2 - q) + (w + r) / 2 (p_s - q_s). The first part is the mix (measured from q, so that a
    slice that is as the reference was explains nothing by growing), the second the change within the slice. A slice that
    only one of the two has is mix alone. Dividing <part, D> by <D, D> gives shares that add up to 1.
    """
    now, before = sample.slices[dimension], base.slices[dimension]
    weigh = _sizes(feature, sample), _sizes(feature, base)
    middle = vector(base)
    change = vector(sample) - middle
    length = float(change @ change)
    if length == 0.0 or not weigh[0] or not weigh[1]:
        return []
    causes = []
    for name in sorted({*now, *before}):
        w = _sizes(feature, now.get(name, Counts())) / weigh[0]
        r = _sizes(feature, before.get(name, Counts())) / weigh[1]
        if not w and not r:
            continue
        p = vector(now[name] if w else before[name])
        q = vector(before[name] if r else now[name])
        mix = float(((w - r) * ((p + q) / 2 - middle)) @ change) / length
        within = float(((w + r) / 2 * (p - q)) @ change) / length
        causes.append(
            Cause(
                feature=feature,
                dimension=dimension,
                slice=name,
                mix=mix,
                within=within,
                window_share=w,
                reference_share=r,
            )
        )
    explained = _explained(causes)
    causes.sort(key=lambda cause: (-cause.share, cause.slice))
    return [replace(cause, explained=explained) for cause in causes]


def _sizes(feature: str, counts: Counts) -> int:
    """Texts of which the feature is known."""
    what = feature.partition(".")[2]
    return counts.embedded if what == "embedding" else sum(counts.histogram(what).values())


def _explained(causes: Sequence[Cause]) -> float:
    """0 when every slice changed by its own weight, as all of them do when the cause lies elsewhere; 1 when the mix is all."""
    mix = sum(cause.mix for cause in causes)
    within = sum(cause.within for cause in causes)
    uneven = sum(max(0.0, cause.within - within * (cause.window_share + cause.reference_share) / 2) for cause in causes)
    return min(1.0, max(0.0, mix + uneven))


def _named(causes: Sequence[Cause]) -> list[Cause]:
    """Small ones together, so that the shares still add up."""
    small = [cause for cause in causes if abs(cause.share) < SMALLEST_SHARE]
    if len(small) < 2:
        return list(causes)
    rest = replace(
        small[0],
        slice=REST,
        mix=sum(cause.mix for cause in small),
        within=sum(cause.within for cause in small),
        window_share=sum(cause.window_share for cause in small),
        reference_share=sum(cause.reference_share for cause in small),
    )
    return [*(cause for cause in causes if abs(cause.share) >= SMALLEST_SHARE), rest]
