"""What is observed of one generation: facts about its texts, never the texts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

EMBEDDING_SCALE = 32767
"""Embeddings are kept as 16-bit integers, so that sums of them are exact in any order."""


@dataclass(frozen=True, slots=True)
class Series:
    """Whose texts these are."""

    tenant_id: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """One text. `embedding` holds little-endian int16 of an L2-normalised vector, or nothing."""

    language: str
    words: int
    embedding: bytes = b""
    facts: tuple[tuple[str, str], ...] = ()
    """(feature, bin) of what else is counted of it, such as ("vocabulary", "1.25")."""

    def told(self, name: str, value: str) -> Profile:
        """With one fact more; as it is when the value is empty."""
        return replace(self, facts=(*self.facts, (name, value))) if value else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One generation, or one request as it ended (`request`).

    (`source_partition`, `offset`) is its place in the log; `at` event time in microseconds.

    `mark` is a hash of its event's id, by which a second copy in another place is known; 0 when there is none.
    """

    source_partition: int
    offset: int
    at: int
    series: Series
    prompt: Profile | None = None
    answer: Profile | None = None
    embedding_model: str = ""
    mark: int = 0
    slices: tuple[tuple[str, str], ...] = ()
    """(dimension, value): what a change of this observation's series may be explained by."""
    request: Profile | None = None
    """How a request ended, as a fact: there is no text to it, and no other observation has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An operator's command: collect the reference of a series anew from here on."""

    command: str
    """Its id: a command that is read a second time does nothing."""
    series: Series


def pack_embedding(values: list[float]) -> bytes:
    """A float vector, shape (d,), of components in -1..1, as integers."""
    if not values:
        return b""
    vector = np.clip(np.asarray(values, dtype=np.float64), -1.0, 1.0)
    return np.rint(vector * EMBEDDING_SCALE).astype("<i2").tobytes()
