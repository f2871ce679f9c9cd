"""Precision, recall, F1 and F2 of findings against gold values, by span and by character, with bootstrap intervals.

* exact: same family, and the same letters and digits; neutral ones beside them (the town of an address) may be in it or not.
* overlap: a finding is right if it touches a gold value of its family; a gold value is found if findings of its family cover at
  least half of its letters and digits.
* characters: letters and digits, of the right family in the table by kind, of any family in the total (what is covered is safe,
  whatever it was taken for).
* covered: all letters and digits of a gold value are covered, by whatever kind.

Neutral gold values (places, organisations, dates) count neither way, nor do findings that touch nothing but them, nor
findings of optional kinds that touch no value they could answer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .families import FAMILIES, OPTIONAL, answers, family_of_finding, family_of_gold
from .samples import Gold, Sample

_COLUMNS = "gold exact_hit overlap_hit covered found exact_right overlap_right char_gold char_hit char_found char_right".split()
_AT = {name: place for place, name in enumerate(_COLUMNS)}
_ROW = {family: row for row, family in enumerate(FAMILIES)}


@dataclass(frozen=True)
class Span:
    """A finding: `text[start:end]` is a `kind`, in the system's own name of it."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Rates:
    precision: float
    recall: float

    def f(self, beta: float) -> float:
        """F-beta: recall counts beta times as much as precision; nan where nothing was there to find."""
        if not self.recall > 0 or not self.precision > 0:
            return 0.0 if self.recall == 0 or self.precision == 0 else float("nan")
        return (1 + beta * beta) * self.precision * self.recall / (beta * beta * self.precision + self.recall)


class Score:
    """Counts of a set of samples: (samples, families, columns), and of any kind (samples, 4)."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self._counts = np.zeros((len(samples), len(FAMILIES) + 1, len(_COLUMNS)), dtype=np.int32)
        self._any = np.zeros((len(samples), 4), dtype=np.int32)  # gold, hit, found, right
        self.values: list[tuple[int, Gold, bool, bool, bool]] = []  # sample, gold, exact, overlap, covered
        self.false: list[tuple[int, Span]] = []

    def add(self, at: int, spans: Iterable[Span]) -> None:
        sample, found = self.samples[at], list(spans)
        gold = [one for one in sample.gold if not one.neutral]
        letters = {place for place, c in enumerate(sample.text) if c.isalnum()}
        neutral = _places([(g.start, g.end) for g in sample.gold if g.neutral], letters)
        counted = [one for one in found if _counts(one, gold, neutral, letters)]
        self._values(at, gold, counted, found, neutral, letters)
        self._findings(at, gold, counted, neutral, letters)
        covered = _places([(s.start, s.end) for s in counted], letters) - neutral
        covered |= _places([(s.start, s.end) for s in found], letters) & _places(
            [(g.start, g.end) for g in gold], letters
        )
        personal = _places([(g.start, g.end) for g in gold], letters)
        self._any[at] = len(personal), len(personal & covered), len(covered), len(personal & covered)

    def _values(
        self,
        at: int,
        gold: Sequence[Gold],
        counted: Sequence[Span],
        found: Sequence[Span],
        neutral: set[int],
        letters: set[int],
    ) -> None:
        anything = _places([(s.start, s.end) for s in found], letters)
        for one in gold:
            family, places = family_of_gold(one.kind), _places([(one.start, one.end)], letters)
            mine = [s for s in counted if answers(family_of_finding(s.kind), family)]
            exact = any(_places([(s.start, s.end)], letters) - neutral == places for s in mine)
            hit = len(places & _places([(s.start, s.end) for s in mine], letters))
            overlap, covered = 2 * hit >= len(places) and hit > 0, places <= anything
            self.values.append((at, one, exact, overlap, covered))
            row = self._counts[at, _ROW[family]]
            row[[_AT[n] for n in ("gold", "exact_hit", "overlap_hit", "covered", "char_gold", "char_hit")]] += np.array(
                [1, exact, overlap, covered, len(places), hit], dtype=np.int32
            )

    def _findings(
        self, at: int, gold: Sequence[Gold], counted: Sequence[Span], neutral: set[int], letters: set[int]
    ) -> None:
        for one in counted:
            family = family_of_finding(one.kind)
            mine = [g for g in gold if answers(family, family_of_gold(g.kind))]
            places = _places([(one.start, one.end)], letters)
            right = places & _places([(g.start, g.end) for g in mine], letters)
            exact = any(places - neutral == _places([(g.start, g.end)], letters) for g in mine)
            if family in OPTIONAL and not exact and family != "URL":
                places = right  # a place inside an address is no mistake
            if not right:
                self.false.append((at, one))
            target = next((family_of_gold(g.kind) for g in mine if _touches(one, g)), family)
            row = self._counts[at, _ROW.get(target, len(FAMILIES))]
            row[[_AT[n] for n in ("found", "exact_right", "overlap_right", "char_found", "char_right")]] += np.array(
                [1, exact, bool(right), len(places - neutral), len(right)], dtype=np.int32
            )

    # --- results ------------------------------------------------------------------------------------------------
    def rates(self, level: str, family: str | None = None, weights: npt.NDArray[np.int64] | None = None) -> Rates:
        """level: exact, overlap, chars. Without a family: all together (characters: of any kind)."""
        if level == "chars" and family is None:
            total = self._any.sum(axis=0) if weights is None else weights @ self._any
            gold, hit, found, right = (int(n) for n in total)
            return Rates(_share(right, found), _share(hit, gold))
        counts = self._counts.sum(axis=1) if family is None else self._counts[:, _ROW[family]]
        total = counts.sum(axis=0) if weights is None else weights @ counts
        names = {
            "exact": ("exact_right", "found", "exact_hit", "gold"),
            "overlap": ("overlap_right", "found", "overlap_hit", "gold"),
            "chars": ("char_right", "char_found", "char_hit", "char_gold"),
        }[level]
        right, found, hit, gold = (int(total[_AT[name]]) for name in names)
        return Rates(_share(right, found), _share(hit, gold))

    def count(self, column: str, family: str | None = None) -> int:
        counts = self._counts if family is None else self._counts[:, _ROW[family]]
        return int(counts[..., _AT[column]].sum())

    def covered(self) -> float:
        return _share(self.count("covered"), self.count("gold"))

    def interval(
        self, measure: Callable[[npt.NDArray[np.int64]], float], *, seed: int = 0, draws: int = 500
    ) -> tuple[float, float]:
        """95 % percentile bootstrap over texts of a measure that takes weights of the texts (Efron 1979)."""
        chance, n = np.random.default_rng(seed), len(self.samples)
        values = [measure(np.bincount(chance.integers(0, n, n), minlength=n)) for _ in range(draws)]
        low, high = np.nanpercentile(values, [2.5, 97.5])
        return float(low), float(high)


def share_interval(hits: Sequence[bool]) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    n, z = len(hits), 1.96
    if not n:
        return 0.0, 1.0
    p = sum(hits) / n
    middle, spread = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _places(spans: Iterable[tuple[int, int]], letters: set[int]) -> set[int]:
    return {place for start, end in spans for place in range(start, end) if place in letters}


def _touches(span: Span, gold: Gold) -> bool:
    return span.start < gold.end and gold.start < span.end


def _counts(span: Span, gold: Sequence[Gold], neutral: set[int], letters: set[int]) -> bool:
    """Whether a finding is to be judged at all."""
    family = family_of_finding(span.kind)
    if family in OPTIONAL:
        return any(_touches(span, g) and answers(family, family_of_gold(g.kind)) for g in gold)
    places = _places([(span.start, span.end)], letters)
    return bool(places - neutral) or any(_touches(span, g) for g in gold)
