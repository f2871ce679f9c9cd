"""Ledger rows added up to minutes, as parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sluice_insight.domain.board import MINUTE
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
    """Minutes of cost by series and currency, for `history` microseconds. Every row is added that is given: whoever reads them
    leaves copies out by number and id, for the offset of a row may have been another row's before."""

    def __init__(self, *, history: int) -> None:
        self._history = history
        self._minutes: dict[str, Part] = {}

    def add(self, charge: Charge, *, now: int) -> Part | None:
        """Count a row; the part it changed, or None when it is too old."""
        start = charge.at - charge.at % MINUTE
        if start < now - self._history:
            return None
        key = "|".join(("cost", repr(charge.series), str(start), str(charge.partition), charge.currency))
        known = self._minutes.get(key)
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
            self._forget(now)
        self._minutes[key] = part
        return part

    def _forget(self, now: int) -> None:
        for key in [key for key, part in self._minutes.items() if part.start < now - self._history]:
            del self._minutes[key]
