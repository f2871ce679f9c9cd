"""A finding: where personal data stands in a text. It never carries the value itself."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """`text[start:end]`, in Unicode code points, is personal data of a kind.

    score: 0..1, the recognizer's own confidence. recognizer: who found it. explanation: a keyword saying by which
    pattern, label or rule; never text of the user. confirmed: a checksum, a word beside the value or an issuer's
    prefix speaks for the kind, so a model's guess of another kind does not count against it.

    pattern: name of the pattern or label that matched. context: the word beside the value that raised the score, from
    the recognizer's own list; empty if none did. original_score: before context and validation; None if it is `score`.
    validation: the check that the value passed ("luhn", "mod 97"); empty if there is none.
    context_distance: characters between that word and the value.
    disguise: what had to be seen through to find it (`domain/disguise.py`), joined by `+`; empty if there was nothing.
    """

    start: int
    end: int
    kind: str
    score: float
    recognizer: str
    explanation: str = ""
    confirmed: bool = False
    pattern: str = ""
    context: str = ""
    original_score: float | None = field(default=None, compare=False)
    validation: str = ""
    context_distance: int = field(default=0, compare=False)
    disguise: str = ""

    def shifted(self, offset: int) -> "Finding":
        return replace(self, start=self.start + offset, end=self.end + offset)

    def overlaps(self, other: "Finding") -> bool:
        return self.start < other.end and other.start < self.end


class Detector(Protocol):
    """Finds personal data in one text of bounded length."""

    def detect(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        """Candidate findings of at least the given kinds, of every score, overlapping or not. Deterministic."""
        ...

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        """The part of `detect` that asks no model: for texts that only a disguise makes necessary to look at."""
        ...
