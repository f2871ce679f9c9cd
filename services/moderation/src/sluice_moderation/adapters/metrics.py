"""Prometheus metrics of the moderation service."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from sluice_moderation.domain.verdict import Evidence

DECISIONS = Counter(
    "sluice_moderation_decisions_total",
    "Verdicts, by what was done and the category that decided (`none`: no threshold reached).",
    ("action", "category", "direction", "policy"),
)
DURATION = Histogram(
    "sluice_moderation_duration_seconds",
    "Time spent judging one call; of a stream, without the waiting for its text.",
    ("direction", "streamed"),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
WINDOWS = Counter("sluice_moderation_windows_total", "Windows of text handed to the classifiers.")
WITHHELD = Counter("sluice_moderation_withheld_sentences_total", "Sentences of streams that were not released.")
LOST_EVIDENCE = Counter("sluice_moderation_lost_evidence_total", "Verdicts whose evidence could not be stored.")
DETECTOR_FAILURES = Counter(
    "sluice_moderation_detector_failures_total", "Batches that a classifier could not score.", ("detector",)
)


def observe(evidence: Evidence, *, streamed: bool) -> None:
    """Count one decision."""
    verdict, deciding = evidence.verdict, evidence.verdict.deciding
    category = deciding.category if deciding else "none"
    DECISIONS.labels(verdict.action.name.lower(), category, evidence.direction.value, verdict.policy_id).inc()
    DURATION.labels(evidence.direction.value, str(streamed).lower()).observe(evidence.latency_us / 1e6)
