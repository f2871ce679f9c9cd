"""The stream processor: one agent per source topic, one timer that publishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.message import Message
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.events.v1.quality_pb2 import AnswerJudged
from sluice_kit.events import topic_of
from sluice_kit.streams.dead_letters import DeadLetters
from sluice_kit.streams.options import Rhythm
from sluice_kit.streams.runner import Runner

from sluice_quality.adapters import telemetry
from sluice_quality.adapters.processor import Processor
from sluice_quality.domain.partition import Rules

SOURCES: Sequence[type[Message]] = (RequestCompleted, ContentModerated, FeedbackReceived, AnswerJudged)
"""All keyed by request id with the same number of partitions, so that a partition sees all of a request."""

WINDOWS_TABLE = "windows"

RHYTHM = Rhythm(
    batch_size=5000,
    # A window is stored once a batch, and every series is in every partition: 96 series at 3,000 events/s were 384 writes
    # for 600 events at 0.2 s, a quarter of the CPU time; at 1 s they are 384 for 3,000.
    batch_seconds=1.0,
    publish_seconds=2.0,
    publish_rest=20,  # hundreds of open windows cost a third of the CPU time otherwise
    stalled_seconds=30.0,
)


def declare(runner: Runner, *, rules: Rules, publish: Callable[..., Awaitable[None]]) -> Processor:
    """Declare table, agents, timer and pages of the quality processor on a runner."""
    topics = [topic_of(event).name for event in SOURCES]
    windows = runner.table(WINDOWS_TABLE)
    processor = Processor(
        windows=windows,
        rules=rules,
        dead_letters=DeadLetters(runner, parked=telemetry.DEAD_LETTERS),
        publish=publish,
        source=runner.source(),
    )
    for topic in topics:
        runner.read(topic, processor.absorb, rhythm=RHYTHM)
    runner.follow_assignment(processor.holding, topics)
    runner.publish_by_timer(processor.holding, topics, processor.publish_due, rhythm=RHYTHM)
    return processor
