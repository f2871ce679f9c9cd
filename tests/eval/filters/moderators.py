"""The moderation that is measured: the service's own detectors, windows and policies, without the network."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sluice_moderation.adapters import detectors
from sluice_moderation.adapters.policy_files import SHIPPED, load_policies
from sluice_moderation.domain.detector import CATEGORIES
from sluice_moderation.domain.panel import Panel
from sluice_moderation.domain.policy import Action, Direction, Policy
from sluice_moderation.domain.windows import windowed

_WINDOWS_AT_ONCE = 256


class Moderator:
    """Scores of texts, and what a shipped policy makes of them."""

    @cached_property
    def panel(self) -> Panel:
        return detectors.load().panel

    @cached_property
    def policies(self) -> dict[str, Policy]:
        return dict(load_policies(SHIPPED).by_id)

    def scores(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Highest score by text and category, shape (texts, CATEGORIES); NaN where no detector is for it."""
        windows = [list(windowed(text)) for text in texts]
        flat = [window for found in windows for window in found]
        names = self.panel.needed(CATEGORIES)
        parts = [
            self.panel.score(flat[i : i + _WINDOWS_AT_ONCE], names).scores
            for i in range(0, len(flat), _WINDOWS_AT_ONCE)
        ]
        scores = np.concatenate(parts).astype(np.float64) if parts else np.zeros((0, len(CATEGORIES)))
        highest, at = np.zeros((len(texts), len(CATEGORIES))), 0
        for row, found in enumerate(windows):
            if found:
                highest[row] = scores[at : at + len(found)].max(axis=0)
            at += len(found)
        return highest

    def actions(
        self, scores: npt.NDArray[np.float64], direction: Direction, policy: str = "general"
    ) -> npt.NDArray[np.int64]:
        """The strictest action of a policy on each row of scores; categories without a score are passed over."""
        strictest = np.full(len(scores), int(Action.ALLOW))
        for category, rules in self.policies[policy].sheet(direction, "en").rules.items():
            if category not in CATEGORIES:
                continue  # a list of terms of the policy's own
            column = np.nan_to_num(np.round(scores[:, CATEGORIES.index(category)], 3), nan=-1.0)
            for rule in rules:
                reached = column >= rule.threshold
                strictest[reached] = np.maximum(strictest[reached], int(rule.action))
        return strictest

    def thresholds(self, category: str, direction: Direction, policy: str = "general") -> dict[str, float]:
        """Threshold by name of the action."""
        rules = self.policies[policy].sheet(direction, "en").rules.get(category, ())
        return {rule.action.name.lower(): rule.threshold for rule in rules}
