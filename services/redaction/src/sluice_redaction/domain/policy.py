"""Which findings count: the kinds asked for, the score needed, and words that are nobody's secret."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from .findings import Finding
from .kinds import DEFAULT_KINDS, KINDS


@dataclass(frozen=True, slots=True)
class Policy:
    """kinds: names from `KINDS`. min_score: 0..1. allowed: values (lower case) that are left alone. version: raised
    with every change of what the policy does."""

    id: str = "default"
    version: int = 1
    kinds: frozenset[str] = DEFAULT_KINDS
    min_score: float = 0.4
    allowed: frozenset[str] = frozenset()

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

    def accepts(self, finding: Finding, text: str) -> bool:
        return (
            finding.kind in self.kinds
            and finding.score >= self.min_score
            and (not self.allowed or text[finding.start : finding.end].casefold() not in self.allowed)
        )


def policies(default: Policy) -> Mapping[str, Policy]:
    """By id: `default`; `everything`, which takes out every kind there is; `secrets`, API keys and passwords only."""
    choices = (
        default,
        replace(default, id="everything", kinds=frozenset(KINDS)),
        replace(default, id="secrets", kinds=frozenset({"API_KEY"})),
    )
    return MappingProxyType({policy.id: policy for policy in choices})
