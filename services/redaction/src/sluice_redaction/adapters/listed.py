"""A recognizer as callers see it, and what a worker needs of a detector."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sluice_redaction.domain.findings import Detector


@dataclass(frozen=True, slots=True)
class Listed:
    """A recognizer as callers see it. digest: of its model or its patterns. pattern_count: 0 for models."""

    name: str
    kinds: Sequence[str]
    digest: str = field(default="")
    pattern_count: int = 0


class ListedDetector(Detector, Protocol):
    """A detector that tells what it is made of."""

    def listed(self) -> list[Listed]:
        """Its recognizers, in the order they are asked."""
        ...
