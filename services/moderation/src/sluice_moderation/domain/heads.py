"""Many linear text classifiers over one set of features: their parameters, their scores and what moved them.

A text's logit for a head is bias + sum over its occurrences of known features of weight x n**-p, where n is the number of occurrences of
that kind of feature in the text (known or not) and p damps length (one p for words, one for characters). Everything is a sum, so
contributions are exact. Calibration (Platt's) is already in weights and bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sluice_moderation.domain.features import Occurrences, features_of
from sluice_moderation.domain.ngrams import Keys, Rows

Floats = npt.NDArray[np.float32]

_SLOT_BITS = 20


@dataclass(frozen=True)
class Block:
    """One kind of feature: sorted keys, weights of shape (features, heads), and the power that damps length."""

    keys: Keys
    weights: Floats
    power: float
    _slots: npt.NDArray[np.int32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Where in the sorted keys those with a given leading 20 bits begin: one look-up and at most a few steps instead of a
        # binary search over all keys, which took a third of the time.
        slots = np.searchsorted(self.keys, np.arange(1 << _SLOT_BITS, dtype=np.uint64) << np.uint64(64 - _SLOT_BITS))
        object.__setattr__(self, "_slots", slots.astype(np.int32))

    def find(self, keys: Keys) -> tuple[Rows, Rows]:
        """Positions in `keys` that are known, and their features."""
        at = self._slots[(keys >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)].astype(np.int64)
        last = len(self.keys) - 1
        found = np.flatnonzero(self.keys[np.minimum(at, last)] == keys)
        features = at[found]
        # The few keys that share their leading bits with another.
        open_ones = np.flatnonzero(self.keys[np.minimum(at, last)] < keys)
        positions, steps = [found], [features]
        for step in range(1, 8):
            if not len(open_ones):
                break
            candidates = self.keys[np.minimum(at[open_ones] + step, last)]
            hit = candidates == keys[open_ones]
            positions.append(open_ones[hit])
            steps.append(at[open_ones[hit]] + step)
            open_ones = open_ones[candidates < keys[open_ones]]
        return np.concatenate(positions), np.concatenate(steps)


@dataclass(frozen=True)
class LinearHeads:
    """`heads` classifiers; `names` of word features, by index."""

    heads: tuple[str, ...]
    words: Block
    characters: Block
    bias: Floats
    names: Sequence[str]

    def logits(self, texts: Sequence[str]) -> Floats:
        """Shape (len(texts), heads). A text's row does not depend on the other texts."""
        features = features_of(texts)
        total = np.tile(self.bias, (len(texts), 1))
        for block, found in ((self.words, features.words), (self.characters, features.characters)):
            _add(total, block, found)
        return total

    def contributions(self, text: str, head: str) -> tuple[dict[str, float], float]:
        """Log-odds that each word feature added, and the sum over all character features."""
        column, features = self.heads.index(head), features_of([text])
        found, values = _values(self.words, features.words, self.words.weights[:, column])
        by_word: dict[str, float] = {}
        for feature, value in zip(found.tolist(), values.tolist(), strict=True):
            by_word[self.names[feature]] = by_word.get(self.names[feature], 0.0) + value
        return by_word, float(
            _values(self.characters, features.characters, self.characters.weights[:, column])[1].sum()
        )


def _damping(block: Block, found: Occurrences, texts: int) -> Floats:
    total = sum((np.bincount(rows, minlength=texts) for rows, _ in found.groups), np.zeros(texts, np.int64))
    return (np.maximum(total, 1).astype(np.float32) ** np.float32(-block.power))[:, None]


def _add(total: Floats, block: Block, found: Occurrences) -> None:
    damping = _damping(block, found, len(total))
    sums = np.zeros_like(total)
    for rows, keys in found.groups:
        if not len(keys):
            continue
        positions, features = block.find(keys)
        if not len(positions):
            continue
        order = np.lexsort((positions,))
        at, weights = rows[positions[order]], block.weights[features[order]]
        starts = np.flatnonzero(np.concatenate([[True], at[1:] != at[:-1]]))
        sums[at[starts]] += np.add.reduceat(weights, starts, axis=0)
    total += sums * damping


def _values(block: Block, found: Occurrences, weights: Floats) -> tuple[Rows, Floats]:
    """Known features of one text, and what each occurrence adds."""
    damping = float(_damping(block, found, 1)[0, 0])
    parts = [block.find(keys)[1] for _, keys in found.groups]
    features = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return features, weights[features] * np.float32(damping)
