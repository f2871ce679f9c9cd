"""Several windows as one: what moves too little for one window adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sluice_drift.domain.sample import TextSample


def pool(samples: Sequence[TextSample]) -> TextSample:
    """The texts of all samples together, exactly; embeddings of another length than the first are left out."""
    languages: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for sample in samples:
        languages.update(sample.languages)
        words.update(sample.words)
    sums = [(np.frombuffer(each.embedding_sum, dtype="<i8"), each.embedded) for each in samples if each.embedded]
    alike = [(total, count) for total, count in sums if len(total) == len(sums[0][0])]
    return TextSample(
        observations=sum(sample.observations for sample in samples),
        languages=dict(languages),
        words=dict(words),
        embedded=sum(count for _, count in alike),
        embedding_sum=np.sum([total for total, _ in alike], axis=0, dtype="<i8").tobytes() if alike else b"",
    )
