"""What the worker tells of itself to Prometheus. No group and no tenant: those are in the events."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

FACTS = Counter("sluice_fairness_facts", "Events merged.", ["topic"])
DROPPED = Counter("sluice_fairness_dropped_facts", "Facts that count nowhere, by reason.", ["reason"])
DEAD_LETTERS = Counter("sluice_fairness_dead_letters", "Events that could not be read.", ["topic"])
PUBLISHED = Counter("sluice_fairness_published_parts", "Parts of windows published.")
MEASURED = Counter("sluice_fairness_measurements", "Metrics of groups published, by verdict.", ["verdict"])
BATCH_SECONDS = Histogram(
    "sluice_fairness_batch_seconds",
    "Time to merge and store one batch of one partition.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
MEASURE_SECONDS = Histogram(
    "sluice_fairness_measure_seconds",
    "Time to compute the metrics of one window; the first imports Fairlearn.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30),
)
WINDOWS = Gauge("sluice_fairness_windows", "Windows remembered.", ["partition"])
REQUESTS = Gauge("sluice_fairness_requests", "Requests remembered.", ["partition"])
