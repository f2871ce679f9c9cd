"""What is kept of the texts of a window: counts and exact sums that do not depend on the order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sluice_drift.domain.observation import EMBEDDING_SCALE, Profile

UNKNOWN_LANGUAGE = "und"
_LONGEST_BIN = 11
"""2^11 words and more are one bin."""


def words_bin(words: int) -> str:
    """Bin of a length: `0`, `1`, `2-3`, `4-7` and on by powers of two, `2048+` at last."""
    if words < 2:
        return str(max(words, 0))
    exponent = words.bit_length() - 1
    if exponent >= _LONGEST_BIN:
        return f"{2**_LONGEST_BIN}+"
    return f"{2**exponent}-{2 ** (exponent + 1) - 1}"


@dataclass(slots=True)
class TextSample:
    """Texts of one side (prompt or answer) of one window or reference.

    `embedding_sum` holds int64 sums of the int16 embeddings of `embedded` texts, shape (d,).
    """

    observations: int = 0
    languages: dict[str, int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    embedded: int = 0
    embedding_sum: bytes = b""

    def add(self, profile: Profile | None) -> None:
        """Count one text; None where there was none."""
        if profile is None:
            return
        self.observations += 1
        language = profile.language or UNKNOWN_LANGUAGE
        self.languages[language] = self.languages.get(language, 0) + 1
        length = words_bin(profile.words)
        self.words[length] = self.words.get(length, 0) + 1
        if profile.embedding:
            self._add_embedding(np.frombuffer(profile.embedding, dtype="<i2"))

    def _add_embedding(self, vector: np.ndarray) -> None:
        total = np.frombuffer(self.embedding_sum, dtype="<i8") if self.embedding_sum else np.zeros(len(vector), "<i8")
        if len(total) != len(vector):
            return  # another model's vector; the reference changes with the model's digest, not with one odd event
        self.embedding_sum = (total + vector).tobytes()
        self.embedded += 1

    def mean_embedding(self) -> np.ndarray:
        """Mean embedding, shape (d,), in units of the original vectors."""
        return np.frombuffer(self.embedding_sum, dtype="<i8") / (self.embedded * EMBEDDING_SCALE)
