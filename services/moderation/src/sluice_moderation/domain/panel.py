"""All detectors of the service, and the scores they give to windows of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from sluice_moderation.domain.detector import CATEGORIES, Detector, DetectorUnavailable, Scores
from sluice_moderation.domain.normalisation import views

# Scores are compared and told with three decimals. The last bits of a float32 matrix product depend on how many texts are
# multiplied at once (about 1e-7); rounding keeps a verdict from depending on who else was in the batch.
DECIMALS = 3
COLUMN = {category: i for i, category in enumerate(CATEGORIES)}

Views = npt.NDArray[np.int8]


def _no_views() -> Views:
    return np.zeros((0, 0), np.int8)


@dataclass(frozen=True)
class WindowScores:
    """Scores of windows, shape (windows, categories); NaN where no detector ran.

    `views` has the same shape: 0 where the text as written gave the score, more where a folded view did. `failed` has the
    detectors that gave no scores for some of the windows, and a short code for why.
    """

    scores: Scores
    failed: Mapping[str, str] = field(default_factory=dict)
    views: Views = field(default_factory=_no_views)

    def part(self, start: int, end: int) -> WindowScores:
        """The scores of some of the windows."""
        return WindowScores(self.scores[start:end], self.failed, self.views[start:end])

    def view_of(self, row: int, column: int) -> int:
        """The number of the view that gave a score."""
        return int(self.views[row, column]) if self.views.size else 0


def unscored(windows: int, failed: Mapping[str, str]) -> WindowScores:
    """What is known of windows that nothing scored."""
    shape = (windows, len(CATEGORIES))
    return WindowScores(np.full(shape, np.nan, np.float32), failed, np.zeros(shape, np.int8))


def joined(parts: Sequence[WindowScores]) -> WindowScores:
    """The scores of several lots of windows, in order."""
    if not parts:
        return unscored(0, {})
    failed = {name: reason for part in parts for name, reason in part.failed.items()}
    return WindowScores(np.concatenate([p.scores for p in parts]), failed, np.concatenate([p.views for p in parts]))


class Panel:
    """All detectors of the service."""

    def __init__(
        self, detectors: Sequence[Detector], *, on_failure: Callable[[str, Exception], None] = lambda *_: None
    ) -> None:
        self._detectors = tuple(detectors)
        self._on_failure = on_failure
        self._detector_of = MappingProxyType({category: d.name for d in self._detectors for category in d.categories})

    def needed(self, categories: Sequence[str]) -> frozenset[str]:
        """Names of the detectors that score any of these categories."""
        return frozenset(d.name for d in self._detectors if set(d.categories) & set(categories))

    def digests(self, names: frozenset[str]) -> dict[str, str]:
        return {d.name: d.digest for d in self._detectors if d.name in names}

    def detector_of(self) -> Mapping[str, str]:
        """Category to detector name."""
        return self._detector_of

    def scorer_of(self, category: str) -> Detector:
        """The detector that scores a category. KeyError where there is none."""
        found = next((d for d in self._detectors if category in d.categories), None)
        if found is None:
            raise KeyError(category)
        return found

    def score(self, windows: Sequence[str], names: frozenset[str]) -> WindowScores:
        """Scores of all windows by the named detectors; the score of a window is the highest of its views."""
        seen = [(row, n, view) for row, window in enumerate(windows) for n, view in enumerate(views(window)) if view]
        result = unscored(len(windows), failed := {})
        for detector in self._detectors:
            if detector.name not in names:
                continue
            columns = [COLUMN[category] for category in detector.categories]
            try:
                scores = (
                    np.round(detector.scores([view for *_, view in seen]), DECIMALS)
                    if seen
                    else np.empty((0, len(columns)))
                )
                _check(scores, (len(seen), len(columns)))
            except Exception as error:  # a broken detector must lead to a verdict: the policy says which
                away = isinstance(error, DetectorUnavailable)
                failed[detector.name] = "detector_unavailable" if away else "detector_error"
                self._on_failure(detector.name, error)
                continue
            result.scores[:, columns], result.views[:, columns] = _highest(len(windows), seen, scores)
        return result


def _check(scores: npt.NDArray[np.floating], shape: tuple[int, int]) -> None:
    """A score that is no number would reach no threshold: it must count as a failure, not as harmless."""
    if scores.shape != shape or not np.isfinite(scores).all():
        raise ValueError(f"scores of shape {scores.shape} for {shape}, or some that are no numbers")


def _highest(
    windows: int, seen: Sequence[tuple[int, int, str]], scores: npt.NDArray[np.floating]
) -> tuple[Scores, Views]:
    """Of each window the highest score of its views, and the number of the view that gave it; a tie goes to the earlier view."""
    highest = np.zeros((windows, scores.shape[1]), np.float32)
    which = np.zeros((windows, scores.shape[1]), np.int8)
    first = [at for at, (_, n, _) in enumerate(seen) if n == 0]
    highest[[seen[at][0] for at in first]] = scores[first]
    for at, (row, n, _) in enumerate(seen):
        if n:
            which[row][scores[at] > highest[row]] = n
            highest[row] = np.maximum(highest[row], scores[at])
    return highest, which
