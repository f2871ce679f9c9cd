"""Starts the feedback service."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import grpc
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.privacy_pb2 import SubjectErased
from sluice.feedback.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    review_service_pb2,
    review_service_pb2_grpc,
)
from sluice_kit.channel import connect
from sluice_kit.consumer import EventConsumer
from sluice_kit.process import StartFailed, run
from sluice_kit.publisher import EventPublisher
from sluice_kit.sealing.opening import key_store_of, sealer_of
from sluice_kit.server import GrpcServer
from sluice_kit.settings import load, target_of
from sluice_kit.telemetry import configure

from sluice_feedback.adapters.database import Database, open_database
from sluice_feedback.adapters.feedback_events import FeedbackRelay, encode
from sluice_feedback.adapters.grpc_redactor import GrpcRedactor
from sluice_feedback.adapters.sealed_texts import ClearTexts, SealedTexts
from sluice_feedback.adapters.sql_feedback import SqlFeedback
from sluice_feedback.api import DatasetServicer, FeedbackServicer, ReviewServicer
from sluice_feedback.consumer import CompletionConsumer
from sluice_feedback.domain.desk import Desk
from sluice_feedback.domain.feedback import StoreUnavailable
from sluice_feedback.settings import FeedbackSettings

SERVICE_NAMES = [
    name
    for module in (feedback_service_pb2, review_service_pb2, dataset_service_pb2)
    for name in (service.full_name for service in module.DESCRIPTOR.services_by_name.values())
]


def main() -> None:
    settings = load(FeedbackSettings)
    configure("feedback", settings)
    run(partial(serve, settings))


async def serve(settings: FeedbackSettings) -> None:
    try:
        database = await asyncio.to_thread(open_database, settings.database)
    except StoreUnavailable as error:
        raise StartFailed(f"{error}: see to it, or set SLUICE_FEEDBACK_DATABASE_URL.") from None
    try:
        async with connect(target_of(settings, "redaction"), settings) as redaction:
            await serve_with(settings, database, redaction)
    finally:
        await database.close()


async def serve_with(settings: FeedbackSettings, database: Database, redaction: grpc.aio.Channel) -> None:
    server = GrpcServer(service="feedback", settings=settings)
    publisher = EventPublisher(producer=f"sluice-feedback/{settings.instance}", settings=settings)
    store = SqlFeedback(database, encode=encode)
    relay = FeedbackRelay(store, publisher)
    safe = _safe(settings)
    consumer = _consumer(settings, store, safe, relay=relay, report_health=server.health.set)
    desk = Desk(store, GrpcRedactor(redaction, timeout_seconds=settings.redaction_timeout_seconds), safe)
    servicer = FeedbackServicer(desk, store, on_change=relay.wake, clock=now)
    feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(servicer, server.grpc)
    review_service_pb2_grpc.add_ReviewServiceServicer_to_server(ReviewServicer(), server.grpc)
    dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(DatasetServicer(), server.grpc)
    await publisher.start()
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(consumer.run(stop))
            tasks.create_task(relay.run(stop))
            if safe is not None:
                tasks.create_task(ClearTexts(store, safe).seal_all(stop))
            await server.run(service_names=SERVICE_NAMES)
            stop.set()
            relay.wake()
    finally:
        await publisher.stop()


def _safe(settings: FeedbackSettings) -> SealedTexts | None:
    sealer = sealer_of(settings)
    return SealedTexts(sealer, key_store_of(settings)) if sealer is not None else None


def _consumer(
    settings: FeedbackSettings,
    store: SqlFeedback,
    safe: SealedTexts | None,
    *,
    relay: FeedbackRelay,
    report_health: Callable[[str, bool], None],
) -> EventConsumer:
    learning = CompletionConsumer(
        store,
        on_rejected=relay.wake,
        report_health=report_health,
        clock=now,
        keep_for=timedelta(days=settings.known_request_days),
        keep_at_most=settings.known_requests,
        keys=safe,
    )
    return EventConsumer(
        service="feedback",
        group="sluice-feedback",
        events=[RequestCompleted, SubjectErased],
        handle=learning.handle,
        settings=settings,
        starting_offsets=learning.starting_offsets,
    )


def now() -> datetime:
    return datetime.now(UTC)
