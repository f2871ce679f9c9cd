"""How many seeded values were found, with Wilson's interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import sqrt

from sluice_probes.domain.findings import Detection

MINUTES = 60
MOST_POLICIES = 100
"""As many as there are keys, each of a tenant with one policy. With its seven name origins and five other kinds a policy is twelve series."""
OTHER = "other"
"""All policies beyond those; no policy has this name, for theirs have a version."""
_Z = 1.959963984540054  # 95 %


@dataclass(frozen=True)
class Recall:
    """Found of sought, of one kind and name origin, under one redaction policy."""

    kind: str
    origin: str
    found: int
    sought: int
    policy: str = ""
    """Redaction policy that was in force, `id@version`; empty where answers name none."""

    @property
    def value(self) -> float:
        return self.found / self.sought

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval (1927), which holds near 0 and 1, where filters should be."""
        n, p = self.sought, self.value
        middle, half = p + _Z**2 / (2 * n), _Z * sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
        return max(0.0, (middle - half) / (1 + _Z**2 / n)), min(1.0, (middle + half) / (1 + _Z**2 / n))


class Tally:
    """Adds up the rounds of the last hour, by redaction policy: a filter that goes blind shows within minutes, however long all was well.

    Bounded: a counter for each of sixty minutes, and in the hour a hundred policies; those beyond are added up as `other`.
    """

    def __init__(self) -> None:
        self._minutes: dict[int, Counter[Detection]] = {}

    def add(self, detections: Iterable[Detection], *, at: float) -> None:
        """A round that ended `at`, in seconds of a clock that never goes back."""
        minute = self._forget(at)
        known = {each.redaction_policy for counted in self._minutes.values() for each in counted}
        counted = self._minutes.setdefault(minute, Counter())
        for each in detections:
            policy = each.redaction_policy
            if policy not in known and len(known - {OTHER}) >= MOST_POLICIES:
                policy = OTHER
            known.add(policy)
            counted[replace(each, redaction_policy=policy)] += 1

    def recalls(self, *, at: float) -> list[Recall]:
        """By policy, kind and origin, of the hour before."""
        self._forget(at)
        found: Counter[tuple[str, str, str]] = Counter()
        sought: Counter[tuple[str, str, str]] = Counter()
        for counted in self._minutes.values():
            for each, count in counted.items():
                of = (each.redaction_policy, each.kind, each.origin)
                sought[of] += count
                found[of] += count * each.is_found
        return [
            Recall(kind, origin, found[policy, kind, origin], count, policy)
            for (policy, kind, origin), count in sorted(sought.items())
        ]

    def _forget(self, at: float) -> int:
        minute = int(at // 60)
        self._minutes = {each: counted for each, counted in self._minutes.items() if each > minute - MINUTES}
        return minute
