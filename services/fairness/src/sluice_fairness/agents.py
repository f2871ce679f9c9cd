"""The stream processor: one agent per source topic, its own counts among them, and one timer that publishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import faust
from google.protobuf.message import Message
from sluice.events.v1.fairness_pb2 import FairnessCounted
from sluice.events.v1.feedback_pb2 import ReviewResolved
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice_kit.events import topic_of
from sluice_kit.streams.agents import (
    Rhythm,
    confirmed_table,
    declare_agent,
    follow_assignment,
    publish_by_timer,
    raw_topic,
)
from sluice_kit.streams.dead_letters import DeadLetters
from sluice_kit.streams.sequence import FaustLog

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


def declare(app: faust.App, *, rules: Rules, judging: Judging, publish: Callable[..., Awaitable[None]]) -> Processor:
    """Declare table, agents, timer and pages of the fairness processor on an app."""
    topics = [topic_of(event).name for event in SOURCES]
    windows = confirmed_table(app, "windows")
    processor = Processor(
        windows=windows,
        rules=rules,
        judging=judging,
        dead_letters=DeadLetters(app, parked=telemetry.DEAD_LETTERS),
        publish=publish,
        source=FaustLog(app),
    )
    for topic in topics:
        declare_agent(app, raw_topic(app, topic), processor.absorb, rhythm=RHYTHM)
    follow_assignment(app, windows, processor.holding, topics)
    publish_by_timer(app, processor.holding, topics, processor.publish_due, rhythm=RHYTHM)
    return processor
