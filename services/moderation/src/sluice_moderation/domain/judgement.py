"""Collects the scores of windows into one verdict, and scores windows with the detectors a policy needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sluice_moderation.domain.detector import CATEGORIES, PROMPT_INJECTION, Detector, Scores
from sluice_moderation.domain.normalisation import views
from sluice_moderation.domain.policy import Action, Direction, Policy, strictest
from sluice_moderation.domain.verdict import Skipped, Verdict

# Scores are compared and told with three decimals. The last bits of a float32 matrix product depend on how many texts are
# multiplied at once (about 1e-7); rounding keeps a verdict from depending on who else was in the batch.
_DECIMALS = 3
_COLUMN = {category: i for i, category in enumerate(CATEGORIES)}


@dataclass(frozen=True)
class WindowScores:
    """Scores of windows, shape (windows, categories); NaN where no detector ran. `failed` detectors raised."""

    scores: Scores
    failed: frozenset[str] = frozenset()


class Panel:
    """All detectors of the service."""

    def __init__(
        self, detectors: Sequence[Detector], *, on_failure: Callable[[str, Exception], None] = lambda *_: None
    ) -> None:
        self._detectors = tuple(detectors)
        self._on_failure = on_failure

    def needed(self, categories: Sequence[str]) -> frozenset[str]:
        """Names of the detectors that score any of these categories."""
        return frozenset(d.name for d in self._detectors if set(d.categories) & set(categories))

    def digests(self, names: frozenset[str]) -> dict[str, str]:
        return {d.name: d.digest for d in self._detectors if d.name in names}

    def detector_of(self) -> dict[str, str]:
        """Category to detector name."""
        return {category: d.name for d in self._detectors for category in d.categories}

    def score(self, windows: Sequence[str], names: frozenset[str]) -> WindowScores:
        """Scores of all windows by the named detectors; the score of a window is the highest of its views."""
        expanded = [(row, view) for row, window in enumerate(windows) for view in views(window) if view]
        rows, texts = [row for row, _ in expanded], [view for _, view in expanded]
        scores = np.full((len(windows), len(CATEGORIES)), np.nan, np.float32)
        failed = set()
        for detector in self._detectors:
            if detector.name not in names:
                continue
            highest = np.zeros((len(windows), len(detector.categories)), np.float32)
            try:
                if texts:
                    np.maximum.at(highest, rows, detector.scores(texts))
            except Exception as error:  # a broken detector must lead to a verdict: the policy says which
                failed.add(detector.name)
                self._on_failure(detector.name, error)
                continue
            scores[:, [_COLUMN[category] for category in detector.categories]] = np.round(highest, _DECIMALS)
        return WindowScores(scores, frozenset(failed))


@dataclass
class Judgement:
    """The verdict in the making: the highest score of each category over all windows so far."""

    policy: Policy
    direction: Direction
    language: str
    _highest: dict[str, float] = field(default_factory=dict, init=False)
    _offending: dict[str, None] = field(default_factory=dict, init=False)
    _failed: set[str] = field(default_factory=set, init=False)
    _injected: tuple[float, str] = field(default=(-1.0, ""), init=False)

    @property
    def categories(self) -> tuple[str, ...]:
        return self.policy.categories(self.direction)

    def add(self, segment_id: str, windows: Sequence[str], scored: WindowScores) -> Action:
        """Take in the scores of some windows of one segment; returns what these windows alone ask for."""
        self._failed |= scored.failed
        found = []
        for category in self.categories:
            column = scored.scores[:, _COLUMN[category]]
            if not len(column) or np.isnan(column[0]):
                continue
            at = int(column.argmax())
            score = round(float(column[at]), _DECIMALS)
            found.append(self.policy.judge(self.direction, category, score))
            self._highest[category] = max(score, self._highest.get(category, 0.0))
            if category == PROMPT_INJECTION and score > self._injected[0]:
                self._injected = (score, windows[at])
        action = strictest(found)
        if action >= Action.FLAG:
            self._offending[segment_id] = None
        return self._with_failures(action)

    @property
    def offending_segment_ids(self) -> tuple[str, ...]:
        """Segments that reached a threshold, in the order they came."""
        return tuple(self._offending)

    @property
    def injected_window(self) -> str:
        """The window with the highest injection score; empty where none was scored. Never stored."""
        return self._injected[1]

    def verdict(self, decision_id: str, panel: Panel, *, skipped: Sequence[Skipped] = ()) -> Verdict:
        detectors = panel.detector_of()
        scores = [
            self.policy.judge(self.direction, c, self._highest.get(c, 0.0))
            for c in self.categories
            if detectors.get(c) not in self._failed
        ]
        return Verdict(
            decision_id=decision_id,
            action=self._with_failures(strictest(scores)),
            policy_id=self.policy.policy_id,
            policy_version=self.policy.version,
            scores=tuple(scores),
            skipped=(*self._skipped(detectors), *skipped),
            model_digests=panel.digests(panel.needed(self.categories)),
            detectors={score.category: detectors[score.category] for score in scores},
        )

    def _with_failures(self, action: Action) -> Action:
        if not self._failed:
            return action
        return Action.BLOCK if self.policy.fail_closed else max(action, Action.SKIPPED)

    def _skipped(self, detectors: dict[str, str]) -> list[Skipped]:
        checks = [Skipped(c, "not_in_policy") for c in CATEGORIES if c not in self.categories]
        checks += [Skipped(c, "detector_error") for c in self.categories if detectors.get(c) in self._failed]
        if self.language != "en":
            # The scores are there, but nobody has measured what they are worth in this language.
            checks += [Skipped(c, "language_untested") for c in self.categories]
        return checks
