"""What is said of a request when it has ended: gathered while it runs, published exactly once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from sluice_gateway.domain.chat import FinishReason, Usage, Variant
from sluice_gateway.domain.configuration import ContentCapture
from sluice_gateway.domain.rejection import Kind
from sluice_gateway.domain.verdict import Decision, Verdict


class Outcome(Enum):
    """How a request ended."""

    COMPLETED = "completed"
    BLOCKED_INPUT = "blocked_input"
    BLOCKED_OUTPUT = "blocked_output"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    INVALID = "invalid"
    SHED = "shed"


class Protocol(Enum):
    """By which door a request came."""

    GRPC = "grpc"
    HTTP = "http"


class Operation(Enum):
    """What was asked for."""

    CHAT = "chat"
    EMBED = "embed"


OUTCOME_OF: Mapping[Kind, Outcome] = {
    Kind.INVALID: Outcome.INVALID,
    Kind.TOO_LARGE: Outcome.INVALID,
    Kind.UNSUPPORTED: Outcome.INVALID,
    Kind.NOT_FOUND: Outcome.INVALID,
    Kind.UNAUTHENTICATED: Outcome.INVALID,
    Kind.EXHAUSTED: Outcome.SHED,
    Kind.BLOCKED: Outcome.BLOCKED_INPUT,
    Kind.UNAVAILABLE: Outcome.FAILED,
    Kind.DEADLINE: Outcome.DEADLINE,
    Kind.CANCELLED: Outcome.CANCELLED,
    Kind.INTERNAL: Outcome.FAILED,
}


@dataclass(frozen=True, slots=True)
class KindCount:
    """How often one kind of personal data was replaced."""

    kind: str
    count: int


@dataclass(slots=True)
class Completion:
    """The facts of one request, filled in as they become known. All times are clock seconds; holds no raw text."""

    operation: Operation
    protocol: Protocol
    arrived_at: float
    api_key_id: str
    tenant_id: str
    project_id: str
    streamed: bool = False
    subject_id: str = ""
    # The configured alias and route: never what the caller wrote, which may be anything.
    model: str = ""
    route: str = ""
    served_model: str = ""
    outcome: Outcome = Outcome.FAILED
    reason: str = ""
    rejection: Kind | None = None
    finish_reason: FinishReason = FinishReason.UNSPECIFIED
    usage: Usage | None = None
    ended_at: float = 0.0
    first_text_at: float | None = None
    generation_began_at: float | None = None
    generation_ended_at: float | None = None
    input_filter_seconds: float | None = None
    decision_ids: list[str] = field(default_factory=list)
    input_decision: Decision | None = None
    output_decision: Decision | None = None
    moderation_policies: list[str] = field(default_factory=list)
    withheld_reason: str = ""
    blocked_categories: tuple[str, ...] = ()
    redacted_input: tuple[KindCount, ...] = ()
    redacted_output: tuple[KindCount, ...] = ()
    redaction_policy: str = ""
    skipped_filters: list[str] = field(default_factory=list)
    message_count: int = 0
    input_characters: int = 0
    output_characters: int = 0
    refusal: bool | None = None
    empty_answer: bool | None = None
    input_language: str = ""
    output_language: str = ""
    language_mismatch: bool | None = None
    repetition_permille: int | None = None
    context_sentences: int = 0
    grounded_sentences: int = 0
    # The hold or lease the request was admitted on; empty where no budget stands over its caller.
    cost_hold_id: str = ""
    budget_limited: bool = False
    budget_unchecked: bool = False
    content_capture: ContentCapture = ContentCapture.NONE
    redacted_prompt: str | None = None
    redacted_answer: str | None = None
    # Why there is no text though the tenant wants it: CALLER_DECLINED or NOT_REDACTED.
    text_left_out: str = ""
    cohorts: Mapping[str, str] = field(default_factory=dict)
    variant: Variant = field(default_factory=Variant)

    @property
    def labels(self) -> Mapping[str, str]:
        """What the model is told of where a request came from: configured names, and never what the caller wrote."""
        return {"route": self.route, **self.variant.labels}

    def note_input(self, verdict: Verdict) -> None:
        """Note what moderation decided on the request."""
        self.input_decision = verdict.decision
        self._note(verdict)

    def note_output(self, verdict: Verdict) -> None:
        """Note what moderation decided on the answer."""
        self.output_decision = verdict.decision
        self._note(verdict)

    def _note(self, verdict: Verdict) -> None:
        if verdict.decision_id:
            self.decision_ids.append(verdict.decision_id)
        if verdict.policy:
            self.moderation_policies.append(verdict.policy)
        if verdict.is_withheld and not verdict.is_unjudged:
            self.blocked_categories, self.withheld_reason = verdict.categories, verdict.reason

    def skip(self, name: str) -> None:
        """Note a filter that was away and whose tenant lets requests go on without it."""
        if name not in self.skipped_filters:
            self.skipped_filters.append(name)
