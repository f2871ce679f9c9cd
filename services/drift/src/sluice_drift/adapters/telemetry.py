"""What the worker tells of itself to Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ROUTED = Counter("sluice_drift_routed_observations", "Observations sent on to the owner of their series.")
OBSERVATIONS = Counter("sluice_drift_observations", "Observations merged into references and windows.")
DROPPED = Counter("sluice_drift_dropped_observations", "Observations that count nowhere, by reason.", ["reason"])
DEAD_LETTERS = Counter("sluice_drift_dead_letters", "Events that could not be read.", ["topic"])
PUBLISHED = Counter("sluice_drift_published_windows", "Windows compared and published.")
COMPARE_SECONDS = Histogram(
    "sluice_drift_compare_seconds",
    "Time to compare one window with its reference.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1),
)
WINDOWS = Gauge("sluice_drift_windows", "Windows remembered.", ["partition"])
