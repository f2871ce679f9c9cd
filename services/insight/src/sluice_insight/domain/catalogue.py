"""Every metric there is: its name, its unit, and how it comes from merged totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sluice_insight.domain import intervals, probes
from sluice_insight.domain.part import Totals


@dataclass(frozen=True, slots=True)
class Value:
    """A metric's value; value is None where nothing was observed."""

    value: float | None
    sample_count: int
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric over merged totals, or (compute is None) one that is read as it was measured."""

    name: str
    family: str
    unit: str
    description: str
    compute: Callable[[Totals], Value] | None


class UnknownMetric(ValueError):
    """Nobody measures this. `known` has the names of the family that was asked for, else the families: a gRPC error has to fit in the trailers."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown metric {name!r}")
        self.name = name
        families = {each.partition(".")[0] for each in METRICS}
        family = name.partition(".")[0]
        self.known = _names_of(family) if family in families else [f"{each}.*" for each in sorted(families)]


def _names_of(family: str) -> list[str]:
    """The metrics of a family, names of one measure as one pattern."""
    if family == "fairness":  # 121 names, and one pattern
        return [_FAIRNESS_NAMES]
    by_measure: defaultdict[str, list[str]] = defaultdict(list)
    for known in METRICS:
        if known.startswith(f"{family}."):
            measure, _, label = known.rpartition(".")
            by_measure[measure if "." in measure else known].append(label)
    return sorted(
        measure if measure in METRICS else f"{measure}.<{'|'.join(labels)}>" for measure, labels in by_measure.items()
    )


def metric(name: str) -> Metric:
    """A metric by its name. Raises UnknownMetric."""
    try:
        return METRICS[name]
    except KeyError:
        raise UnknownMetric(name) from None


_OBSERVED = {
    "requests": ("requests.requests",),
    "feedback": ("feedback.received",),
    "moderation": ("moderation.inputs", "moderation.outputs"),
    "judgements": ("judgements.judged", "judgements.unusable"),
}


def _count(field: str) -> Callable[[Totals], Value]:
    """A count, of so many observed: no failure among ten requests is a measured 0, no request at all is not."""
    whole = _OBSERVED.get(field.split(".")[0], ("records",))

    def compute(totals: Totals) -> Value:
        return Value(float(totals.counts[field]), sum(totals.counts[name] for name in whole))

    return compute


def _of(field: str, whole: str) -> Callable[[Totals], Value]:
    """A count, of so many others."""

    def compute(totals: Totals) -> Value:
        return Value(float(totals.counts[field]), totals.counts[whole])

    return compute


def _share(part: tuple[str, ...], whole: tuple[str, ...]) -> Callable[[Totals], Value]:
    def compute(totals: Totals) -> Value:
        trials = sum(totals.counts[name] for name in whole)
        # Net feedback counts can be negative in a window that saw retractions only: then there is no share.
        successes = min(max(sum(totals.counts[name] for name in part), 0), trials)
        if trials <= 0:
            return Value(None, 0)
        lower, upper = intervals.wilson(successes, trials)
        return Value(successes / trials, trials, lower, upper)

    return compute


def _quantile(sketch: str, q: float, scale: float) -> Callable[[Totals], Value]:
    def compute(totals: Totals) -> Value:
        found = totals.sketches.get(sketch)
        if found is None or found.count == 0:
            return Value(None, 0)
        value, lower, upper = intervals.quantile(found, q)
        return Value(value * scale, found.count, lower * scale, upper * scale)

    return compute


def _mean(sketch: str, scale: float) -> Callable[[Totals], Value]:
    def compute(totals: Totals) -> Value:
        found = totals.sketches.get(sketch)
        if found is None or found.count == 0:
            return Value(None, 0)
        return Value(found.sum / found.count * scale, found.count)

    return compute


def _ratio(total: str, count: str, scale: float) -> Callable[[Totals], Value]:
    def compute(totals: Totals) -> Value:
        n = totals.counts[count]
        return Value(totals.counts[total] / n * scale if n > 0 else None, max(n, 0))

    return compute


_QUALITY_COUNTS = {
    "quality.requests": ("requests.requests", "Requests that ended."),
    "quality.succeeded": ("requests.succeeded", "Requests answered in full."),
    "quality.failed": ("requests.failed", "Requests that failed, deadline passed included."),
    "quality.cancelled": ("requests.cancelled", "Requests whose caller went away."),
    "quality.blocked_inputs": ("requests.blocked_input", "Requests withheld before the model saw them."),
    "quality.blocked_outputs": ("requests.blocked_output", "Requests whose answer was withheld."),
    "quality.rejected": ("requests.rejected", "Requests refused as invalid or over a limit."),
    "quality.redactions": ("requests.redactions", "Replacements of personal data."),
    "quality.prompt_tokens": ("requests.prompt_tokens", "Input tokens."),
    "quality.completion_tokens": ("requests.completion_tokens", "Output tokens."),
    "quality.feedback": ("feedback.received", "Pieces of feedback, retractions included."),
    "quality.thumbs_up": ("feedback.positive", "Thumbs up, net of retractions."),
    "quality.thumbs_down": ("feedback.negative", "Thumbs down, net of retractions."),
    "quality.ratings": ("feedback.ratings", "Ratings, net of retractions."),
    "quality.comments": ("feedback.comments", "Comments, net of retractions."),
    "quality.corrections": ("feedback.corrections", "Corrections, net of retractions."),
    "quality.retractions": ("feedback.retracted", "Pieces of feedback taken back."),
    "quality.moderated_inputs": ("moderation.inputs", "Moderation decisions on inputs."),
    "quality.moderated_outputs": ("moderation.outputs", "Moderation decisions on outputs."),
    "quality.moderation_flagged": ("moderation.flagged", "Decisions that let through and flagged."),
    "quality.moderation_skipped": ("moderation.skipped", "Decisions with a check skipped."),
    "quality.judged_answers": ("judgements.judged", "Answers that a model graded."),
    "quality.screened_answers": ("judgements.screened", "Answers of which the judge was not shown what spoke to it."),
}
_REQUESTS = ("requests.requests",)
_DECISIONS = ("moderation.inputs", "moderation.outputs")
_QUALITY_SHARES = {
    "quality.success_ratio": (("requests.succeeded",), _REQUESTS, "Requests answered in full, of all."),
    "quality.failed_ratio": (("requests.failed",), _REQUESTS, "Requests that failed, of all."),
    "quality.cancelled_ratio": (("requests.cancelled",), _REQUESTS, "Requests cancelled, of all."),
    "quality.blocked_ratio": (
        ("requests.blocked_input", "requests.blocked_output"),
        _REQUESTS,
        "Requests blocked on the way in or out, of all.",
    ),
    "quality.redacted_ratio": (("requests.redacted_requests",), _REQUESTS, "Requests with personal data, of all."),
    "quality.streamed_ratio": (("requests.streamed",), _REQUESTS, "Streamed requests, of all."),
    "quality.truncated_ratio": (("requests.truncated",), ("requests.succeeded",), "Answers cut at the limit."),
    "quality.refusal_ratio": (("requests.refusals",), ("requests.refusals_judged",), "Refusals, of answers judged."),
    "quality.empty_answer_ratio": (
        ("requests.empty_answers",),
        ("requests.empty_answers_judged",),
        "Empty answers, of answers judged.",
    ),
    "quality.language_mismatch_ratio": (
        ("requests.language_mismatches",),
        ("requests.languages_judged",),
        "Answers in another language than their prompt, of answers judged.",
    ),
    "quality.repetitive_ratio": (
        ("requests.repetitive_answers",),
        ("requests.repetition_judged",),
        "Answers that repeat themselves, of answers judged.",
    ),
    "quality.ungrounded_ratio": (
        ("requests.ungrounded_answers",),
        ("requests.context_answers",),
        "Answers mostly unsupported by their context, of answers with one.",
    ),
    "quality.grounded_sentence_ratio": (
        ("requests.grounded_sentences",),
        ("requests.context_sentences",),
        "Sentences that their context supports, of sentences judged.",
    ),
    "quality.feedback_score": (
        ("feedback.positive",),
        ("feedback.positive", "feedback.negative"),
        "Thumbs up, of all thumbs.",
    ),
    "quality.win_ratio": (
        ("feedback.comparisons_won",),
        ("feedback.comparisons_won", "feedback.comparisons_lost"),
        "Comparisons won, of those with a winner.",
    ),
    "quality.judge_failed_ratio": (
        ("judgements.unusable",),
        ("judgements.judged", "judgements.unusable"),
        "Judgements that could not be used or did not come, of all.",
    ),
    "quality.moderation_blocked_ratio": (
        ("moderation.blocked_inputs", "moderation.blocked_outputs"),
        _DECISIONS,
        "Moderation decisions that blocked.",
    ),
}
_DISTRIBUTIONS = {
    "quality.latency_seconds": ("requests.latency_microseconds", 1e-6, "seconds", "Latency."),
    "quality.time_to_first_token_seconds": (
        "requests.time_to_first_token_microseconds",
        1e-6,
        "seconds",
        "Time to the first text given to the caller.",
    ),
    "quality.tokens_per_second": ("requests.tokens_per_kilosecond", 1e-3, "tokens/second", "Generation speed."),
    "quality.answer_characters": ("requests.answer_characters", 1.0, "characters", "Length of answers."),
    "quality.repetition": ("requests.repetition_permille", 1e-3, "ratio", "Repetition of answers."),
    "quality.moderation_latency_seconds": (
        "moderation.latency_microseconds",
        1e-6,
        "seconds",
        "Time to judge.",
    ),
}
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_DRIFT = {
    "drift.observations": ("1", "Generations observed in the window."),
    "drift.reference_observations": ("1", "Generations in the reference so far."),
    "drift.drifted": ("1", "1 when any feature drifted, 0 when stable; absent while insufficient."),
}
_DRIFT_FEATURES = (
    *(
        f"{side}.{what}"
        for side in ("prompt", "answer")
        for what in ("language", "words", "embedding", "topic", "vocabulary", "variety")
    ),
    "answer.tools",
    "request.outcome",
)
_DRIFT_VALUES = {
    "p_value": ("1", "Chance of such a difference without drift: {}."),
    "statistic": ("1", "Test statistic: {}."),
    "psi": ("nats", "Population stability index: {}."),
    "js": ("bits", "Jensen-Shannon divergence: {}."),
}
_FAIRNESS_GROUPS = (
    "none", "age", "body", "class", "disability", "ethnicity", "gender", "gender_identity", "migration", "religion",
    "sexual_orientation",
)  # fmt: skip
"""The groups of moderation's list of identity terms; `none` for texts that mention nobody."""
_FAIRNESS_SHARES = {
    "selection_rate": (("allowed",), ("judged",), "Decisions that let texts through: {} {}."),
    "block_rate": (("blocked",), ("judged",), "Decisions that blocked or held: {} {}."),
    "flag_rate": (("flagged",), ("judged",), "Decisions that flagged: {} {}."),
    "refusal_rate": (("refusals",), ("refusals_judged",), "Refusals, of answers judged: {} {}."),
    "false_positive_rate": (
        ("false_blocks",),
        ("false_blocks", "upheld_passes"),
        "Blocked, of reviewed decisions that should let through: {} {}.",
    ),
    "false_negative_rate": (
        ("misses",),
        ("misses", "upheld_blocks"),
        "Let through, of reviewed decisions that should block: {} {}.",
    ),
}

_FAIRNESS_NAMES = f"fairness.<input_terms|output_terms>.<{'|'.join(_FAIRNESS_GROUPS)}>.<{'|'.join(_FAIRNESS_SHARES)}>"


def _catalogue() -> Mapping[str, Metric]:
    found: list[Metric] = []
    for name, (field, text) in _QUALITY_COUNTS.items():
        found.append(Metric(name, "quality", "1", text, _count(field)))
    for name, (part, whole, text) in _QUALITY_SHARES.items():
        found.append(Metric(name, "quality", "ratio", text, _share(part, whole)))
    for name, (sketch, scale, unit, text) in _DISTRIBUTIONS.items():
        found.append(Metric(f"{name}.mean", "quality", unit, f"{text} Mean.", _mean(sketch, scale)))
        for label, q in _QUANTILES.items():
            found.append(Metric(f"{name}.{label}", "quality", unit, f"{text} {label}.", _quantile(sketch, q, scale)))
    rating = _ratio("feedback.rating_sum_milli", "feedback.ratings", 1e-3)
    found.append(Metric("quality.rating_mean", "quality", "points", "Mean rating, 1 to 5.", rating))
    judge = _ratio("judgements.score_sum_milli", "judgements.judged", 1e-3)
    found.append(Metric("quality.judge_score", "quality", "points", "Mean score by a judging model, 1 to 5.", judge))
    found += _cost_metrics() + _drift_metrics() + _fairness_metrics() + _probe_metrics()
    return {each.name: each for each in found}


def _cost_metrics() -> list[Metric]:
    return [
        Metric("cost.nano_units", "cost", "nano-units", "Cost in 10^-9 of the currency.", _count("nano_units")),
        Metric("cost.records", "cost", "1", "Ledger rows.", _count("records")),
        Metric("cost.unpriced", "cost", "1", "Ledger rows of models without a price.", _count("unpriced")),
        Metric("cost.unpriced_ratio", "cost", "ratio", "Rows without a price.", _share(("unpriced",), ("records",))),
    ]


def _drift_metrics() -> list[Metric]:
    found = [Metric(name, "drift", unit, text, None) for name, (unit, text) in _DRIFT.items()]
    for feature in _DRIFT_FEATURES:
        for label, (unit, text) in _DRIFT_VALUES.items():
            if feature.endswith("embedding") and label in ("psi", "js"):
                continue
            name = f"drift.{feature}.{label}"
            found.append(Metric(name, "drift", unit, text.format(feature.replace(".", " ")), None))
    return found


def _fairness_metrics() -> list[Metric]:
    found = []
    for attribute in ("input_terms", "output_terms"):
        for group in _FAIRNESS_GROUPS:
            prefix = f"fairness.{attribute}.{group}"
            for label, (part, whole, text) in _FAIRNESS_SHARES.items():
                if label == "refusal_rate" and attribute == "output_terms":
                    continue
                counted = tuple(tuple(f"{prefix}.{name}" for name in names) for names in (part, whole))
                description = text.format(attribute.replace("_", " "), group)
                found.append(Metric(f"{prefix}.{label}", "fairness", "ratio", description, _share(*counted)))
    return found


def _probe_metrics() -> list[Metric]:
    found = [Metric("probe.rounds", "probe", "1", "Rounds of self-tests.", _of(probes.ROUNDS, probes.ROUNDS))]
    for state, (whole, text) in probes.COUNTS.items():
        found.append(Metric(f"probe.{state}", "probe", "1", text, _of(state, whole)))
        for guard in probes.GUARDS:
            compute = _of(probes.guard_count(guard, state), probes.guard_count(guard, whole))
            found.append(Metric(f"probe.{state}_by_guard.{guard}", "probe", "1", f"{guard}: {text}", compute))
    names = {"recall": ("", ""), **{f"recall_by_kind.{kind.lower()}": (kind, "") for kind in probes.KINDS}}
    names |= {f"recall_by_name_origin.{origin}": ("PERSON", origin) for origin in probes.ORIGINS}
    for name, of in names.items():
        hidden, sought = probes.found(*of)
        text = "Seeded values of which no part reached the model, of those sent."
        found.append(Metric(f"probe.{name}", "probe", "ratio", text, _share((hidden,), (sought,))))
    text = "The recall of the kind of seeded values that is found least: a filter that is blind to one kind shows here."
    found.append(Metric("probe.recall_lowest", "probe", "ratio", text, _lowest_recall))
    return found


def _lowest_recall(totals: Totals) -> Value:
    recalls = [_share((hidden,), (sought,))(totals) for hidden, sought in (probes.found(kind) for kind in probes.KINDS)]
    known = [(each.value, each.sample_count, each) for each in recalls if each.value is not None]
    return min(known, key=lambda each: each[:2])[2] if known else Value(None, 0)


METRICS: Mapping[str, Metric] = _catalogue()
