"""Wires the read model and serves it."""

from __future__ import annotations

import asyncio
import sys

import httpx2
from prometheus_client import REGISTRY
from sluice.insight.v1.comparison_service_pb2_grpc import add_ComparisonServiceServicer_to_server
from sluice.insight.v1.insight_service_pb2_grpc import add_InsightServiceServicer_to_server
from sluice.insight.v1.request_service_pb2_grpc import add_RequestServiceServicer_to_server
from sluice_kit import process, settings, telemetry
from sluice_kit.configuration import ConfigurationRefused
from sluice_kit.consumer import EventConsumer
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer

from sluice_insight.adapters.alerting import service as alerting
from sluice_insight.adapters.alerting.log import AlertLog
from sluice_insight.adapters.alerting.receivers import read_receivers
from sluice_insight.adapters.alerting.rule_check import checked
from sluice_insight.adapters.comparisons import Comparisons
from sluice_insight.adapters.exposition import LiveWindows
from sluice_insight.adapters.sources import SourceGauges, Sources
from sluice_insight.adapters.stories.events import STORY_EVENTS
from sluice_insight.adapters.stories.feed import StoryFeed
from sluice_insight.adapters.stories.store import Stories, StoriesUnavailable
from sluice_insight.api.comparisons import SERVICE_NAME as COMPARISON_SERVICE_NAME
from sluice_insight.api.comparisons import ComparisonService
from sluice_insight.api.metrics import SERVICE_NAME, InsightService
from sluice_insight.api.requests import SERVICE_NAME as REQUEST_SERVICE_NAME
from sluice_insight.api.requests import RequestService
from sluice_insight.consumer import EVENTS, MEASURED, Feed, consume, follow_readiness, from_the_beginning
from sluice_insight.domain.board import Board
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.watch import Watchers
from sluice_insight.settings import InsightSettings

HOUR = 3_600_000_000


async def serve(configured: InsightSettings) -> None:
    """Serve until a signal."""
    history = configured.history_hours * HOUR
    board, watchers = Board(history=history), Watchers(limit=configured.watchers_limit)
    sources, alert_log = Sources(), AlertLog()
    REGISTRY.register(LiveWindows(board=board, limit=configured.exposed_series))
    REGISTRY.register(SourceGauges(sources))
    server = GrpcServer(service="insight", settings=configured)
    servicer = InsightService(board=board, watchers=watchers, sources=sources, alert_log=alert_log)
    add_InsightServiceServicer_to_server(servicer, server.grpc)
    comparisons = Comparisons()
    add_ComparisonServiceServicer_to_server(ComparisonService(comparisons), server.grpc)
    costs = Costs(history=history)
    feed = Feed(board=board, costs=costs, watchers=watchers, sources=sources, comparisons=comparisons)
    stories = _stories(configured)
    story_feed = StoryFeed(stories)
    add_RequestServiceServicer_to_server(RequestService(stories), server.grpc)
    consumer = EventConsumer(
        service="insight",
        group=f"sluice-insight-{configured.instance}",  # a group per instance: everyone has the whole picture
        events=EVENTS,
        handle=feed.handle,
        settings=configured,
        starting_offsets=from_the_beginning,
    )
    # Apart from the board, which must not wait for a disk.
    story_consumer = EventConsumer(
        service="insight",
        group=f"sluice-insight-requests-{configured.instance}",
        events=STORY_EVENTS,
        handle=story_feed.handle,
        settings=configured,
        starting_offsets=story_feed.starting_offsets,
    )
    try:
        rules = alerting.watched_rules(configured.alert_rules)
        receivers = read_receivers(configured.alert_receivers_file)
    except ConfigurationRefused as refused:
        raise process.StartFailed(str(refused)) from None
    publisher = EventPublisher(producer=f"sluice-insight/{configured.instance}", settings=configured)
    judge = alerting.evaluator(
        board=board, sources=sources, rules=rules, publisher=publisher, settings=configured, topics=MEASURED,
        positions=lambda: feed.positions,
    )  # fmt: skip
    client = httpx2.AsyncClient(follow_redirects=False)
    alert_consumers = [
        alerting.log_consumer(alert_log, configured, starting_offsets=from_the_beginning),
        *alerting.delivery_consumers(receivers, client, configured, console_url=configured.console_url),
    ]
    await publisher.start()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for each in alert_consumers:
            tasks.create_task(consume(each, configured, stop))
        evaluating = tasks.create_task(
            alerting.evaluate_for_ever(judge, configured, every_seconds=configured.alert_seconds)
        )
        watching = tasks.create_task(rules.watch())
        tasks.create_task(consume(consumer, configured, stop))
        readiness = tasks.create_task(follow_readiness(consumer, server.health))
        reading = tasks.create_task(consume(story_consumer, configured, stop))
        pruning = tasks.create_task(story_feed.keep_bounded())
        await server.run(service_names=[SERVICE_NAME, COMPARISON_SERVICE_NAME, REQUEST_SERVICE_NAME])
        stop.set()
        evaluating.cancel()
        watching.cancel()
        readiness.cancel()
        pruning.cancel()
        await reading
    stories.close()
    await publisher.stop()
    await client.aclose()


def _stories(configured: InsightSettings) -> Stories:
    path = configured.home / f"insight-requests-{configured.instance}.db"
    try:
        return Stories(path, most_requests=configured.requests_most, keep_us=configured.requests_days * 24 * HOUR)
    except StoriesUnavailable as error:
        raise process.StartFailed(str(error)) from None


def main() -> None:
    """Entry point of `sluice-insight`; `sluice-insight check FILE` says whether a file or folder of alert rules would be taken."""
    if len(sys.argv) > 1:
        raise SystemExit(checked(sys.argv[1:]))
    configured = settings.load(InsightSettings)
    telemetry.configure("insight", configured)
    process.run(lambda: serve(configured))
