"""A linear text classifier over TF-IDF n-grams: its parameters, its score and what moved it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sluice_moderation.domain.ngrams import Keys, Ngrams, Rows, ngrams_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """One family of features (words, or characters): sorted keys, idf and weight, all of one length."""

    keys: Keys
    idf: Floats
    weight: Floats


@dataclass(frozen=True)
class Weighed:
    """TF-IDF entries of one block in a batch: L2-normalised within each text."""

    rows: Rows
    features: Rows
    values: Floats


def weigh(block: Block, ngrams: tuple[Rows, Keys]) -> Weighed:
    """Sublinear TF x IDF of the n-grams that the block knows."""
    rows, keys = ngrams
    at = np.searchsorted(block.keys, keys)
    at[at == len(block.keys)] = 0
    known = block.keys[at] == keys
    entries, counts = np.unique(rows[known] * len(block.keys) + at[known], return_counts=True)
    entry_rows, features = np.divmod(entries, len(block.keys))
    values = (1.0 + np.log(counts)) * block.idf[features]
    norms = np.sqrt(np.bincount(entry_rows, values**2))
    return Weighed(entry_rows, features, values / norms[entry_rows])


@dataclass(frozen=True)
class LinearModel:
    """Logistic regression over two blocks."""

    words: Block
    characters: Block
    bias: float

    def score(self, texts: Sequence[str]) -> Floats:
        """Probability in 0 to 1 for each text, shape (n,)."""
        if not texts:
            return np.empty(0)
        ngrams = ngrams_of(texts)
        logits = np.full(len(texts), self.bias)
        for block, found in self._blocks(ngrams):
            entries = weigh(block, found)
            logits += np.bincount(entries.rows, entries.values * block.weight[entries.features], minlength=len(texts))
        return 1.0 / (1.0 + np.exp(-logits))

    def contributions(self, text: str) -> tuple[dict[int, float], float]:
        """Log-odds each word feature (by index) added, and the sum of all character features."""
        ngrams = ngrams_of([text])
        words = weigh(self.words, ngrams.words)
        characters = weigh(self.characters, ngrams.characters)
        by_word = dict(
            zip(words.features.tolist(), (words.values * self.words.weight[words.features]).tolist(), strict=True)
        )
        return by_word, float((characters.values * self.characters.weight[characters.features]).sum())

    def _blocks(self, ngrams: Ngrams) -> tuple[tuple[Block, tuple[Rows, Keys]], ...]:
        return (self.words, ngrams.words), (self.characters, ngrams.characters)
