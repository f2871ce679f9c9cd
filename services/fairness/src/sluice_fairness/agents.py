"""The stream processor: one agent per source topic, its own counts among them, and one timer that publishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.message import Message
from sluice.events.v1.fairness_pb2 import FairnessCounted
from sluice.events.v1.feedback_pb2 import ReviewResolved
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice_kit.events import topic_of
from sluice_kit.streams.dead_letters import DeadLetters
from sluice_kit.streams.options import Rhythm
from sluice_kit.streams.runner import Runner

from sluice_fairness.adapters import telemetry
from sluice_fairness.adapters.processor import Processor
from sluice_fairness.domain.measuring import Judging
from sluice_fairness.domain.partition import Rules

SOURCES: Sequence[type[Message]] = (RequestCompleted, ContentModerated, ReviewResolved, FairnessCounted)
"""The first three are keyed by request id: a partition sees all of a request. The last, which this service publishes
itself, is keyed by tenant: a partition sees all parts of a tenant's windows. All have the same number of partitions."""

RHYTHM = Rhythm(
    batch_size=2000, batch_seconds=1.0, publish_seconds=2.0, publish_rest=5, stalled_seconds=120.0
)  # the first comparison imports for seconds


def declare(runner: Runner, *, rules: Rules, judging: Judging, publish: Callable[..., Awaitable[None]]) -> Processor:
    """Declare table, agents, timer and pages of the fairness processor on a runner."""
    topics = [topic_of(event).name for event in SOURCES]
    windows = runner.table("windows")
    processor = Processor(
        windows=windows,
        rules=rules,
        judging=judging,
        dead_letters=DeadLetters(runner, parked=telemetry.DEAD_LETTERS),
        publish=publish,
        source=runner.source(),
    )
    for topic in topics:
        runner.read(topic, processor.absorb, rhythm=RHYTHM)
    runner.follow_assignment(processor.holding, topics)
    runner.publish_by_timer(processor.holding, topics, processor.publish_due, rhythm=RHYTHM)
    return processor
