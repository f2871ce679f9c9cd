"""Wires the read model and serves it."""

from __future__ import annotations

import asyncio

from prometheus_client import REGISTRY
from sluice.insight.v1.comparison_service_pb2_grpc import add_ComparisonServiceServicer_to_server
from sluice.insight.v1.insight_service_pb2_grpc import add_InsightServiceServicer_to_server
from sluice_kit import process, settings, telemetry
from sluice_kit.consumer import EventConsumer
from sluice_kit.server import GrpcServer

from sluice_insight.adapters.comparisons import Comparisons
from sluice_insight.adapters.exposition import LiveWindows
from sluice_insight.adapters.sources import SourceGauges, Sources
from sluice_insight.api.comparisons import SERVICE_NAME as COMPARISON_SERVICE_NAME
from sluice_insight.api.comparisons import ComparisonService
from sluice_insight.api.metrics import SERVICE_NAME, InsightService
from sluice_insight.consumer import EVENTS, Feed, consume, follow_readiness, from_the_beginning
from sluice_insight.domain.board import Board
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.watch import Watchers
from sluice_insight.settings import InsightSettings

HOUR = 3_600_000_000


async def serve(configured: InsightSettings) -> None:
    """Serve until a signal."""
    history = configured.history_hours * HOUR
    board, watchers = Board(history=history), Watchers(limit=configured.watchers_limit)
    sources = Sources()
    REGISTRY.register(LiveWindows(board=board, limit=configured.exposed_series))
    REGISTRY.register(SourceGauges(sources))
    server = GrpcServer(service="insight", settings=configured)
    add_InsightServiceServicer_to_server(InsightService(board=board, watchers=watchers, sources=sources), server.grpc)
    comparisons = Comparisons()
    add_ComparisonServiceServicer_to_server(ComparisonService(comparisons), server.grpc)
    costs = Costs(history=history)
    feed = Feed(board=board, costs=costs, watchers=watchers, sources=sources, comparisons=comparisons)
    consumer = EventConsumer(
        service="insight",
        group=f"sluice-insight-{configured.instance}",  # a group per instance: everyone has the whole picture
        events=EVENTS,
        handle=feed.handle,
        settings=configured,
        starting_offsets=from_the_beginning,
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(consume(consumer, configured, stop))
        readiness = tasks.create_task(follow_readiness(consumer, server.health))
        await server.run(service_names=[SERVICE_NAME, COMPARISON_SERVICE_NAME])
        stop.set()
        readiness.cancel()


def main() -> None:
    """Entry point of `sluice-insight`."""
    configured = settings.load(InsightSettings)
    telemetry.configure("insight", configured)
    process.run(lambda: serve(configured))
