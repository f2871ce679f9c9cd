"""What good feedback is."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_feedback.adapters.feedback_events import feedback_received
from sluice_feedback.domain.feedback import (
    Feedback,
    Kind,
    Preference,
    Standing,
    StoredFeedback,
    Thumb,
    Value,
)
from sluice_feedback.domain.mistakes import LONGEST_COMMENT, LONGEST_CORRECTION, find_mistakes

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
UP = Value(Kind.THUMB, thumb=Thumb.UP)


def feedback(value: Value = UP, **changes: Any) -> Feedback:
    return Feedback(**{"feedback_id": "f1", "request_id": "r1", "tenant_id": "acme", "value": value, **changes})


def compare(other: str, preference: Preference | None = Preference.TIE) -> Value:
    return Value(Kind.COMPARISON, other_request_id=other, preference=preference)


@pytest.mark.parametrize(
    "good",
    [
        feedback(),
        feedback(Value(Kind.RATING, rating=1)),
        feedback(Value(Kind.RATING, rating=5)),
        feedback(Value(Kind.COMMENT, text="x" * LONGEST_COMMENT)),
        feedback(Value(Kind.COMMENT, text="\N{GRINNING FACE}" * LONGEST_COMMENT)),
        feedback(Value(Kind.CORRECTION, text="x" * LONGEST_CORRECTION)),
        feedback(compare("r2")),
        feedback(tags=("inaccurate", "too_long")),
        feedback(feedback_id="A-z_0.9" + "x" * 57, request_id="019a:b-c.d_e"),
    ],
)
def test_good_feedback_is_taken(good: Feedback) -> None:
    assert find_mistakes(good) == []


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (feedback(Value(Kind.THUMB)), "thumb"),
        (feedback(Value(Kind.RATING, rating=0)), "rating"),
        (feedback(Value(Kind.RATING, rating=6)), "rating"),
        (feedback(Value(Kind.COMMENT, text="")), "comment"),
        (feedback(Value(Kind.COMMENT, text=" \n")), "comment"),
        (feedback(Value(Kind.COMMENT, text="x" * (LONGEST_COMMENT + 1))), "comment"),
        (feedback(Value(Kind.COMMENT, text="a\0b")), "comment"),
        (feedback(Value(Kind.CORRECTION, text="x" * (LONGEST_CORRECTION + 1))), "correction"),
        (feedback(compare("r2", None)), "comparison.preference"),
        (feedback(compare("")), "comparison.other_request_id"),
        (feedback(compare("r1")), "comparison.other_request_id"),
        (feedback(feedback_id=""), "feedback_id"),
        (feedback(feedback_id="x" * 65), "feedback_id"),
        (feedback(feedback_id="f1\n"), "feedback_id"),
        (feedback(request_id=""), "request_id"),
        (feedback(request_id="x" * 129), "request_id"),
        (feedback(request_id="r 1"), "request_id"),
        (feedback(tags=("a",) * 17), "tags"),
        (feedback(tags=("good", "Not Good")), "tags[1]"),
    ],
)
def test_a_mistake_is_named_with_its_field(bad: Feedback, field: str) -> None:
    assert [mistake.field for mistake in find_mistakes(bad)] == [field]


@given(st.text(max_size=50), st.text(max_size=50))
def test_feedback_has_the_same_digest_exactly_when_it_says_the_same(one: str, other: str) -> None:
    digests = [feedback(Value(Kind.COMMENT, text=text)).digest() for text in (one, other)]
    assert (digests[0] == digests[1]) == (one == other)


def test_who_submits_and_in_which_trace_does_not_change_what_is_said() -> None:
    assert feedback().digest() == feedback(traceparent="00-a-b-01", subject_id="s").digest()
    assert feedback().digest() != feedback(tags=("wrong",)).digest()
    assert feedback().digest() != feedback(request_id="r2").digest()


def test_the_end_of_feedback_is_an_event_of_its_own_with_the_value_that_was() -> None:
    received = feedback_received(StoredFeedback(feedback(), NOON))
    taken_back = feedback_received(StoredFeedback(feedback(), NOON, Standing.RETRACTED, NOON))
    assert (received.retracted, taken_back.retracted) == (False, True)
    assert received.thumb == taken_back.thumb
    assert received.metadata.event_id != taken_back.metadata.event_id
    assert feedback_received(StoredFeedback(feedback(), NOON)) == received
    assert (
        received.metadata.event_id != feedback_received(StoredFeedback(feedback(tenant_id="b"), NOON)).metadata.event_id
    )
