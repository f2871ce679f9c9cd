"""What drift detection learns of a text in place of the text: language, lengths, a small embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sluice_inference.domain.generation import Chat, GenerationInput, RawPrompt

PROFILE_DIMENSIONS = 64
# Longer texts are judged by their beginning: 0.2 ms of embedding and 0.1 ms of language per 100 words, measured on one core.
PROFILED_CHARACTERS = 20_000
# Of a longer text more words repeat, whatever its author's vocabulary.
VARIETY_WORDS = 100


@dataclass(frozen=True)
class TextProfile:
    """language: ISO 639-1 or empty; lengths of the whole text; embedding: 64 floats of length 1, or empty.

    Of the vocabulary only numbers are told: hashes of words could be reversed with a dictionary.
    """

    language: str = ""
    characters: int = 0
    words: int = 0
    embedding: tuple[float, ...] = ()
    embedding_model_digest: str = ""
    profiled_words: int = 0
    pieces: int = 0
    distinct_words: int = 0


@dataclass(frozen=True)
class Embedded:
    """Vectors of shape (texts, dimensions), float32, each of length 1 (or 0 when no token of the text is known)."""

    vectors: NDArray[np.float32]
    tokens: int
    estimated: bool = False


class TextEmbedder(Protocol):
    @property
    def digest(self) -> str: ...

    def embed(self, texts: Sequence[str], *, dimensions: int | None = None) -> Embedded: ...


class LanguageDetector(Protocol):
    def detect(self, text: str) -> str:
        """ISO 639-1 code, or empty when the text is too short to say."""


def lengths(text: str) -> TextProfile:
    """The part of a profile that costs nothing."""
    return TextProfile(characters=len(text), words=len(text.split()))


def profile(text: str, *, detector: LanguageDetector, embedder: TextEmbedder) -> TextProfile:
    head = text[:PROFILED_CHARACTERS]
    plain, words = lengths(text), head.split()
    embedded = (
        embedder.embed([head], dimensions=PROFILE_DIMENSIONS) if words else Embedded(np.zeros((1, 0), np.float32), 0)
    )
    vector = embedded.vectors[0]
    return TextProfile(
        language=detector.detect(head),
        characters=plain.characters,
        words=plain.words,
        embedding=tuple(float(value) for value in vector) if vector.any() else (),
        embedding_model_digest=embedder.digest if vector.any() else "",
        profiled_words=len(words),
        pieces=embedded.tokens,
        distinct_words=len({word.casefold() for word in words[:VARIETY_WORDS]}),
    )


def profiled_prompt(source: GenerationInput) -> str:
    """What the person asked: the last user message, or the raw prompt; empty for token ids."""
    match source:
        case Chat(turns):
            return next((turn.content for turn in reversed(turns) if turn.role == "user"), "")
        case RawPrompt(text):
            return text
        case _:
            return ""
