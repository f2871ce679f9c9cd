"""A recognizer as callers see it."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Listed:
    """A recognizer as callers see it. digest: of its model, empty for patterns. pattern_count: 0 for models."""

    name: str
    kinds: Sequence[str]
    digest: str = field(default="")
    pattern_count: int = 0
