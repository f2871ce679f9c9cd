"""How many seeded values were found, with Wilson's interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from sluice_probes.domain.findings import Detection

_Z = 1.959963984540054  # 95 %


@dataclass(frozen=True)
class Recall:
    """Found of sought, of one kind and name origin."""

    kind: str
    origin: str
    found: int
    sought: int

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
    """Adds rounds up."""

    def __init__(self) -> None:
        self._found: Counter[tuple[str, str]] = Counter()
        self._sought: Counter[tuple[str, str]] = Counter()

    def add(self, detections: Iterable[Detection]) -> None:
        for each in detections:
            self._sought[each.kind, each.origin] += 1
            self._found[each.kind, each.origin] += each.is_found

    def recalls(self) -> list[Recall]:
        """By kind and origin."""
        return [Recall(*key, self._found[key], sought) for key, sought in sorted(self._sought.items())]
