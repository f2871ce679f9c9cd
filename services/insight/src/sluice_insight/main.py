"""Wires the read model and serves it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

import httpx2
from prometheus_client import REGISTRY
from sluice.insight.v1.alert_service_pb2_grpc import add_AlertServiceServicer_to_server
from sluice.insight.v1.comparison_service_pb2_grpc import add_ComparisonServiceServicer_to_server
from sluice.insight.v1.insight_service_pb2_grpc import add_InsightServiceServicer_to_server
from sluice.insight.v1.request_service_pb2_grpc import add_RequestServiceServicer_to_server
from sluice_kit import process, settings, telemetry
from sluice_kit.configuration import ConfigurationRefused
from sluice_kit.consumer import EventConsumer
from sluice_kit.events import topic_of
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer

from sluice_insight.adapters.alerting import service as alerting
from sluice_insight.adapters.alerting.evaluator import Evaluator
from sluice_insight.adapters.alerting.interventions import Interventions
from sluice_insight.adapters.alerting.log import AlertLog
from sluice_insight.adapters.alerting.receivers import Receiver, read_receivers
from sluice_insight.adapters.alerting.rule_check import checked
from sluice_insight.adapters.alerting.topic_ends import topic_ends
from sluice_insight.adapters.comparisons import Comparisons
from sluice_insight.adapters.exposition import LiveWindows
from sluice_insight.adapters.fairness_gauges import FairnessGauges
from sluice_insight.adapters.forgetting import Forgetting
from sluice_insight.adapters.history import History, HistoryUnavailable
from sluice_insight.adapters.sources import SourceGauges, Sources
from sluice_insight.adapters.stories.events import STORY_EVENTS
from sluice_insight.adapters.stories.feed import StoryFeed
from sluice_insight.adapters.stories.store import Stories, StoriesUnavailable
from sluice_insight.adapters.watermark import Watermark
from sluice_insight.api.alert_changes import SERVICE_NAME as ALERT_SERVICE_NAME
from sluice_insight.api.alert_changes import AlertService
from sluice_insight.api.alerts import AlertView
from sluice_insight.api.comparisons import SERVICE_NAME as COMPARISON_SERVICE_NAME
from sluice_insight.api.comparisons import ComparisonService
from sluice_insight.api.metrics import SERVICE_NAME, InsightService
from sluice_insight.api.requests import SERVICE_NAME as REQUEST_SERVICE_NAME
from sluice_insight.api.requests import RequestService
from sluice_insight.consumer import EVENTS, MEASURED, MINUTED, Feed, consume, follow_readiness, from_the_beginning
from sluice_insight.domain.alerting.conditions import labels_of
from sluice_insight.domain.board import Board
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.horizon import Horizon
from sluice_insight.domain.watch import Watchers
from sluice_insight.settings import InsightSettings

HOUR = 3_600_000_000


class _House:
    """What is read, and what it is read into."""

    def __init__(self, configured: InsightSettings) -> None:
        history = configured.history_hours * HOUR
        self.history = _history(configured)
        self.horizon = Horizon(history, self.history.folded_up_to if self.history else None)
        self.board = Board(history=history, horizon=self.horizon)
        self.costs = Costs(history=history, horizon=self.horizon)
        self.watchers = Watchers(limit=configured.watchers_limit)
        self.sources, self.comparisons = Sources(), Comparisons()
        changed = partial(self.watchers.notice, "alerts", 0)
        self.alert_log, self.interventions = AlertLog(changed=changed), Interventions(changed=changed)
        self.stories = _stories(configured)
        self.story_feed = StoryFeed(self.stories)
        self.feed = Feed(
            board=self.board,
            costs=self.costs,
            watchers=self.watchers,
            sources=self.sources,
            comparisons=self.comparisons,
        )
        REGISTRY.register(LiveWindows(board=self.board, limit=configured.exposed_series))
        REGISTRY.register(FairnessGauges(comparisons=self.comparisons, limit=configured.exposed_series))
        REGISTRY.register(SourceGauges(self.sources))

    def open_doors(self, server: GrpcServer, publisher: EventPublisher, judge: Evaluator) -> Sequence[str]:
        """Adds the services; their names."""
        watermark = Watermark(self.board, self.sources, judged=lambda: judge.judged_up_to)
        alerts = AlertView(self.alert_log, self.interventions)
        servicer = InsightService(
            board=self.board, watchers=self.watchers, sources=self.sources, alert_view=alerts, history=self.history,
            watermark=watermark,
        )  # fmt: skip
        alert_service = AlertService(
            alerts,
            watchers=self.watchers,
            publish=publisher.publish,
            rules=lambda: {rule.name: labels_of(rule) for rule in judge.rules()},
        )
        add_AlertServiceServicer_to_server(alert_service, server.grpc)
        add_InsightServiceServicer_to_server(servicer, server.grpc)
        add_ComparisonServiceServicer_to_server(ComparisonService(self.comparisons, watermark), server.grpc)
        add_RequestServiceServicer_to_server(RequestService(self.stories), server.grpc)
        return [SERVICE_NAME, ALERT_SERVICE_NAME, COMPARISON_SERVICE_NAME, REQUEST_SERVICE_NAME]

    def board_consumer(self, configured: InsightSettings) -> EventConsumer:
        """Into the board, from the beginning: it lives in memory."""
        return EventConsumer(
            service="insight",
            group=f"sluice-insight-{configured.instance}",  # a group per instance: everyone has the whole picture
            events=EVENTS,
            handle=self.feed.handle,
            settings=configured,
            starting_offsets=from_the_beginning,
        )

    def story_consumer(self, configured: InsightSettings) -> EventConsumer:
        """Into the stories. Apart from the board, which must not wait for a disk."""
        return EventConsumer(
            service="insight",
            group=f"sluice-insight-requests-{configured.instance}",
            events=STORY_EVENTS,
            handle=self.story_feed.handle,
            settings=configured,
            starting_offsets=self.story_feed.starting_offsets,
        )

    async def forget(self, configured: InsightSettings) -> None:
        """Moves minutes into the history of hours until cancelled; without one the board forgets by itself."""
        if self.history is None:
            return
        topics = [topic_of(event).name for event in MINUTED]
        forgetting = Forgetting(
            board=self.board, costs=self.costs, horizon=self.horizon, history=self.history,
            ends=lambda: topic_ends(configured, topics), positions=lambda: self.feed.positions,
            reached=lambda: self.feed.reached,
        )  # fmt: skip
        await forgetting.for_ever()

    def close(self) -> None:
        """Closes the files."""
        self.stories.close()
        if self.history:
            self.history.close()


async def serve(configured: InsightSettings) -> None:
    """Serve until a signal."""
    rules, receivers = _alert_files(configured)
    house = _House(configured)
    publisher = EventPublisher(producer=f"sluice-insight/{configured.instance}", settings=configured)
    judge = alerting.evaluator(
        board=house.board, sources=house.sources, rules=rules, publisher=publisher, settings=configured,
        topics=MEASURED, positions=lambda: house.feed.positions, interventions=house.interventions, comparisons=house.comparisons,
        log=house.alert_log,
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as closing:
        closing.callback(house.close)
        await publisher.start()
        closing.push_async_callback(publisher.stop)
        client = await closing.enter_async_context(httpx2.AsyncClient(follow_redirects=False))
        alert_consumers = [
            alerting.log_consumer(house.alert_log, configured, starting_offsets=from_the_beginning),
            alerting.interventions_consumer(house.interventions, configured, starting_offsets=from_the_beginning),
            *alerting.delivery_consumers(
                receivers, client, configured, console_url=configured.console_url, interventions=house.interventions
            ),
        ]
        evaluating = alerting.evaluate_for_ever(judge, configured, every_seconds=configured.alert_seconds)
        for_ever = [evaluating, rules.watch(), house.story_feed.keep_bounded(), house.forget(configured)]
        await _run(configured, house, publisher, judge, alert_consumers, for_ever)


async def _run(
    configured: InsightSettings,
    house: _House,
    publisher: EventPublisher,
    judge: Evaluator,
    consumers: Sequence[EventConsumer],
    for_ever: Sequence[Coroutine[Any, Any, None]],
) -> None:
    server = GrpcServer(service="insight", settings=configured)
    names = house.open_doors(server, publisher, judge)
    board_consumer = house.board_consumer(configured)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for each in (*consumers, board_consumer, house.story_consumer(configured)):
            tasks.create_task(consume(each, configured, stop))
        running = [tasks.create_task(one) for one in (*for_ever, follow_readiness(board_consumer, server.health))]
        await server.run(service_names=names)
        stop.set()
        for task in running:
            task.cancel()


def _alert_files(configured: InsightSettings) -> tuple[alerting.Rules, Sequence[Receiver]]:
    """The rules, watched, and the receivers. StartFailed with every mistake and its line."""
    try:
        rules = alerting.watched_rules(configured.alert_rules, kept_hours=configured.history_hours)
        return rules, read_receivers(configured.alert_receivers_file)
    except ConfigurationRefused as refused:
        raise process.StartFailed(str(refused)) from None


def _history(configured: InsightSettings) -> History | None:
    if not configured.history_days:
        return None
    path = configured.home / f"insight-history-{configured.instance}.db"
    now = int(time.time() * 1_000_000)
    try:
        return History(path, days=configured.history_days, most_series=configured.history_series, now=now)
    except HistoryUnavailable as error:
        raise process.StartFailed(str(error)) from None


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
