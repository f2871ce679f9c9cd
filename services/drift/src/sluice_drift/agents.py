"""The stream processor: agents send observations to the owner of their series, one merges them, a timer publishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice_kit.events import topic_of
from sluice_kit.streams.dead_letters import DeadLetters
from sluice_kit.streams.options import Rhythm
from sluice_kit.streams.runner import Runner

from sluice_drift.adapters import telemetry
from sluice_drift.adapters.processor import Processor
from sluice_drift.adapters.router import Router
from sluice_drift.domain.comparison import Detection
from sluice_drift.domain.partition import Rules

SOURCES = tuple(topic_of(event).name for event in (InferenceMeasured, RequestCompleted))
"""What is observed; both topics have the same partitions."""

OBSERVATIONS_TOPIC = "sluice-drift-observations"
"""Internal to this service, keyed by series: no contract, so no event of the protos."""

SERIES_TABLE = "series"

RHYTHM = Rhythm(batch_size=1000, batch_seconds=0.3, publish_seconds=5.0)


def declare(
    runner: Runner, *, rules: Rules, detection: Detection, publish: Callable[..., Awaitable[None]]
) -> Processor:
    """Declare table, agents, timer and pages of the drift processor on a runner."""
    series = runner.table(SERIES_TABLE)
    processor = Processor(
        windows=series,
        rules=rules,
        detection=detection,
        publish=publish,
        source=runner.source(),
        router=Router(
            target=runner.sender(OBSERVATIONS_TOPIC), dead_letters=DeadLetters(runner, parked=telemetry.DEAD_LETTERS)
        ),
    )
    for source in SOURCES:
        runner.read(source, processor.route, rhythm=RHYTHM)
    runner.read(OBSERVATIONS_TOPIC, processor.absorb, rhythm=RHYTHM)
    runner.follow_assignment(processor.holding, [OBSERVATIONS_TOPIC])
    runner.publish_by_timer(processor.holding, [*SOURCES, OBSERVATIONS_TOPIC], processor.publish_due, rhythm=RHYTHM)
    return processor
