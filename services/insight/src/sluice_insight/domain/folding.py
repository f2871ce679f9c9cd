"""Minutes to hours and hours to days: fewer parts that say the same sums, to the last digit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from sluice_insight.domain.part import Part, Series, Totals

OTHER = "(other)"
"""The series of all series past the largest that a window of the history keeps."""
_HOUR = 3_600_000_000


def folded(parts: Iterable[Part], *, start: int, length: int, most_series: int) -> list[Part]:
    """The parts of one window by family, series and currency, those of all partitions together.

    Sums and sketches are added up. Drift cannot be: of its windows the newest that drifted stands for the whole, or
    the newest that says something. Of each family the `most_series` series with the most revisions (facts counted)
    are kept apart.
    """
    groups: dict[tuple[str, Series, str], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.family, part.series, currency(part)), []).append(part)
    kept = _largest(groups, most_series)
    named: dict[tuple[str, Series, str], list[Part]] = {}
    for (family, series, unit), members in groups.items():
        place = series if (family, series) in kept else Series(tenant_id=OTHER)
        named.setdefault((family, place, unit), []).extend(members)
    return [
        _drift_of(series, members) if family == "drift" else _sum(family, series, unit, members, start, length)
        for (family, series, unit), members in named.items()
        if family != "drift" or series.tenant_id != OTHER  # drifts of other series say nothing of each other
    ]


def currency(part: Part) -> str:
    """The currency of a part of cost; empty for the others."""
    return part.key.rsplit("|", 1)[1] if part.family == "cost" else ""


def _largest(groups: dict[tuple[str, Series, str], list[Part]], most: int) -> set[tuple[str, Series]]:
    sizes: dict[str, Counter[Series]] = {}
    for (family, series, _), members in groups.items():
        sizes.setdefault(family, Counter())[series] += sum(part.revision for part in members)
    return {
        (family, series)
        for family, counts in sizes.items()
        for series in sorted(counts, key=lambda one: (-counts[one], repr(one)))[:most]
    }


def _sum(family: str, series: Series, unit: str, members: Sequence[Part], start: int, length: int) -> Part:
    totals = Totals()
    for part in members:
        totals.merge(part.totals)
    return Part(
        key=f"{family}|{series!r}|{start}|{length}|{unit}",
        family=family,
        series=series,
        start=start,
        length=length,
        partition=0,
        revision=sum(part.revision for part in members),
        closed=family == "cost" or all(part.closed for part in members),
        totals=totals,
    )


def _drift_of(series: Series, members: Sequence[Part]) -> Part:
    def weight(part: Part) -> tuple[bool, float, int]:
        # One that was never closed (its processor went away) must not hide one that was: nobody goes by its verdict.
        reading = part.readings.get("drift.drifted")
        return part.closed, (-1.0 if reading is None or reading.value is None else reading.value), part.start

    return max(members, key=weight)
