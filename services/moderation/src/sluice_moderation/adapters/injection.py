"""Prompt injection and jailbreak by TF-IDF n-grams and logistic regression, from a checked-in npz."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sluice_moderation.domain.detector import PROMPT_INJECTION, Scores
from sluice_moderation.domain.linear import Block, LinearModel

# All character n-grams together, as one entry: listed one by one they could spell out words that are not in the vocabulary.
CHARACTERS = "(character n-grams)"


class LinearInjection:
    """Prompt-injection detector that can name the words that moved its score."""

    name = "sluice-injection-tfidf"
    categories = (PROMPT_INJECTION,)
    method = (
        "prompt_injection: log-odds that each word or pair of words of the model's own vocabulary added (TF-IDF value times "
        "weight) in the highest-scoring window, words quoted in the text marked `q:`; character n-grams are given as one sum. "
        "The toxicity network gives no feature contributions."
    )

    def __init__(self, *, model: LinearModel, word_features: Sequence[str], digest: str) -> None:
        self.digest = digest
        self._model = model
        self._word_features = word_features

    @classmethod
    def load(cls, path: Path) -> LinearInjection:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            blocks = [
                Block(
                    file[f"{kind}_keys"],
                    file[f"{kind}_idf"].astype(np.float64),
                    file[f"{kind}_weight"].astype(np.float64),
                )
                for kind in ("word", "character")
            ]
            features = bytes(file["word_features"]).decode().split("\n")
            model = LinearModel(words=blocks[0], characters=blocks[1], bias=float(file["bias"]))
        return cls(model=model, word_features=features, digest="sha256:" + hashlib.sha256(content).hexdigest())

    @property
    def vocabulary(self) -> Sequence[str]:
        """Every word feature that an explanation can name."""
        return self._word_features

    def scores(self, texts: Sequence[str]) -> Scores:
        return self._model.score(texts).astype(np.float32)[:, None]

    def contributions(self, text: str, category: str = PROMPT_INJECTION, *, limit: int) -> list[tuple[str, float]]:
        """The `limit` features that moved the score most, largest first. Never anything outside the vocabulary."""
        by_word, characters = self._model.contributions(text)
        named = [(self._word_features[index], weight) for index, weight in by_word.items()]
        return sorted([*named, (CHARACTERS, characters)], key=lambda pair: -abs(pair[1]))[:limit]
