"""A detector that leaves some of its categories to another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sluice_moderation.domain.detector import Detector, Scores
from sluice_moderation.domain.explaining import NamesKinds


class Narrowed:
    """`detector` without some categories."""

    def __init__(self, detector: Any, *, without: Collection[str]) -> None:
        self.name, self.digest = detector.name, detector.digest
        self.categories = tuple(c for c in detector.categories if c not in without)
        self._detector = detector
        self._columns = [detector.categories.index(c) for c in self.categories]

    def scores(self, texts: Sequence[str]) -> Scores:
        scores: Scores = self._detector.scores(texts)[:, self._columns]
        return scores


class NarrowedExplaining(Narrowed):
    """The same of a detector that explains itself; a class of its own, since one that explains nothing must not seem to."""

    @property
    def method(self) -> str:
        return str(self._detector.method)

    def contributions(self, text: str, category: str, *, limit: int) -> list[tuple[str, float]]:
        """What the detector says."""
        found: list[tuple[str, float]] = self._detector.contributions(text, category, limit=limit)
        return found

    def reasons(self, text: str, category: str) -> tuple[str, ...]:
        """What the detector says, where it names kinds at all."""
        if not isinstance(self._detector, NamesKinds):
            return ()
        return self._detector.reasons(text, category)


def narrowed(detectors: Sequence[Detector]) -> list[Detector]:
    """Each category is left to the first detector that scores it; detectors with nothing left are dropped."""
    taken: set[str] = set()
    kept: list[Detector] = []
    for detector in detectors:
        left = {*detector.categories} - taken
        kind = NarrowedExplaining if hasattr(detector, "contributions") else Narrowed
        if left:
            kept.append(kind(detector, without={*taken}) if len(left) < len(detector.categories) else detector)
        taken |= left
    return kept
