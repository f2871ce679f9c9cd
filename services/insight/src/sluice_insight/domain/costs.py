"""Ledger rows added up to minutes, as parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from sluice_insight.domain.board import MINUTE
from sluice_insight.domain.horizon import Horizon
from sluice_insight.domain.part import Part, Series, Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One ledger row. `at` in microseconds; nano_units may be negative (a correction)."""

    partition: int
    at: int
    series: Series
    currency: str
    nano_units: int
    unpriced: bool


class Costs:
    """Minutes of cost by series and currency, for `history` microseconds or until the horizon lets them go.

    Every row is added that is given: whoever reads them leaves copies out by number and id, for the
    offset of a row may have been another row's before."""

    def __init__(self, *, history: int, horizon: Horizon | None = None) -> None:
        self._horizon = horizon or Horizon(history)
        self._minutes: defaultdict[int, dict[str, Part]] = defaultdict(dict)

    def add(self, charge: Charge, *, now: int) -> Part | None:
        """Count a row; the part it changed, or None when it is too old."""
        start = charge.at - charge.at % MINUTE
        if start < (first := self._horizon.first(now)):
            return None
        key = "|".join(("cost", repr(charge.series), str(start), str(charge.partition), charge.currency))
        known = self._minutes[start].get(key)
        counts = Counter(known.totals.counts if known else {})
        counts.update(nano_units=charge.nano_units, records=1, unpriced=int(charge.unpriced))
        part = Part(
            key=key,
            family="cost",
            series=charge.series,
            start=start,
            length=MINUTE,
            partition=charge.partition,
            revision=counts["records"],
            closed=False,
            totals=Totals(counts),
        )
        if known is None:
            self.forget(first)
        self._minutes[start][key] = part
        return part

    def forget(self, before: int) -> None:
        """Let go of what starts before."""
        for start in [start for start in self._minutes if start < before]:
            del self._minutes[start]
