"""What moved a score: exactly where the detector can say it, else by leaving words out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sluice_moderation.domain.detector import Detector
from sluice_moderation.domain.panel import Panel
from sluice_moderation.domain.verdict import Contribution

_WORD = re.compile(r"\S+")
_MOST_WORDS = 64  # a window has at most 800 characters; more words than this are looked at in equal groups
_MOST_CATEGORIES = 4

OCCLUSION = (
    "by leaving out: the window with the highest score is scored again without each of its words (`word 0` is the first of the "
    "window, which begins with the sentence before where the score is a joined one); a weight is what the score falls by"
)


@runtime_checkable
class Explains(Protocol):
    """A detector that can say which features of its own vocabulary moved a category's score."""

    @property
    def method(self) -> str: ...

    def contributions(self, text: str, category: str, *, limit: int) -> list[tuple[str, float]]: ...


@runtime_checkable
class NamesKinds(Protocol):
    """A detector that can name the kinds within a category that it found, in words of its own."""

    def reasons(self, text: str, category: str) -> tuple[str, ...]: ...


class Explainer:
    """Explains by the detectors of a panel. Its answers hold features of a vocabulary or places of words, never text."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def contributions(self, reached: Iterable[tuple[str, str]], *, limit: int) -> tuple[tuple[Contribution, ...], str]:
        """The `limit` largest for each (category, text), and how they were computed. Costs model runs: use a thread."""
        found: list[Contribution] = []
        methods: dict[str, None] = {}
        tried: dict[tuple[str, str], Falls] = {}
        for category, text in list(reached)[:_MOST_CATEGORIES]:
            detector = self._panel.scorer_of(category)
            if isinstance(detector, Explains):
                weights, method = _told(detector, text, category, limit=limit), detector.method
            else:
                key = (detector.name, text)  # categories of one detector mostly share their highest window
                if key not in tried:
                    tried[key] = Falls.of(detector, text)
                weights = tried[key].largest(detector.categories.index(category), limit=limit)
                method = f"{detector.name}: {OCCLUSION}"
            found += [Contribution(category, feature, weight) for feature, weight in weights]
            methods[method] = None
        return tuple(found), " ".join(methods)


def _told(detector: Explains, text: str, category: str, *, limit: int) -> list[tuple[str, float]]:
    """The narrower kinds that a detector names within a category (a dosage, a sort of key), then what moved the score."""
    weights = detector.contributions(text, category, limit=limit)
    kinds = detector.reasons(text, category) if isinstance(detector, NamesKinds) else ()
    features = {feature for feature, _ in weights}
    return [*((f"kind:{kind}", 1.0) for kind in kinds if kind not in features), *weights]


@dataclass(frozen=True)
class Falls:
    """By how much each score of a detector falls without each word, or group of words; shape (groups, categories)."""

    names: tuple[str, ...]
    by_group: npt.NDArray[np.float64]

    @classmethod
    def of(cls, detector: Detector, text: str) -> Falls:
        words = list(_WORD.finditer(text))
        size = -(-len(words) // _MOST_WORDS) or 1
        groups = [words[start : start + size] for start in range(0, len(words), size)]
        texts = [text, *(text[: group[0].start()] + text[group[-1].end() :] for group in groups)]
        scores = np.asarray(detector.scores(texts), np.float64)
        starts = range(0, len(words), size)
        names = tuple(f"word {n}" if size == 1 else f"words {n} to {min(n + size, len(words)) - 1}" for n in starts)
        return cls(names, scores[0] - scores[1:])

    def largest(self, column: int, *, limit: int) -> list[tuple[str, float]]:
        """The words that mattered most for one category."""
        falls = [(name, round(float(fall), 4)) for name, fall in zip(self.names, self.by_group[:, column], strict=True)]
        return sorted(falls, key=lambda pair: -pair[1])[:limit]
