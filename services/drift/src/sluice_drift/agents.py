"""The stream processor: one agent sends observations to the owner of their series, one merges them, a timer publishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import faust
from sluice.events.v1.inference_pb2 import InferenceMeasured
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

from sluice_drift.adapters import telemetry
from sluice_drift.adapters.processor import Processor
from sluice_drift.adapters.router import Router
from sluice_drift.domain.comparison import Detection
from sluice_drift.domain.partition import Rules

OBSERVATIONS_TOPIC = "sluice-drift-observations"
"""Internal to this service, keyed by series: no contract, so no event of the protos."""

SERIES_TABLE = "series"

RHYTHM = Rhythm(batch_size=1000, batch_seconds=0.3, publish_seconds=5.0)


def declare(
    app: faust.App, *, rules: Rules, detection: Detection, publish: Callable[..., Awaitable[None]]
) -> Processor:
    """Declare table, agents, timer and pages of the drift processor on an app."""
    source = raw_topic(app, topic_of(InferenceMeasured).name)
    observations = raw_topic(app, OBSERVATIONS_TOPIC)
    series = confirmed_table(app, SERIES_TABLE)
    processor = Processor(
        windows=series,
        rules=rules,
        detection=detection,
        publish=publish,
        source=FaustLog(app),
        router=Router(target=observations, dead_letters=DeadLetters(app, parked=telemetry.DEAD_LETTERS)),
    )
    declare_agent(app, source, processor.route, rhythm=RHYTHM)
    declare_agent(app, observations, processor.absorb, rhythm=RHYTHM)
    follow_assignment(app, series, processor.holding, [OBSERVATIONS_TOPIC])
    both = [source.get_topic_name(), OBSERVATIONS_TOPIC]
    publish_by_timer(app, processor.holding, both, processor.publish_due, rhythm=RHYTHM)
    return processor
