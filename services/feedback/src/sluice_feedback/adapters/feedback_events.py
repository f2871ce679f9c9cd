"""Tells the mesh of feedback: makes FeedbackReceived and relays the outbox to the kit's publisher."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC

from prometheus_client import Counter
from sluice.events.v1 import feedback_pb2
from sluice.types.v1 import feedback_pb2 as types_pb2
from sluice_kit.errors import SluiceError
from sluice_kit.process import describe
from sluice_kit.publisher import EventPublisher
from sluice_kit.telemetry import logger

from sluice_feedback.adapters.sql_feedback import SqlFeedback
from sluice_feedback.domain.feedback import (
    Feedback,
    Kind,
    Preference,
    Source,
    Standing,
    StoredFeedback,
    StoreUnavailable,
    Thumb,
    Value,
)

log = logger(__name__)

HANDED_OVER = Counter("sluice_feedback_events_handed_over_total", "FeedbackReceived events given to the publisher.")

THUMBS = {Thumb.UP: types_pb2.THUMB_UP, Thumb.DOWN: types_pb2.THUMB_DOWN}
PREFERENCES = {
    Preference.THIS: types_pb2.PREFERENCE_THIS,
    Preference.OTHER: types_pb2.PREFERENCE_OTHER,
    Preference.TIE: types_pb2.PREFERENCE_TIE,
}
SOURCES = {
    Source.END_USER: types_pb2.FEEDBACK_SOURCE_END_USER,
    Source.REVIEWER: types_pb2.FEEDBACK_SOURCE_REVIEWER,
    Source.AUTOMATIC: types_pb2.FEEDBACK_SOURCE_AUTOMATIC,
}

_THUMBS = {value: thumb for thumb, value in THUMBS.items()}
_PREFERENCES = {value: preference for preference, value in PREFERENCES.items()}
_SOURCES = {value: source for source, value in SOURCES.items()}
_KINDS = {
    "thumb": Kind.THUMB,
    "rating": Kind.RATING,
    "redacted_comment": Kind.COMMENT,
    "redacted_correction": Kind.CORRECTION,
    "comparison": Kind.COMPARISON,
}

_BATCH = 500
_IDLE_SECONDS = 1.0  # the relay is woken by every submission; this is for what a former process left


def feedback_received(stored: StoredFeedback) -> feedback_pb2.FeedbackReceived:
    """The event of feedback, or of its end: the same id however often it is made."""
    feedback, is_over = stored.feedback, stored.standing is not Standing.ACCEPTED
    event = feedback_pb2.FeedbackReceived(
        feedback_id=feedback.feedback_id, source=SOURCES[feedback.source], tags=feedback.tags, retracted=is_over
    )
    _fill_in_value(event, feedback)
    metadata = event.metadata
    metadata.event_id = feedback.event_id(is_retraction=is_over)
    metadata.occurred_at.FromDatetime(stored.ended_at or stored.received_at)
    metadata.request_id = feedback.request_id
    metadata.tenant_id = feedback.tenant_id
    metadata.project_id = feedback.project_id
    metadata.subject_id = feedback.subject_id
    metadata.traceparent = feedback.traceparent
    metadata.synthetic = feedback.is_synthetic
    return event


def _fill_in_value(event: feedback_pb2.FeedbackReceived, feedback: Feedback) -> None:
    value = feedback.value
    if value.thumb is not None:
        event.thumb = THUMBS[value.thumb]
    elif value.rating is not None:
        event.rating = value.rating
    elif value.kind is Kind.COMMENT:
        event.redacted_comment = value.text or ""
    elif value.kind is Kind.CORRECTION:
        event.redacted_correction = value.text or ""
    elif value.preference is not None:
        event.comparison.other_request_id = value.other_request_id or ""
        event.comparison.preference = PREFERENCES[value.preference]
    # A retraction says what is taken back, and need not say it again.
    if value.sealed_text is not None and not event.retracted:
        event.encrypted_text.ParseFromString(value.sealed_text)


def feedback_of(event: feedback_pb2.FeedbackReceived) -> StoredFeedback:
    """What an event tells of: the other way round. KeyError for an event of a kind that is not known here.

    A retracted one says when it ended, and not when it was received.
    """
    metadata = event.metadata
    feedback = Feedback(
        event.feedback_id,
        metadata.request_id,
        metadata.tenant_id,
        _value(event),
        source=_SOURCES[event.source],
        tags=tuple(event.tags),
        project_id=metadata.project_id,
        subject_id=metadata.subject_id,
        traceparent=metadata.traceparent,
        is_synthetic=metadata.synthetic,
    )
    at = metadata.occurred_at.ToDatetime(tzinfo=UTC)
    if event.retracted:
        return StoredFeedback(feedback, at, Standing.RETRACTED, at)
    return StoredFeedback(feedback, at)


def _value(event: feedback_pb2.FeedbackReceived) -> Value:
    kind = _KINDS[event.WhichOneof("value") or ""]
    sealed = event.encrypted_text.SerializeToString() if event.HasField("encrypted_text") else None
    if kind is Kind.THUMB:
        return Value(kind, thumb=_THUMBS[event.thumb])
    if kind is Kind.RATING:
        return Value(kind, rating=event.rating)
    if kind is Kind.COMPARISON:
        other, preference = event.comparison.other_request_id, _PREFERENCES[event.comparison.preference]
        return Value(kind, other_request_id=other, preference=preference)
    text = event.redacted_comment if kind is Kind.COMMENT else event.redacted_correction
    return Value(kind, text=None if sealed is not None else text, sealed_text=sealed)


def encode(stored: StoredFeedback) -> bytes:
    """What stands in the outbox."""
    return feedback_received(stored).SerializeToString(deterministic=True)


class FeedbackRelay:
    """Hands the outbox over to the publisher, oldest first, for ever."""

    def __init__(self, store: SqlFeedback, publisher: EventPublisher) -> None:
        self._store, self._publisher = store, publisher
        self._added = asyncio.Event()

    def wake(self) -> None:
        """There is something new."""
        self._added.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Relays until `stop`; what is left stays in the outbox for the next start."""
        while not stop.is_set():
            self._added.clear()
            if await self._hand_over() < _BATCH:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._added.wait(), _IDLE_SECONDS)

    async def _hand_over(self) -> int:
        loop = asyncio.get_running_loop()

        def deliver(payloads: Sequence[bytes]) -> None:
            asyncio.run_coroutine_threadsafe(self._publish(payloads), loop).result(timeout=30)

        try:
            count = await self._store.hand_over(deliver, limit=_BATCH)
        except (StoreUnavailable, SluiceError, TimeoutError) as error:
            log.warning("feedback.relay_waits", **describe(error))
            return 0
        HANDED_OVER.inc(count)
        return count

    async def _publish(self, payloads: Sequence[bytes]) -> None:
        await self._publisher.publish(*(feedback_pb2.FeedbackReceived.FromString(payload) for payload in payloads))
