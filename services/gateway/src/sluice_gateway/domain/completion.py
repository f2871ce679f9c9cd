"""What is said of a request when it has ended: gathered while it runs, published exactly once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from sluice_gateway.domain.chat import FinishReason, Usage
from sluice_gateway.domain.rejection import Kind


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
    blocked_categories: tuple[str, ...] = ()
    redacted_input: tuple[KindCount, ...] = ()
    redacted_output: tuple[KindCount, ...] = ()
    skipped_filters: list[str] = field(default_factory=list)
    message_count: int = 0
    input_characters: int = 0
    output_characters: int = 0
    refusal: bool | None = None
    empty_answer: bool | None = None
    redacted_prompt: str | None = None
    redacted_answer: str | None = None

    def skip(self, name: str) -> None:
        """Note a filter that was away and whose tenant lets requests go on without it."""
        if name not in self.skipped_filters:
            self.skipped_filters.append(name)
