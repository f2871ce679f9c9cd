"""Alerts as a whole: the log, the lease with its evaluator, and a consumer for every receiver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx2
from aiokafka.errors import KafkaError
from google.protobuf.message import Message
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice_kit.configuration import SourceFile
from sluice_kit.configuration_watch import WatchedConfiguration
from sluice_kit.consumer import EventConsumer, StartingOffsets
from sluice_kit.errors import Unavailable
from sluice_kit.events import topic_of
from sluice_kit.publisher import EventPublisher
from sluice_kit.settings import MeshSettings

from sluice_insight.adapters.alerting.delivery import Delivery
from sluice_insight.adapters.alerting.disparate import disparate
from sluice_insight.adapters.alerting.evaluator import CaughtUp, Evaluator
from sluice_insight.adapters.alerting.events import OWN
from sluice_insight.adapters.alerting.given_up import GivenUp
from sluice_insight.adapters.alerting.interventions import INTERVENTIONS, Interventions
from sluice_insight.adapters.alerting.lease import Lease
from sluice_insight.adapters.alerting.log import AlertLog
from sluice_insight.adapters.alerting.receivers import Receiver
from sluice_insight.adapters.alerting.rule_files import SHIPPED, read_rules
from sluice_insight.adapters.alerting.standing import StandingGroups
from sluice_insight.adapters.alerting.topic_ends import topic_ends
from sluice_insight.adapters.comparisons import Comparisons
from sluice_insight.adapters.sources import Sources
from sluice_insight.domain.alerting.rules import Rule
from sluice_insight.domain.board import Board

Rules = WatchedConfiguration[tuple[Rule, ...]]


def watched_rules(folder: Path | None, *, kept_hours: int) -> Rules:
    """The shipped rules and those of the folder. Raises ConfigurationRefused; later mistakes are logged, and the last good rules stay."""

    def build(sources: tuple[SourceFile, ...]) -> tuple[Rule, ...]:
        return read_rules(sources, kept_hours=kept_hours)

    return WatchedConfiguration([SHIPPED, *([folder] if folder else [])], build, service="insight")


def evaluator(
    *,
    board: Board,
    sources: Sources,
    rules: Rules,
    publisher: EventPublisher,
    settings: MeshSettings,
    topics: Sequence[type[Message]],
    positions: Callable[[], Mapping[tuple[str, int], int]],
    interventions: Interventions,
    comparisons: Comparisons,
    log: AlertLog,
) -> Evaluator:
    """An evaluator over the live board. Judged before the silences are read, alerts would be delivered in spite of them."""
    names = [topic_of(event).name for event in (*topics, *INTERVENTIONS)]
    return Evaluator(
        board=board,
        sources=sources,
        rules=lambda: rules.current,
        publish=publisher.publish,
        waiting=lambda: publisher.depth,
        caught_up=CaughtUp(
            ends=lambda: topic_ends(settings, names), positions=lambda: {**positions(), **interventions.positions}
        ),
        interventions=interventions,
        disparities=lambda: disparate(comparisons),
        given_up=GivenUp(settings).counts,
        standing=StandingGroups(settings).standing,
        tell=log.take,
    )


def log_consumer(log: AlertLog, settings: MeshSettings, *, starting_offsets: StartingOffsets) -> EventConsumer:
    """Every instance reads the whole topic: each answers ListAlerts alone."""
    return EventConsumer(
        service="insight",
        group=f"sluice-insight-alert-log-{settings.instance}",
        events=[AlertRaised],
        handle=log.handle,
        settings=settings,
        starting_offsets=starting_offsets,
    )


def interventions_consumer(
    interventions: Interventions, settings: MeshSettings, *, starting_offsets: StartingOffsets
) -> EventConsumer:
    """Every instance reads all silences and acknowledgements."""
    return EventConsumer(
        service="insight",
        group=f"sluice-insight-alert-interventions-{settings.instance}",
        events=INTERVENTIONS,
        handle=interventions.handle,
        settings=settings,
        starting_offsets=starting_offsets,
    )


def delivery_consumers(
    receivers: Sequence[Receiver],
    client: httpx2.AsyncClient,
    settings: MeshSettings,
    *,
    console_url: str,
    interventions: Interventions,
) -> list[EventConsumer]:
    """A consumer group for every receiver, over all instances: one that is away holds up no other."""
    names = [topic_of(event).name for event in INTERVENTIONS]
    known = CaughtUp(ends=lambda: topic_ends(settings, names), positions=lambda: interventions.positions)

    async def is_silenced(alert: AlertRaised) -> bool:
        return await _is_silenced(alert, interventions, known)

    # The client logs whole addresses, which may hold a secret.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    return [
        EventConsumer(
            service="insight",
            group=f"sluice-insight-alerts-to-{receiver.receiver}",
            events=[AlertRaised],
            handle_each=Delivery(receiver, client, console_url=console_url, is_silenced=is_silenced).handle,
            concurrency=4,
            settings=settings,
        )
        for receiver in receivers
    ]


async def _is_silenced(alert: AlertRaised, interventions: Interventions, known: CaughtUp) -> bool:
    if alert.metadata.producer.startswith(OWN):
        return False  # the evaluator has said so in the event, and tells of it again when the silence ends
    try:
        is_known = await known.check()
    except (KafkaError, OSError):
        is_known = False
    if not is_known:
        raise Unavailable("the silences are not read yet")  # it is asked again
    return bool(interventions.silencing(alert.rule, dict(alert.labels), at=time.time_ns() // 1000))


async def evaluate_for_ever(judge: Evaluator, settings: MeshSettings, *, every_seconds: float) -> None:
    """Evaluates while this instance holds the lease; until cancelled."""
    await Lease(settings, pause_seconds=every_seconds).run(judge.evaluate)
