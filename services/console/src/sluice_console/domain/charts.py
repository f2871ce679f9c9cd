"""Charts as data: what the browser's charting library draws, and what the table beside it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sluice_console.domain import wording
from sluice_console.domain.answers import Amount, Point

_TELL: Mapping[str, Callable[[float | None], str]] = {
    "count": wording.count,
    "share": wording.share,
    "seconds": wording.seconds,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One series; a gap is None."""

    name: str
    values: Sequence[float | None]
    tone: str
    """Which of the page's colours: `main`, `good`, `warn`, `bad`, `calm`, `other`."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture with its table. `unit` is `count`, `share`, `seconds` or `money:EUR`."""

    id: str
    title: str
    kind: str
    """`line`, `stack` (bars on one another), `bars` (side by side) or `range` (from `lower` to `upper`, with the value)."""
    unit: str
    labels: Sequence[str]
    lines: Sequence[Line]
    note: str = ""

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to draw."""
        return all(value is None for line in self.lines for value in line.values)

    @property
    def data(self) -> str:
        """For the browser."""
        spec: dict[str, Any] = {
            "kind": self.kind,
            "unit": self.unit,
            "labels": list(self.labels),
            "lines": [{"name": line.name, "values": list(line.values), "tone": line.tone} for line in self.lines],
        }
        return json.dumps(spec, allow_nan=False)

    @property
    def summary(self) -> str:
        """One sentence for who does not see the picture."""
        parts = []
        for line in self.lines:
            known = [value for value in line.values if value is not None]
            if known:
                parts.append(f"{line.name}: latest {self.tell(known[-1])}, highest {self.tell(max(known))}")
        return f"{self.title}. {'; '.join(parts) or 'Nothing measured.'}"

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """The table: label and what each line says there; windows in which nothing was measured left out."""
        found = []
        for i, label in enumerate(self.labels):
            values = [line.values[i] for line in self.lines]
            if any(value is not None for value in values):
                found.append((label, [self.tell(value) for value in values]))
        return found

    def tell(self, value: float | None) -> str:
        """A value in words."""
        if self.unit.startswith("money:"):
            return wording.money(None if value is None else Amount(self.unit[6:], round(value * 10**9)))
        return _TELL[self.unit](value)


def windows(start: datetime, end: datetime, window: timedelta) -> list[datetime]:
    """The beginnings of the windows of a range, aligned as insight aligns them."""
    first = start.timestamp() // window.total_seconds() * window.total_seconds()
    found, at = [], datetime.fromtimestamp(first, tz=start.tzinfo)
    while at < end:
        found.append(at)
        at += window
    return found


def over_time(
    points: Sequence[Point], moments: Sequence[datetime], *, scale: float = 1.0, absent: float | None = None
) -> list[float | None]:
    """Values by window; where several series meet in one window they are added up. `absent` stands where nothing was measured."""
    found: dict[datetime, float] = {}
    for point in points:
        if point.value is not None:
            found[point.start] = found.get(point.start, 0.0) + point.value * scale
    return [found.get(moment, absent) for moment in moments]
