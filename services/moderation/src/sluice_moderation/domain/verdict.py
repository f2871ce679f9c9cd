"""What was decided and why, in values that hold no text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sluice_moderation.domain.policy import Action, CategoryScore, Direction


@dataclass(frozen=True)
class Skipped:
    """A check that was not made, and a short code for why."""

    check: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The decision over all texts of a call."""

    decision_id: str
    action: Action
    policy_id: str
    policy_version: int
    scores: tuple[CategoryScore, ...]
    skipped: tuple[Skipped, ...]
    model_digests: Mapping[str, str]
    detectors: Mapping[str, str] = field(default_factory=dict)
    """Category to the name of the detector that scores it."""

    @property
    def deciding(self) -> CategoryScore | None:
        """The reached score that decided: the strictest action, then the highest score."""
        reached = [score for score in self.scores if score.is_reached]
        return max(reached, key=lambda score: (score.action, score.score), default=None)


@dataclass(frozen=True)
class Contribution:
    """How much one feature of a model's own vocabulary moved a category's score."""

    category: str
    feature: str
    weight: float


@dataclass(frozen=True)
class Evidence:
    """The whole evidence of one decision: enough to explain it, nothing of the text."""

    verdict: Verdict
    tenant_id: str
    request_id: str
    direction: Direction
    decided_at_ms: int
    latency_us: int
    segment_count: int
    characters: int
    offending_segment_ids: tuple[str, ...]
    contributions: tuple[Contribution, ...]
    method: str

    @property
    def summary(self) -> str:
        """The decision in words a caller can read."""
        verdict, deciding = self.verdict, self.verdict.deciding
        policy = f"policy {verdict.policy_id} version {verdict.policy_version}"
        if deciding is None:
            if verdict.action is Action.BLOCK:
                return f"Blocked because a check could not be made and {policy} fails closed."
            allowed = "Let through unchecked" if verdict.action is Action.SKIPPED else "Let through"
            return f"{allowed}: no score reached a threshold of {policy}."
        done = "Blocked" if verdict.action is Action.BLOCK else "Let through and flagged"
        where = f" in {', '.join(self.offending_segment_ids[:5])}" if self.offending_segment_ids else ""
        return f"{done}: {deciding.category} {deciding.score:.3f} reached {deciding.threshold:.3f}{where} ({policy})."


class EvidenceStore(Protocol):
    """Keeps evidence for a bounded time."""

    async def append(self, evidence: Evidence) -> None:
        """Keep it; on return it survives a restart."""
        ...

    async def find(self, decision_id: str) -> Evidence | None: ...
