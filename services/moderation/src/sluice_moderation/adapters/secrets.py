"""Secrets by rule: see domain/secrets.py."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from sluice_moderation.domain.detector import SECRETS, Scores
from sluice_moderation.domain.secrets import RULES, secrets_in


class SecretRules:
    """Scores text by the most certain kind of secret in it; its reasons are the kinds."""

    name = "sluice-secret-rules"
    categories = (SECRETS,)
    method = "secrets: the kinds of key or token whose published shape was met, weight 1 each; never the secret itself."

    def __init__(self) -> None:
        shapes = "\n".join(f"{r.reason} {r.pattern.pattern} {r.score} {r.entropy}" for r in RULES)
        self.digest = "sha256:" + hashlib.sha256(shapes.encode()).hexdigest()

    def scores(self, texts: Sequence[str]) -> Scores:
        found = [max((s.score for s in secrets_in(text)), default=0.0) for text in texts]
        return np.array(found, np.float32).reshape(-1, 1)

    def contributions(self, text: str, category: str, *, limit: int) -> list[tuple[str, float]]:
        return [(reason, 1.0) for reason in self.reasons(text, category)[:limit]]

    def reasons(self, text: str, category: str) -> tuple[str, ...]:
        return tuple(sorted({secret.reason for secret in secrets_in(text)})) if category == SECRETS else ()
