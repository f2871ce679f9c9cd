"""The newest windows of fairness for Prometheus, with a bounded number of series."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sluice.events.v1.fairness_pb2 import FAIRNESS_VERDICT_COMPARABLE, FAIRNESS_VERDICT_DISPARATE, FairnessMeasured

from sluice_insight.adapters.comparisons import Comparisons, FairnessMeasurement
from sluice_insight.adapters.exposition import OTHER

GRACE = 600 * 1_000_000
"""A window stands for now until the next one should have been measured, and so many microseconds more: it closes late, and is then computed."""
LABELS = ("tenant", "model", "attribute")
_Labels = tuple[str, ...]


@dataclass(slots=True)
class _Found:
    """What the newest window says of a tenant's groups of one attribute; projects and policies each for themselves."""

    observations: int = 0
    compared: int = 0
    disparities: int = 0
    below_four_fifths: int = 0
    lowest_ratio: float | None = None

    def add(self, event: FairnessMeasured) -> None:
        is_disparate = event.verdict == FAIRNESS_VERDICT_DISPARATE
        self.disparities += is_disparate
        if event.metric != "selection_rate":
            return
        self.observations += event.sample_count
        self.compared += event.verdict in (FAIRNESS_VERDICT_COMPARABLE, FAIRNESS_VERDICT_DISPARATE)
        self.below_four_fifths += is_disparate and event.below_four_fifths
        if event.HasField("ratio"):
            self._see(event.ratio)

    def merge(self, other: _Found) -> None:
        self.observations += other.observations
        self.compared += other.compared
        self.disparities += other.disparities
        self.below_four_fifths += other.below_four_fifths
        if other.lowest_ratio is not None:
            self._see(other.lowest_ratio)

    def _see(self, ratio: float) -> None:
        self.lowest_ratio = ratio if self.lowest_ratio is None else min(self.lowest_ratio, ratio)


_FAMILIES: dict[str, tuple[str, Callable[[_Found], float | None]]] = {
    "selection_ratio": (
        "Smallest ratio of a group's selection rate to its reference's, chance differences included.",
        lambda found: found.lowest_ratio,
    ),
    "below_four_fifths": (
        "Groups whose selection rate differs at the stated false-alarm rate and is below four fifths of the reference's.",
        lambda found: found.below_four_fifths,
    ),
    "disparities": (
        "Metrics of groups that differ from the reference's at the stated false-alarm rate.",
        lambda found: found.disparities,
    ),
    "groups_compared": (
        "Groups with enough observations of the selection rate to be compared; of the others nothing is said.",
        lambda found: found.compared,
    ),
}


class FairnessGauges(Collector):
    """Gauges `sluice_insight_fairness_<what>{tenant,model,attribute}` of the newest long window; minutes are too small to act on.

    Only the `limit` series with the most observations keep their names. The rest are one series `other`, in which no difference is
    lost, and are counted. Which group it is says `ListFairness`: as a label it would take ten times as many series.
    """

    def __init__(self, *, comparisons: Comparisons, limit: int, now: Callable[[], float] = time.time) -> None:
        self._comparisons = comparisons
        self._limit = limit
        self._now = now

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing to check at registration."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Called at every scrape."""
        found = self._newest()
        shown = _bounded(found, self._limit)
        for name, (text, value_of) in _FAMILIES.items():
            family = GaugeMetricFamily(
                f"sluice_insight_fairness_{name}", f"{text} Newest complete long window.", labels=LABELS
            )
            for labels, each in shown.items():
                if (value := value_of(each)) is not None:
                    family.add_metric(labels, value)
            yield family
        left = GaugeMetricFamily(
            "sluice_insight_fairness_series_in_other", "Series of fairness that are shown together as `other`."
        )
        left.add_metric([], max(len(found) - self._limit, 0))
        yield left

    def _newest(self) -> dict[_Labels, _Found]:
        now = int(self._now() * 1_000_000)
        by_labels: defaultdict[_Labels, list[FairnessMeasurement]] = defaultdict(list)
        for one in self._comparisons.fairness.find(lambda one: _stands_for_now(one, now)):
            by_labels[one.key.tenant_id, one.key.model, one.key.attribute].append(one)
        found: defaultdict[_Labels, _Found] = defaultdict(_Found)
        for labels, members in by_labels.items():
            # A group that was not seen in the newest window is kept from an older one, which says nothing of now.
            start = max(one.rank[0] for one in members)
            for one in members:
                if one.rank[0] == start:
                    found[labels].add(one.event)
        return found


def _stands_for_now(one: FairnessMeasurement, now: int) -> bool:
    if not one.is_long or not one.key.group:
        return False
    length = one.event.window.length.seconds * 1_000_000
    # Only closed windows are measured; one that ends in the future is of a wrong clock, and would hide the others.
    return length <= now - one.rank[0] < 2 * length + GRACE


def _bounded(found: dict[_Labels, _Found], limit: int) -> dict[_Labels, _Found]:
    ranked = sorted(found, key=lambda labels: (-found[labels].observations, labels))
    shown = {labels: found[labels] for labels in ranked[:limit]}
    if rest := ranked[limit:]:
        other = shown[OTHER, OTHER, OTHER] = _Found()
        for labels in rest:
            other.merge(found[labels])
    return shown
