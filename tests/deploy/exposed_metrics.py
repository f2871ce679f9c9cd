"""Prints what a service's registry holds: python exposed_metrics.py SERVICE writes JSON, metric family to its type and labels.

The service is imported as its own process would import it, in a process of its own. What insight makes of live windows
depends on what was measured: it is fed one part with everything in it.
"""

import importlib
import json
import sys
from collections import Counter
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector


def declared() -> dict[str, tuple[str, list[str]]]:
    """Metrics with their labels, also those that have counted nothing yet."""
    collectors = {id(each): each for each in REGISTRY._names_to_collectors.values()}.values()
    found: dict[str, tuple[str, list[str]]] = {}
    for each in collectors:
        if isinstance(each, MetricWrapperBase):
            found[each._name] = (each._type, list(each._labelnames))
    return found


def measured(*collectors: Collector) -> dict[str, tuple[str, list[str]]]:
    """Metrics of collectors that decide when asked."""
    registry = CollectorRegistry()
    for each in collectors:
        registry.register(each)
    return {
        family.name: (family.type, sorted({label for sample in family.samples for label in sample.labels}))
        for family in registry.collect()
    }


def live_windows() -> dict[str, tuple[str, list[str]]]:
    """Everything that insight can show, from a board with one part of each family, and a comparison."""
    from sluice_insight.adapters.comparisons import Comparisons
    from sluice_insight.adapters.exposition import LiveWindows
    from sluice_insight.adapters.fairness_gauges import FairnessGauges
    from sluice_insight.adapters.sources import SourceGauges, Sources
    from sluice_insight.domain.board import MINUTE, Board

    board = Board(history=60 * MINUTE)
    now = 1_760_000_040 * 1_000_000
    for part in _parts(now):
        board.put(part, now=now)
    found = measured(LiveWindows(board=board, limit=5, now=lambda: now / 1e6 + 60))
    sources = Sources(now=lambda: now / 1e6)
    sources.see(_consumed())
    comparisons = Comparisons()
    comparisons.take(_compared(now))
    fairness = FairnessGauges(comparisons=comparisons, limit=5, now=lambda: now / 1e6)
    return found | measured(SourceGauges(sources), fairness)


def _compared(now: int) -> Any:
    from sluice.events.v1.fairness_pb2 import FairnessMeasured

    event = FairnessMeasured(metric="selection_rate", attribute="input_terms", group="age", ratio=1.0)
    event.window.start.FromMicroseconds(now - 3_600_000_000)
    event.window.length.FromSeconds(3_600)
    return event


def _parts(now: int) -> list[Any]:
    from sluice.events.v1 import quality_pb2
    from sluice_insight.domain.board import MINUTE
    from sluice_insight.domain.part import Part, Reading, Series, Totals
    from sluice_insight.domain.sketch import Sketch

    totals = Totals()
    for prefix, message in (("requests", quality_pb2.RequestTotals), ("feedback", quality_pb2.FeedbackTotals)):
        for field in message.DESCRIPTOR.fields:
            if field.message_type is not None:
                totals.sketches[f"{prefix}.{field.name}"] = Sketch(buckets={600: 1}, sum=100)
            else:
                totals.counts[f"{prefix}.{field.name}"] = 1
    cost = Totals(Counter(nano_units=1, records=1, unpriced=1))
    readings = {name: Reading(1.0, 1) for name in ("drift.drifted", "drift.observations")}
    common: dict[str, Any] = {"series": Series("acme"), "length": MINUTE, "partition": 0, "revision": 1, "closed": True}
    start = now - now % MINUTE - MINUTE
    return [
        Part(key="quality|a", family="quality", start=start, totals=totals, **common),
        Part(key="cost|a|USD", family="cost", start=start, totals=cost, **common),
        Part(key="drift|a", family="drift", start=start, readings=readings, **common),
    ]


def _consumed() -> Any:
    from sluice.events.v1.quality_pb2 import QualityMeasured
    from sluice_kit.consumer import ConsumedEvent

    event = QualityMeasured()
    event.metadata.producer, event.metadata.producer_sequence = "sluice-quality/0#1", 1
    event.metadata.occurred_at.FromSeconds(1_760_000_000)
    topic = "sluice.quality.quality_measured.v1"
    return ConsumedEvent(
        message=event, topic=topic, partition=0, offset=0, key=b"", headers={}, event_id="1", timestamp_ms=0
    )


if __name__ == "__main__":
    importlib.import_module(f"sluice_{sys.argv[1]}.main")
    print(json.dumps(declared() | (live_windows() if sys.argv[1] == "insight" else {})))
