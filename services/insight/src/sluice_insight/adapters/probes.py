"""Rounds of self-test probes to parts of the board."""

from __future__ import annotations

from collections import Counter, defaultdict

from sluice.events.v1.probe_pb2 import ProbeMeasured
from sluice.types.v1 import probe_pb2

from sluice_insight.domain import probes
from sluice_insight.domain.part import Part, Series, Totals

_STATES = {
    probe_pb2.GUARD_STATE_GUARDED: "guarded",
    probe_pb2.GUARD_STATE_UNGUARDED: "unguarded",
    probe_pb2.GUARD_STATE_UNAVAILABLE: "unavailable",
}
_SAYS_SOMETHING = frozenset({"guarded", "unguarded"})


def probe_parts(event: ProbeMeasured) -> tuple[Part, ...]:
    """A part for each route and for each redaction policy, and one of neither for the round itself. Raises ValueError for more found than sought."""
    by: defaultdict[Series, Counter[str]] = defaultdict(Counter)
    for check in event.guards:
        # A state from a newer producer says nothing here, and least of all that the guard was on.
        state = _STATES.get(check.state, "untested")
        counted = {probes.CHECKS: 1, state: 1, probes.TRIED: int(state in _SAYS_SOMETHING)}
        for name, count in counted.items():
            of = Series(route=check.route)
            by[of][name] += count
            by[of][probes.guard_count(check.guard, name)] += count
    for each in event.detections:
        by[Series(redaction_policy=each.redaction_policy)].update(_values(each))
    by[Series()][probes.ROUNDS] += 1
    return tuple(_part(event, series, counts) for series, counts in by.items())


def _values(each: probe_pb2.DetectionCount) -> Counter[str]:
    if each.found > each.sought:
        raise ValueError(f"{each.found} of {each.sought} seeded values of {each.kind} found")
    return Counter(
        {
            name: count
            for kind, origin in {("", ""), (each.kind, ""), (each.kind, each.name_origin)}
            for name, count in zip(probes.found(kind, origin), (each.found, each.sought), strict=True)
        }
    )


def _part(event: ProbeMeasured, series: Series, counts: Counter[str]) -> Part:
    policy = f"|{series.redaction_policy}" if series.redaction_policy else ""
    # It says nothing of how far the mesh's traffic is measured: it is complete when it comes, and has no watermark.
    return Part(
        key=f"{event.part.part_key}|{series.route}{policy}",
        family="probe",
        series=series,
        start=event.window.start.ToMicroseconds(),
        length=event.window.length.ToMicroseconds(),
        partition=event.part.source_partition,
        revision=event.part.revision,
        closed=event.part.closed,
        totals=Totals(counts),
    )
