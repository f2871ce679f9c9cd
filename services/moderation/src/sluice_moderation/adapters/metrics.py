"""Prometheus metrics of the moderation service."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from sluice_moderation.domain.verdict import Evidence

DECISIONS = Counter(
    "sluice_moderation_decisions_total",
    "Verdicts, by what was done and the category that decided (`none`: no threshold reached).",
    ("action", "category", "direction", "policy"),
)
SHADOWS = Counter(
    "sluice_moderation_shadow_decisions_total",
    "Verdicts of policies that are not enforced, beside what the enforced one did.",
    ("policy", "action", "enforced_action", "direction"),
)
SHADOW_FAILURES = Counter(
    "sluice_moderation_shadow_failures_total", "Shadow policies that failed and were left out of a call."
)
DURATION = Histogram(
    "sluice_moderation_duration_seconds",
    "Time spent judging one call; of a stream, without the waiting for its text.",
    ("direction", "streamed"),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
WINDOWS = Counter("sluice_moderation_windows_total", "Windows of text handed to the classifiers.")
CACHED = Counter("sluice_moderation_score_cache_total", "Windows looked up among known scores.", ("result",))
WITHHELD = Counter("sluice_moderation_withheld_sentences_total", "Sentences of streams that were not released.")
REDACTED = Counter("sluice_moderation_redacted_sentences_total", "Sentences that a marker stands for.")
HELD = Histogram(
    "sluice_moderation_held_characters",
    "Characters of a stream that wait for the end of their sentence, looked at whenever text came.",
    buckets=(0, 8, 16, 32, 64, 128, 256, 400),
)
FIRST_TEXT = Histogram(
    "sluice_moderation_added_time_to_first_text_seconds",
    "From the first text of a stream to the first that was released: the waiting for its sentence and the judging.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
FIRST_JUDGED = Histogram(
    "sluice_moderation_first_judgement_seconds",
    "Of the time to the first released text, the part that judging took.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
UNSCORED = Counter(
    "sluice_moderation_unscored_calls_total", "Calls in which a check was not made, by why.", ("reason",)
)
LOST_EVIDENCE = Counter("sluice_moderation_lost_evidence_total", "Verdicts whose evidence could not be stored.")
DETECTOR_FAILURES = Counter(
    "sluice_moderation_detector_failures_total", "Batches that a classifier could not score.", ("detector",)
)


def observe(evidence: Evidence, *, streamed: bool) -> None:
    """Count one decision that was enforced."""
    REDACTED.inc(evidence.redacted_sentences)
    for reason in {skipped.reason for skipped in evidence.verdict.skipped} & {
        "detector_error",
        "deadline",
        "detector_unavailable",
    }:
        UNSCORED.labels(reason).inc()
    for shadow in evidence.shadows:
        SHADOWS.labels(
            shadow.policy_id, shadow.action.name.lower(), evidence.verdict.action.name.lower(), evidence.direction.value
        ).inc()
    verdict, deciding = evidence.verdict, evidence.verdict.deciding
    category = deciding.category if deciding else "none"
    DECISIONS.labels(verdict.action.name.lower(), category, evidence.direction.value, verdict.policy_id).inc()
    DURATION.labels(evidence.direction.value, str(streamed).lower()).observe(evidence.latency_us / 1e6)
