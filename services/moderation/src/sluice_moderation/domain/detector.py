"""What moderation asks of a classifier, and the categories there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]

TOXICITY = "toxicity"
IDENTITY_ATTACK = "identity_attack"
PROMPT_INJECTION = "prompt_injection"
JAILBREAK = "jailbreak"
SEXUAL = "sexual"
SELF_HARM = "self_harm"
VIOLENCE = "violence"
HARASSMENT = "harassment"
UNSAFE_MEDICAL_ADVICE = "unsafe_medical_advice"
SECRETS = "secrets"
TOXICITY_CATEGORIES = (TOXICITY, "severe_toxicity", "obscenity", "threat", "insult", IDENTITY_ATTACK)
HARM_CATEGORIES = (SEXUAL, SELF_HARM, VIOLENCE, HARASSMENT, UNSAFE_MEDICAL_ADVICE)
CATEGORIES = (*TOXICITY_CATEGORIES, *HARM_CATEGORIES, PROMPT_INJECTION, JAILBREAK, SECRETS)


class DetectorUnavailable(Exception):
    """A detector gives no scores now, for a reason that is not its fault: a service is away, an answer came too late or unclear."""


class Detector(Protocol):
    """Gives scores in 0 to 1 for each of its categories. Must be safe to call from several threads."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the weights."""
        ...

    @property
    def categories(self) -> tuple[str, ...]: ...

    def scores(self, texts: Sequence[str]) -> Scores:
        """Scores of texts (plain or folded views), shape (len(texts), len(categories))."""
        ...
