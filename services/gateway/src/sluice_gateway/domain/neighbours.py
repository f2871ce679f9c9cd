"""What the gateway needs of the services around it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sluice_gateway.domain.chat import ChatRequest, EmbedRequest, FinishReason, Usage, Vectors
from sluice_gateway.domain.completion import Completion, KindCount
from sluice_gateway.domain.segments import Segment
from sluice_gateway.domain.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Redaction:
    """Redacted texts in the order they were given, and what was taken out. Only adapters know what a vault is."""

    texts: tuple[str, ...]
    vault: object = None
    counts: tuple[KindCount, ...] = ()
    policy: str = ""
    """`id@version`."""


@dataclass(frozen=True, slots=True)
class RedactionEnd:
    """The end of a redacted stream: what the model had made up and was replaced."""

    counts: tuple[KindCount, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelText:
    """New text from the model, and how many tokens it stands for."""

    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class ModelStart:
    """The model took the request on."""

    model: str


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """The model's answer is whole."""

    finish_reason: FinishReason
    usage: Usage | None


class ModelStream(Protocol):
    """A running generation."""

    async def receive(self) -> ModelStart | ModelText | ModelEnd:
        """The next event; ModelEnd is the last. Raises Rejection when the model fails."""

    def cancel(self) -> None:
        """Stop the computation; harmless when it has ended."""


class ModerationStream(Protocol):
    """Text goes in, judged text comes out, in order."""

    async def send(self, text: str) -> None:
        """Give text to be judged. Waits while the filter is behind (backpressure)."""

    async def finish(self) -> None:
        """Say that no more text comes."""

    async def receive(self) -> str | Verdict:
        """Judged text, or the verdict as the last thing."""

    def cancel(self) -> None:
        """Let go of the stream; harmless when it has ended."""


class RedactionStream(Protocol):
    """Text goes in, redacted and restored text comes out, in order."""

    async def send(self, text: str) -> None:
        """Give text to be redacted. Waits while the filter is behind (backpressure)."""

    async def finish(self) -> None:
        """Say that no more text comes."""

    async def receive(self) -> str | RedactionEnd:
        """Text for the caller, or what was found as the last thing."""

    def cancel(self) -> None:
        """Let go of the stream; harmless when it has ended."""


class Model(Protocol):
    """The inference service."""

    def generate(
        self, request: ChatRequest, *, target: str, request_id: str, timeout: float, labels: Mapping[str, str]
    ) -> ModelStream:
        """Begin an answer; failures appear at the first receive. `labels` are told again in what is measured of it."""

    async def embed(self, request: EmbedRequest, *, target: str, timeout: float) -> Vectors:
        """Vectors of the texts. Raises Rejection."""


class Moderator(Protocol):
    """The moderation service. Failures are FilterUnavailable, or Rejection for what the caller can mend."""

    async def moderate(self, segments: Sequence[Segment], *, policy: str, timeout: float, fail_closed: bool) -> Verdict:
        """Judge all texts of a request. `fail_closed`: none may pass unchecked, even where the policy would let it."""

    def stream(self, *, policy: str, timeout: float, fail_closed: bool) -> ModerationStream:
        """Judge an answer while it comes; `fail_closed` as above."""


class Redactor(Protocol):
    """The redaction service. Failures are FilterUnavailable, or Rejection for what the caller can mend."""

    async def redact(
        self, segments: Sequence[Segment], *, policy: str, timeout: float, vault: object = None
    ) -> Redaction:
        """Redact all texts of a request with one vault."""

    def stream(self, *, policy: str, vault: object, timeout: float, as_json: bool) -> RedactionStream:
        """Redact an answer while it comes, and put the vault's values back."""


class EventSink(Protocol):
    """Where completions go."""

    def check_room(self) -> None:
        """Raises Rejection (unavailable) when a request that begins now could probably not be recorded at its end."""

    async def completed(self, completion: Completion) -> None:
        """Make it durable; returns when a crash can no longer lose it."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """All of them."""

    model: Model
    moderator: Moderator
    redactor: Redactor
    events: EventSink
