"""What moderation decided of a text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Decision(Enum):
    """What moderation's policy does with a text."""

    ALLOW = "allow"
    FLAG = "flag"
    REDACT = "redact"
    HOLD = "hold"
    BLOCK = "block"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What moderation decided; `categories` are those at or above their threshold.

    `unmade`: why a check could not be made; empty where all were.
    `replaced`: of a REDACT on the way in, the segments that go on with other text, by id. No decision at all: the filter was away
    and the tenant goes on without it.
    """

    decision_id: str
    decision: Decision | None = None
    categories: tuple[str, ...] = ()
    policy: str = ""
    unmade: str = ""
    replaced: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_withheld(self) -> bool:
        """Nothing of the text goes on: for good, or until a person has looked."""
        return self.decision in (Decision.BLOCK, Decision.HOLD)

    @property
    def is_unjudged(self) -> bool:
        """Withheld only because a check could not be made: nothing was found in the text."""
        return self.is_withheld and bool(self.unmade) and not self.categories

    @property
    def is_unchecked(self) -> bool:
        """Goes on although not all of it was checked."""
        return not self.is_withheld and (self.decision is Decision.SKIPPED or bool(self.unmade))

    @property
    def reason(self) -> str:
        """The reason code of a text that is withheld; empty for others."""
        if self.decision is Decision.HOLD:
            return "CONTENT_HELD"
        return "CONTENT_BLOCKED" if self.decision is Decision.BLOCK else ""
