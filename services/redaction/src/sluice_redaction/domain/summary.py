"""What the mesh is told of a redaction: kinds and counts, never values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .policy import Policy


@dataclass(frozen=True, slots=True)
class Summary:
    """One Redact call or one stream. characters are code points; held_back is the most at once while streaming.

    first_text_seconds: from the first text received by a stream to the first released; None if none was.
    """

    policy: Policy
    outgoing: bool
    streamed: bool
    counts: Mapping[str, int]
    recognizer_counts: Mapping[str, int]
    segments: int
    characters: int
    latency_seconds: float
    restored: int = 0
    held_back: int = field(default=0)
    first_text_seconds: float | None = None
    operator_counts: Mapping[str, int] = field(default_factory=dict)


class Journal(Protocol):
    """Where summaries go."""

    async def text_redacted(self, summary: Summary) -> None:
        """Takes a summary; does not wait for anybody to read it."""
        ...
