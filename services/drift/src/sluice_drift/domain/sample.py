"""What is kept of the texts of a window: counts and exact sums that do not depend on the order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from sluice_drift.domain.observation import EMBEDDING_SCALE, Profile

UNKNOWN_LANGUAGE = "und"
OTHER = "(other)"
SLICES_KEPT = 16
"""Values of a dimension that are told apart in one window; the rest are one slice."""
_LONGEST_BIN = 11
"""2^11 words and more are one bin."""
_MARK_BYTES = 8


def words_bin(words: int) -> str:
    """Bin of a length: `0`, `1`, `2-3`, `4-7` and on by powers of two, `2048+` at last."""
    if words < 2:
        return str(max(words, 0))
    exponent = words.bit_length() - 1
    if exponent >= _LONGEST_BIN:
        return f"{2**_LONGEST_BIN}+"
    return f"{2**exponent}-{2 ** (exponent + 1) - 1}"


@dataclass(slots=True)
class Counts:
    """Texts counted: histograms, and the sum of their embeddings.

    `embedding_sum` holds int64 sums of the int16 embeddings of `embedded` texts, shape (d,).
    """

    observations: int = 0
    languages: dict[str, int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    embedded: int = 0
    embedding_sum: bytes = b""
    facts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Other histograms, by feature."""

    def histogram(self, name: str) -> dict[str, int]:
        """Texts by bin of a feature."""
        match name:
            case "language":
                return self.languages
            case "words":
                return self.words
            case _:
                return self.facts.get(name, {})

    def count_facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Count what is told of one text."""
        for name, value in facts:
            bins = self.facts.setdefault(name, {})
            bins[value] = bins.get(value, 0) + 1

    def count(self, profile: Profile) -> None:
        """Count one text."""
        self.observations += 1
        language = profile.language or UNKNOWN_LANGUAGE
        self.languages[language] = self.languages.get(language, 0) + 1
        length = words_bin(profile.words)
        self.words[length] = self.words.get(length, 0) + 1
        self.count_facts(profile.facts)
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

    def count_all(self, other: Counts) -> None:
        """Count what another counted too."""
        self.observations += other.observations
        pairs = [(self.facts.setdefault(name, {}), theirs) for name, theirs in other.facts.items()]
        for mine, theirs in (*pairs, (self.languages, other.languages), (self.words, other.words)):
            for name, number in theirs.items():
                mine[name] = mine.get(name, 0) + number
        if other.embedded:
            total = np.frombuffer(other.embedding_sum, dtype="<i8")
            if not self.embedded:
                self.embedding_sum, self.embedded = other.embedding_sum, other.embedded
            elif len(self.embedding_sum) == len(other.embedding_sum):
                self.embedding_sum = (np.frombuffer(self.embedding_sum, dtype="<i8") + total).tobytes()
                self.embedded += other.embedded


@dataclass(slots=True)
class TextSample(Counts):
    """Texts of one side (prompt or answer) of one window or reference, also by slice.

    `slices` holds counts by dimension and value. Of a dimension the sixteen values with the smallest hashes are told apart,
    which are the same in whatever order they come: a value that was pushed out never comes back, so nothing is split.
    """

    slices: dict[str, dict[str, Counts]] = field(default_factory=dict)

    def add(self, profile: Profile | None, slices: Sequence[tuple[str, str]] = ()) -> None:
        """Count one text; None where there was none."""
        if profile is None:
            return
        self.count(profile)
        if slices:
            for dimension, value in (*slices, ("language", profile.language or UNKNOWN_LANGUAGE)):
                slice_of(self.slices.setdefault(dimension, {}), value).count(profile)

    def add_facts(self, facts: Sequence[tuple[str, str]], marks: bytes) -> None:
        """Count more of a text that was counted, in the slices of which it has the marks."""
        self.count_facts(facts)
        its = {marks[at : at + _MARK_BYTES] for at in range(0, len(marks), _MARK_BYTES)}
        for dimension, known in self.slices.items() if its else ():
            found = (counts for value, counts in known.items() if _mark(dimension, value) in its)
            counts = next(found, None) or known.get(OTHER)
            if counts is not None:
                counts.count_facts(facts)


def marks_of(profile: Profile, slices: Sequence[tuple[str, str]]) -> bytes:
    """What a text's slices are known by later, in a fixed size whatever their names; empty when it has none."""
    if not slices:
        return b""
    return b"".join(_mark(*each) for each in (*slices, ("language", profile.language or UNKNOWN_LANGUAGE)))


@lru_cache(maxsize=4096)
def _mark(dimension: str, value: str) -> bytes:
    return blake2b(f"{dimension}={value}".encode(), digest_size=_MARK_BYTES).digest()


def slice_of(known: dict[str, Counts], value: str) -> Counts:
    """The counts of a value, or those it shares with others."""
    if value in known:
        return known[value]
    known[value] = Counts()
    named = [each for each in known if each != OTHER]
    if len(named) <= SLICES_KEPT:
        return known[value]
    last = max(named, key=_rank)
    known.setdefault(OTHER, Counts()).count_all(known.pop(last))
    return known[OTHER] if last == value else known[value]


def _rank(value: str) -> bytes:
    return blake2b(value.encode(), digest_size=8).digest()
