"""Several windows as one: what came just before is the reference that trails."""

from __future__ import annotations

from collections.abc import Iterable

from sluice_drift.domain.sample import TextSample, slice_of


def pool(samples: Iterable[TextSample]) -> TextSample:
    """The texts of all samples together, exactly; embeddings of another length than the first are left out."""
    total = TextSample()
    for sample in samples:
        total.count_all(sample)
        for dimension, values in sample.slices.items():
            known = total.slices.setdefault(dimension, {})
            for value, counts in values.items():
                slice_of(known, value).count_all(counts)
    return total
