"""What the worker tells of itself to Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

FACTS = Counter("sluice_quality_facts", "Events merged into windows.", ["topic"])
DROPPED = Counter("sluice_quality_dropped_facts", "Facts that count nowhere, by reason.", ["reason"])
DEAD_LETTERS = Counter("sluice_quality_dead_letters", "Events that could not be read.", ["topic"])
PUBLISHED = Counter("sluice_quality_published_parts", "Parts of windows published.")
BATCH_SECONDS = Histogram(
    "sluice_quality_batch_seconds",
    "Time to merge and store one batch of one partition.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
WINDOWS = Gauge("sluice_quality_windows", "Windows remembered.", ["partition"])
WAITING = Gauge("sluice_quality_waiting_feedback", "Feedback whose completion has not come.", ["partition"])
