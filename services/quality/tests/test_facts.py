"""Events as facts: what a verdict says of itself is what is counted."""

from pathlib import Path

import pytest
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.types.v1 import verdict_pb2
from sluice_quality.adapters.events import fact_of, measured
from sluice_quality.domain.facts import Series
from sluice_quality.domain.partition import Part
from sluice_quality.domain.totals import REPETITIVE_PERMILLE, RequestTotals
from sluice_quality.domain.window import WindowState


def moderated(action: int, *reasons: str, shadow: bool = False) -> ContentModerated:
    skipped = [verdict_pb2.SkippedCheck(check="threat", reason=reason) for reason in reasons]
    return ContentModerated(verdict=verdict_pb2.Verdict(action=action, skipped=skipped), shadow=shadow)


@pytest.mark.parametrize(
    ("event", "skipped"),
    [
        (moderated(verdict_pb2.ACTION_ALLOW, "not_in_policy", "language_untested", "rest_of_stream"), False),
        (moderated(verdict_pb2.ACTION_SKIPPED), True),
        (moderated(verdict_pb2.ACTION_BLOCK, "not_in_policy", "deadline"), True),
        (moderated(verdict_pb2.ACTION_ALLOW, "detector_error"), True),
    ],
)
def test_a_check_counts_as_skipped_only_where_the_policy_asks_for_it(event: ContentModerated, skipped: bool) -> None:
    fact = fact_of(event, offset=1, record_time=1)
    assert fact.skipped is skipped


@pytest.mark.parametrize(
    ("action", "blocked"),
    [(verdict_pb2.ACTION_HOLD, True), (verdict_pb2.ACTION_BLOCK, True), (verdict_pb2.ACTION_REDACT, False)],
)
def test_a_hold_counts_as_blocked_and_a_redaction_not(action: int, blocked: bool) -> None:
    assert fact_of(moderated(action), offset=1, record_time=1).blocked is blocked


def test_a_shadows_verdict_is_no_fact_of_the_live_metrics() -> None:
    assert fact_of(moderated(verdict_pb2.ACTION_BLOCK, shadow=True), offset=1, record_time=1) is None


def completed(**fields: object) -> RequestCompleted:
    return RequestCompleted(outcome=RequestOutcome.REQUEST_OUTCOME_COMPLETED, **fields)


def test_the_judgements_of_answers_are_counted_with_their_denominators() -> None:
    totals = RequestTotals()
    for event in (
        completed(language_mismatch=True, repetition_permille=450, context_sentences=4, grounded_sentences=1),
        completed(language_mismatch=False, repetition_permille=0, context_sentences=2, grounded_sentences=1),
        completed(),
        RequestCompleted(outcome=RequestOutcome.REQUEST_OUTCOME_FAILED, language_mismatch=True, context_sentences=3),
    ):
        totals.add(fact_of(event, offset=1, record_time=1))
    assert (totals.language_mismatches, totals.languages_judged) == (1, 2)
    assert (totals.repetitive_answers, totals.repetition_judged, totals.repetition_permille.count) == (1, 2, 2)
    assert (totals.ungrounded_answers, totals.context_answers) == (1, 2)
    assert (totals.grounded_sentences, totals.context_sentences) == (2, 6)


def test_an_event_cannot_claim_more_grounded_sentences_than_judged_ones() -> None:
    fact = fact_of(completed(context_sentences=2, grounded_sentences=9), offset=1, record_time=1)
    assert fact.grounded_sentences == 2


def test_both_services_call_the_same_answers_repetitive() -> None:
    gateway = (Path(__file__).parents[2] / "gateway/src/sluice_gateway/domain/answer.py").read_text(encoding="utf-8")
    assert f"REPETITIVE_PERMILLE = {REPETITIVE_PERMILLE}\n" in gateway


def test_what_is_counted_is_published() -> None:
    state = WindowState(Series(), start=0, length=60, partition=0)
    state.requests.add(fact_of(completed(language_mismatch=True, repetition_permille=450), offset=1, record_time=1))
    event = measured(Part(state, 1, False, 0))
    assert (event.requests.language_mismatches, event.requests.languages_judged) == (1, 1)
    assert event.requests.repetition_permille.sum == 450
