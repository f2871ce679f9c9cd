"""Publishes summaries as TextRedacted events."""

from google.protobuf.duration_pb2 import Duration
from sluice.events.v1 import redaction_pb2
from sluice.types.v1 import personal_data_pb2, verdict_pb2
from sluice_kit.publisher import EventPublisher

from sluice_redaction.domain.summary import Summary


class EventJournal:
    """Fits `domain.summary.Journal`."""

    def __init__(self, publisher: EventPublisher) -> None:
        self._publisher = publisher

    async def text_redacted(self, summary: Summary) -> None:
        await self._publisher.publish(event_of(summary))


def event_of(summary: Summary) -> redaction_pb2.TextRedacted:
    """Ids and trace are filled in by the publisher, from the request's context."""
    first_text = summary.first_text_seconds
    return redaction_pb2.TextRedacted(
        direction=verdict_pb2.DIRECTION_OUTPUT if summary.outgoing else verdict_pb2.DIRECTION_INPUT,
        policy_id=summary.policy.id,
        policy_version=summary.policy.version,
        counts=[personal_data_pb2.KindCount(kind=kind, count=count) for kind, count in sorted(summary.counts.items())],
        policy_digest=summary.policy.digest,
        recognizer_counts=summary.recognizer_counts,
        operator_counts=summary.operator_counts,
        segment_count=summary.segments,
        characters=summary.characters,
        latency=_duration(summary.latency_seconds),
        restored_count=summary.restored,
        max_held_back_characters=summary.held_back,
        streamed=summary.streamed,
        time_to_first_text=None if first_text is None else _duration(first_text),
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
