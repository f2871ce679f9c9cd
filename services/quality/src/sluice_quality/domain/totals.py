"""Sums over facts. Integers and sketches only, so that adding is exact in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from sluice_quality.domain.facts import Completion, Feedback, Judgement, Moderation, Outcome, Series
from sluice_quality.domain.sketch import QuantileSketch, Values

MICROSECONDS = 1_000_000
REPETITIVE_PERMILLE = 200
"""The gateway's bound, which tests/eval judges: an answer this repetitive counts as such."""
ANSWERED = (Outcome.SUCCEEDED, Outcome.BLOCKED_OUTPUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a batch of completions adds to one window, summed already."""

    series: Series
    at: int
    """Of the first: a moment in the window."""
    first: int
    """Offset."""
    last: int
    """Offset."""
    requests: int
    sums: Sequence[tuple[str, int]]
    """What is to be added to RequestTotals, by name."""
    values: Sequence[tuple[str, Values]]
    """The same of its sketches."""
    completions: Callable[[], list[Completion]]
    """One by one, for those that are counted already in part."""


@dataclass(slots=True)
class _Totals:
    def merge(self, other: Self) -> None:
        """Add the other's sums to these."""
        for each in fields(self):
            theirs = getattr(other, each.name)
            if isinstance(theirs, QuantileSketch):
                getattr(self, each.name).merge(theirs)
            else:
                setattr(self, each.name, getattr(self, each.name) + theirs)


@dataclass(slots=True)
class RequestTotals(_Totals):
    """Sums over requests; sketches in microseconds, tokens per 1,000 s, and code points."""

    requests: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    blocked_input: int = 0
    blocked_output: int = 0
    rejected: int = 0
    redacted_requests: int = 0
    redactions: int = 0
    streamed: int = 0
    truncated: int = 0
    refusals: int = 0
    refusals_judged: int = 0
    empty_answers: int = 0
    empty_answers_judged: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency: QuantileSketch = field(default_factory=QuantileSketch)
    time_to_first_token: QuantileSketch = field(default_factory=QuantileSketch)
    tokens_per_kilosecond: QuantileSketch = field(default_factory=QuantileSketch)
    answer_characters: QuantileSketch = field(default_factory=QuantileSketch)
    language_mismatches: int = 0
    languages_judged: int = 0
    repetitive_answers: int = 0
    repetition_judged: int = 0
    repetition_permille: QuantileSketch = field(default_factory=QuantileSketch)
    context_answers: int = 0
    ungrounded_answers: int = 0
    context_sentences: int = 0
    grounded_sentences: int = 0

    def add(self, completion: Completion) -> None:
        """Count one request."""
        self.add_all([completion])

    def add_all(self, completions: Sequence[Completion]) -> None:
        """Count requests, column by column: one by one takes four times as long."""
        if not completions:
            return
        columns: Any = Completion(*zip(*completions, strict=True))  # type: ignore[arg-type]  # of columns, not of values
        self.requests += len(completions)
        for outcome in Outcome:
            if (found := columns.outcome.count(outcome)) != 0:
                setattr(self, outcome.value, getattr(self, outcome.value) + found)
        if any(columns.redactions):
            self.redactions += sum(columns.redactions)
            self.redacted_requests += sum(count > 0 for count in columns.redactions)
        self.streamed += sum(columns.streamed)
        self.truncated += sum(columns.truncated)
        self.prompt_tokens += sum(columns.prompt_tokens)
        self.completion_tokens += sum(columns.completion_tokens)
        self._time(columns)
        self._judge_answers([each for each in completions if each.outcome in ANSWERED])

    def add_share(self, share: Share) -> None:
        """Count requests that are summed already."""
        self.requests += share.requests
        for name, count in share.sums:
            setattr(self, name, getattr(self, name) + count)
        for name, values in share.values:
            getattr(self, name).add_values(values)

    def _time(self, columns: Any) -> None:
        # A refused request is over in a millisecond: its latency would hide that of the answered ones.
        self.latency.add_all(
            [
                latency
                for latency, outcome in zip(columns.latency, columns.outcome, strict=True)
                if latency is not None and outcome is not Outcome.REJECTED
            ]
        )
        self.time_to_first_token.add_all([each for each in columns.time_to_first_token if each is not None])
        # Integer division by purpose: a float would round differently after another order of merging.
        self.tokens_per_kilosecond.add_all(
            [
                tokens * 1000 * MICROSECONDS // time
                for tokens, time in zip(columns.completion_tokens, columns.generation_time, strict=True)
                if time and tokens
            ]
        )

    def _judge_answers(self, answered: Sequence[Completion]) -> None:
        refusals = [each.refusal for each in answered if each.refusal is not None]
        empty = [each.empty_answer for each in answered if each.empty_answer is not None]
        self.refusals_judged += len(refusals)
        self.refusals += sum(refusals)
        self.empty_answers_judged += len(empty)
        self.empty_answers += sum(empty)
        self.answer_characters.add_all([each.answer_characters for each in answered])
        self._judge_texts(answered)

    def _judge_texts(self, answered: Sequence[Completion]) -> None:
        languages = [each.language_mismatch for each in answered if each.language_mismatch is not None]
        self.languages_judged += len(languages)
        self.language_mismatches += sum(languages)
        repetition = [each.repetition_permille for each in answered if each.repetition_permille is not None]
        self.repetition_judged += len(repetition)
        self.repetitive_answers += sum(permille >= REPETITIVE_PERMILLE for permille in repetition)
        self.repetition_permille.add_all(repetition)
        for each in answered:
            if each.context_sentences:
                self.context_answers += 1
                self.ungrounded_answers += 2 * each.grounded_sentences < each.context_sentences
                self.context_sentences += each.context_sentences
                self.grounded_sentences += each.grounded_sentences


@dataclass(slots=True)
class FeedbackTotals(_Totals):
    """Sums over feedback, net of what was taken back: a window that saw more retractions than thumbs is negative."""

    received: int = 0
    positive: int = 0
    negative: int = 0
    ratings: int = 0
    rating_sum_milli: int = 0
    comments: int = 0
    corrections: int = 0
    comparisons_won: int = 0
    comparisons_lost: int = 0
    comparisons_tied: int = 0
    retracted: int = 0

    def add(self, feedback: Feedback) -> None:
        """Count one piece of feedback, or take one back."""
        sign = -1 if feedback.retracted else 1
        self.received += 1
        self.retracted += feedback.retracted
        self.positive += sign * (feedback.thumb > 0)
        self.negative += sign * (feedback.thumb < 0)
        if feedback.rating is not None:
            self.ratings += sign
            self.rating_sum_milli += sign * feedback.rating * 1000
        self.comments += sign * feedback.comment
        self.corrections += sign * feedback.correction
        if feedback.comparison:
            name = f"comparisons_{feedback.comparison}"
            setattr(self, name, getattr(self, name) + sign)


@dataclass(slots=True)
class ModerationTotals(_Totals):
    """Sums over moderation decisions; the sketch in microseconds."""

    inputs: int = 0
    outputs: int = 0
    flagged: int = 0
    blocked_inputs: int = 0
    blocked_outputs: int = 0
    skipped: int = 0
    latency: QuantileSketch = field(default_factory=QuantileSketch)

    def add(self, moderation: Moderation) -> None:
        """Count one decision."""
        self.inputs += not moderation.output
        self.outputs += moderation.output
        self.flagged += moderation.flagged
        self.blocked_inputs += moderation.blocked and not moderation.output
        self.blocked_outputs += moderation.blocked and moderation.output
        self.skipped += moderation.skipped
        if moderation.latency is not None:
            self.latency.add(moderation.latency)


@dataclass(slots=True)
class JudgementTotals(_Totals):
    """Sums over judgements of answers by a model."""

    judged: int = 0
    unusable: int = 0
    score_sum_milli: int = 0
    screened: int = 0

    def add(self, judgement: Judgement) -> None:
        """Count one judgement."""
        self.judged += judgement.score_milli is not None
        self.unusable += judgement.score_milli is None
        self.score_sum_milli += judgement.score_milli or 0
        self.screened += judgement.screened
