"""The linear detector, with the opinions of two other models where they know more.

The BiLSTM network is asked where abuse is neither out of the question nor certain; the injection model always, for its category.

The network knows the words of Wikipedia's quarrels that no package carries as training text; the linear heads know what it does not: contempt
without bad words, threats, the other categories. Both are asked only where it matters: most texts never reach the network, which takes ten times
as long. Whether it is asked depends on the text alone. It reads identity terms as neutral words, so it cannot tell groups apart either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sluice_moderation.adapters.heads import CHARACTERS, LinearDetector
from sluice_moderation.adapters.injection import LinearInjection
from sluice_moderation.adapters.toxicity import BiLstmToxicity
from sluice_moderation.domain.detector import (
    HARASSMENT,
    IDENTITY_ATTACK,
    PROMPT_INJECTION,
    TOXICITY,
    TOXICITY_CATEGORIES,
    VIOLENCE,
    Scores,
)
from sluice_moderation.domain.heads import Floats
from sluice_moderation.domain.identity import marked, neutralise

# The network is asked where the linear toxicity score lies between these.
ASK_FROM, ASK_TO = 0.04, 0.97
# A text that names a group is also read by heads trained on benign and hostile twins about groups: praise and plain statements must not
# count for the frame they share with contempt. No abuse scores higher than this times what those heads see in the text.
TWINS_COUNT = 1.4
BY_TWINS = (*TOXICITY_CATEGORIES, VIOLENCE, HARASSMENT)
_LEAST = 1e-6
# Of the logit of prompt_injection, this share is the injection model's and the rest the head's: at one false alarm in 200 ordinary texts
# .7 catches .84 and .91 of the two test splits, .5 .76 and .87, the model alone .76 and .86, the head alone .54 and .79; .6 was taken
# because the model alone takes harmless requests (translate this letter) for attacks more often.
INJECTION_SHARE = 0.6


class Cascade:
    """All categories but secrets."""

    name = "sluice-cascade"

    def __init__(
        self, linear: LinearDetector, network: BiLstmToxicity, injection: LinearInjection, twins: LinearDetector
    ) -> None:
        self.linear, self._network, self._injection, self._twins = linear, network, injection, twins
        self.categories = linear.categories
        digests = f"{linear.digest} {network.digest} {injection.digest} {twins.digest}"
        self.digest = "sha256:" + hashlib.sha256(digests.encode()).hexdigest()
        self.method = (
            f"{linear.method} For prompt_injection {INJECTION_SHARE} of the log-odds are another linear model's over the same kinds of features, "
            f"told together. Where the linear toxicity score lies between {ASK_FROM} and {ASK_TO}, a network is asked, too, for labels of abuse, "
            "and both logits are added by fixed weights; the network gives no contributions, so what is told is the linear part. "
            f"Where a text names a group, no abuse counts more than {TWINS_COUNT} times the higher of toxicity and identity_attack that a second "
            "set of heads, trained on praise and contempt in the same frames, gives it."
        )
        self._columns = np.array([linear.categories.index(c) for c in TOXICITY_CATEGORIES])
        self._capped = np.array([linear.categories.index(c) for c in BY_TWINS])
        self._told_by_twins = np.array([linear.categories.index(c) for c in (TOXICITY, IDENTITY_ATTACK)])
        self._asks, self._injected = linear.categories.index(TOXICITY), linear.categories.index(PROMPT_INJECTION)

    @classmethod
    def load(cls, *, linear: Path, network: Path, injection: Path, twins: Path) -> Cascade:
        heads, opinion = LinearDetector.load(linear), LinearDetector.load(twins)
        return cls(heads, BiLstmToxicity.load(network), LinearInjection.load(injection), opinion)

    def scores(self, texts: Sequence[str]) -> Scores:
        scores = self.linear.scores(texts)
        if not len(scores):
            return scores
        both = INJECTION_SHARE * logit(self._injection.scores(texts)[:, 0])
        both += (1 - INJECTION_SHARE) * logit(scores[:, self._injected])
        scores[:, self._injected] = 1.0 / (1.0 + np.exp(-both))
        toxic = scores[:, self._asks]
        asked = np.flatnonzero((toxic >= ASK_FROM) & (toxic <= ASK_TO))
        if len(asked):
            told = self._network.raw_scores([neutralise(texts[int(i)]).text for i in asked])
            at = (asked[:, None], self._columns)
            scores[at] = blended(scores[at], told, self.linear.blend)
        self._cap(scores, texts)
        return scores

    def _cap(self, scores: Scores, texts: Sequence[str]) -> None:
        named = np.array([i for i, text in enumerate(texts) if marked(text) != text], np.intp)
        if not len(named):
            return
        seen = self._twins.scores([texts[int(i)] for i in named])[:, self._told_by_twins].max(axis=1)
        at = (named[:, None], self._capped)
        scores[at] = np.minimum(scores[at], TWINS_COUNT * seen[:, None])

    def contributions(self, text: str, category: str, *, limit: int) -> list[tuple[str, float]]:
        """See LinearDetector; those of both models for prompt_injection, weighed as their scores are."""
        if category != PROMPT_INJECTION:
            return self.linear.contributions(text, category, limit=limit)
        found: dict[str, float] = {}
        everything = 10 * len(text) + 100
        for share, model in ((INJECTION_SHARE, self._injection), (1 - INJECTION_SHARE, self.linear)):
            for feature, weight in model.contributions(text, category, limit=everything):
                found[feature] = found.get(feature, 0.0) + share * weight
        return sorted(found.items(), key=lambda pair: -abs(pair[1]))[:limit]

    def reasons(self, text: str, category: str) -> tuple[str, ...]:
        """See LinearDetector."""
        return self.linear.reasons(text, category)

    @property
    def vocabulary(self) -> frozenset[str]:
        """Every word feature that an explanation can name."""
        return self.linear.vocabulary | {*self._injection.vocabulary, CHARACTERS}


def logit(scores: Scores) -> Floats:
    """Log-odds, bounded."""
    kept = np.clip(scores, _LEAST, 1 - _LEAST)
    odds: Floats = np.log(kept / (1 - kept))
    return odds


def blended(linear: Scores, network: Scores, blend: Floats) -> Scores:
    """The joint scores of both, (texts, six Jigsaw labels). `blend` (3, six): what their logits count, and an offset."""
    z = logit(linear) * blend[0] + logit(network) * blend[1] + blend[2]
    scores: Scores = (1.0 / (1.0 + np.exp(-z))).astype(np.float32)
    return scores
