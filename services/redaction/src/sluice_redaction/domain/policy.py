"""Which findings count and what is done with them: kinds with a threshold and an operator each, words that are nobody's
secret and words that always are."""

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .findings import Detector, Finding
from .kinds import DEFAULT_KINDS, KINDS
from .operators import REPLACE, Operation, Operator
from .recognizers import Recognizer, TextPattern

LANGUAGES = ("en",)  # what the recognizers of names know


class Direction(StrEnum):
    """Which way a text flows."""

    INPUT = "input"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class KindRule:
    """What differs for one kind. None: as the policy has it. direction None: both."""

    operator: Operator | None = None
    min_score: float | None = None
    direction: Direction | None = None


@dataclass(frozen=True)
class Policy:
    """kinds: all that are looked for. min_score: 0..1. allowed: values (lower case) that are left alone. operator: for
    kinds whose rule has none. version: raised with every change of what the policy does. tenants: whom it is for; empty
    means everybody. regions: ISO 3166, whose formats made-up values have; the first where nothing else tells.
    recognizers: those it brings along, word lists among them; custom_kinds: what only these find.
    digest: `sha256:...` of all of this, however it was written.
    """

    id: str = "default"
    version: int = 1
    kinds: frozenset[str] = DEFAULT_KINDS
    min_score: float = 0.4
    allowed: frozenset[str] = frozenset()
    rules: Mapping[str, KindRule] = field(default_factory=dict, hash=False)
    operator: Operator = REPLACE
    description: str = ""
    tenants: frozenset[str] = frozenset()
    languages: tuple[str, ...] = LANGUAGES
    regions: tuple[str, ...] = ("US",)
    allowed_patterns: tuple[TextPattern, ...] = ()
    recognizers: tuple[Recognizer, ...] = ()
    digest: str = field(init=False)
    custom_kinds: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        own = frozenset(one.kind for one in self.recognizers if one.kind not in KINDS)
        object.__setattr__(self, "custom_kinds", own)
        object.__setattr__(self, "digest", _digest(self))

    @classmethod
    def of(
        cls, kinds: Iterable[str] = (), *, id: str = "default", min_score: float = 0.4, allowed: Iterable[str] = ()
    ) -> "Policy":
        """No kinds = the default kinds. Raises ValueError naming a kind that does not exist or a score out of range."""
        wanted = frozenset(kinds) or DEFAULT_KINDS
        unknown = sorted(wanted - KINDS.keys())
        if unknown:
            raise ValueError(f"unknown kinds: {', '.join(unknown)}; known are {', '.join(KINDS)}")
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score is {min_score}; it must lie between 0 and 1")
        return cls(id=id, kinds=wanted, min_score=min_score, allowed=frozenset(word.casefold() for word in allowed))

    def operator_for(self, kind: str) -> Operator:
        rule = self.rules.get(kind)
        return rule.operator if rule and rule.operator else self.operator

    def min_score_for(self, kind: str) -> float:
        rule = self.rules.get(kind)
        return rule.min_score if rule and rule.min_score is not None else self.min_score

    def direction_of(self, kind: str) -> Direction | None:
        """Which way alone the kind is looked for; None: both."""
        rule = self.rules.get(kind)
        return rule.direction if rule else None

    def keeps(self, kind: str) -> bool:
        """Whether values of the kind are told and left in the text."""
        return self.operator_for(kind).operation is Operation.KEEP

    @property
    def replaced_kinds(self) -> frozenset[str]:
        return frozenset(kind for kind in self.kinds if not self.keeps(kind))

    @property
    def needs_key(self) -> bool:
        return any(self.operator_for(kind).needs_key for kind in self.kinds)

    def toward(self, direction: Direction | None) -> "Policy":
        """The same policy, of the same digest, with the kinds of one direction only; None: of both."""
        if direction is None:
            return self
        kinds = frozenset(kind for kind in self.kinds if self.direction_of(kind) in (None, direction))
        if kinds == self.kinds:
            return self
        # Not by `replace`, which would take the digest of every word list again for each call.
        view = copy.copy(self)
        object.__setattr__(view, "kinds", kinds)
        return view

    def accepts(self, finding: Finding, text: str) -> bool:
        return (
            finding.kind in self.kinds
            and finding.score >= self.min_score_for(finding.kind)
            and not self._is_allowed(text[finding.start : finding.end])
        )

    def with_recognizers(self, detector: Detector) -> Detector:
        """The detector, and beside it the recognizers that the policy brings along."""
        return _Accompanied(detector, self.recognizers) if self.recognizers else detector

    def _is_allowed(self, value: str) -> bool:
        if self.allowed and value.casefold() in self.allowed:
            return True
        return any(pattern.is_whole(value) for pattern in self.allowed_patterns)


@dataclass(frozen=True, slots=True)
class _Accompanied:
    detector: Detector
    recognizers: tuple[Recognizer, ...]

    def detect(self, text: str, kinds: frozenset[str]) -> Iterator[Finding]:
        yield from self.detector.detect(text, kinds)
        yield from self._own(text, kinds)

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> Iterator[Finding]:
        yield from self.detector.detect_patterns(text, kinds)
        yield from self._own(text, kinds)

    def _own(self, text: str, kinds: frozenset[str]) -> Iterator[Finding]:
        for one in self.recognizers:
            if one.kind in kinds:
                yield from one.find(text)


def _digest(policy: Policy) -> str:
    rules = {
        kind: [repr(policy.operator_for(kind)), policy.min_score_for(kind), policy.direction_of(kind)]
        for kind in sorted(policy.kinds)
    }
    content = [
        policy.id, policy.version, rules, sorted(policy.allowed), sorted(policy.tenants), policy.languages, policy.regions,
        [pattern.source for pattern in policy.allowed_patterns], [one.digest for one in policy.recognizers],
    ]  # fmt: skip
    return "sha256:" + hashlib.sha256(json.dumps(content).encode()).hexdigest()
