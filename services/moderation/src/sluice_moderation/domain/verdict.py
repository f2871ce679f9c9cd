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
    policy_digest: str = ""

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
class Offence:
    """Where a threshold was reached: code points `start` to `end` of a segment. `view`: as_written, folded or term.

    `joined`: the score is that of the sentence together with what stands before it.
    """

    segment_id: str
    sentence: int
    start: int
    end: int
    category: str
    score: float
    action: Action
    view: str
    joined: bool


@dataclass(frozen=True)
class ShadowVerdict:
    """What a policy that is not enforced decided on the same scores."""

    decision_id: str
    policy_id: str
    policy_version: int
    action: Action


_DONE = {
    Action.ALLOW: "Let through",
    Action.SKIPPED: "Let through unchecked",
    Action.FLAG: "Let through and flagged",
    Action.REDACT: "Let through with the offending sentences replaced",
    Action.HOLD: "Withheld until a person has looked",
    Action.BLOCK: "Blocked",
}


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
    language: str = "en"
    streamed: bool = False
    offences: tuple[Offence, ...] = ()
    redacted_sentences: int = 0
    shadows: tuple[ShadowVerdict, ...] = ()
    enforced_decision_id: str = ""
    """Of a shadow policy's decision: the one that was enforced."""

    @property
    def is_shadow(self) -> bool:
        return bool(self.enforced_decision_id)

    @property
    def summary(self) -> str:
        """The decision in words a caller can read."""
        verdict, deciding = self.verdict, self.verdict.deciding
        policy = f"policy {verdict.policy_id} version {verdict.policy_version}"
        told = "Not enforced (shadow policy). " if self.is_shadow else ""
        if verdict.action is Action.BLOCK and (deciding is None or deciding.action is not Action.BLOCK):
            return f"{told}Blocked because a check could not be made ({self._unmade}) and {policy} or the caller fails closed."
        done = _DONE[verdict.action]
        if deciding is None:
            return f"{told}{done}: no score reached a threshold of {policy}."
        where = f" in {', '.join(self.offending_segment_ids[:5])}" if self.offending_segment_ids else ""
        return f"{told}{done}: {deciding.category} {deciding.score:.3f} reached {deciding.threshold:.3f}{where} ({policy})."

    @property
    def _unmade(self) -> str:
        reasons = {s.reason for s in self.verdict.skipped} & {"detector_error", "detector_unavailable", "deadline"}
        return ", ".join(sorted(reasons)) or "failed"


class EvidenceStore(Protocol):
    """Keeps evidence for a bounded time."""

    async def append(self, evidence: Evidence) -> None:
        """Keep it; on return it survives a restart."""
        ...

    async def find(self, decision_id: str) -> Evidence | None: ...
