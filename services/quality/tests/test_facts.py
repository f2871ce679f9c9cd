"""Events as facts: what a verdict says of itself is what is counted."""

import pytest
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.types.v1 import verdict_pb2
from sluice_quality.adapters.events import fact_of


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
