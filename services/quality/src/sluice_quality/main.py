"""Wires the quality processor, and beside it the judge, and runs them: two processes, so that neither waits for the other."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator

from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit import broker, process, settings, telemetry
from sluice_kit.channel import connect
from sluice_kit.consumer import EventConsumer
from sluice_kit.health import HealthBoard
from sluice_kit.metrics import MetricsServer
from sluice_kit.publisher import EventPublisher
from sluice_kit.sealing.opening import key_store_of, seals_texts
from sluice_kit.sealing.text import TextReader
from sluice_kit.server import stop_on_signals
from sluice_kit.streams.runner import create_runner

from sluice_quality.adapters.judge_budget import JudgeBudget
from sluice_quality.adapters.judge_model import GrpcJudge
from sluice_quality.agents import declare
from sluice_quality.consumer import Judging
from sluice_quality.settings import QualitySettings


async def make_topics(configured: QualitySettings) -> None:
    """Before the worker: Faust must find the topics with all their partitions."""
    await broker.ensure_topics(configured)


def main() -> None:
    """Entry point of `sluice-quality`."""
    configured = settings.load(QualitySettings)
    telemetry.configure("quality", configured)
    broker.install_empty_fetch_guard(configured)
    process.run(lambda: make_topics(configured))
    runner = create_runner(configured.streams_runner, configured.worker_options())
    publisher = EventPublisher(
        producer=f"sluice-quality/{configured.instance}",
        settings=configured,
        outbox_path=configured.data_dir / f"outbox-{configured.instance}.db",
    )
    runner.host(publisher)
    declare(runner, rules=configured.rules(), publish=publisher.publish)
    runner.run()


def judge() -> None:
    """Entry point of `sluice-quality-judge`."""
    configured = settings.load(QualitySettings)
    telemetry.configure("quality-judge", configured)
    process.run(lambda: serve_judge(configured))


async def serve_judge(configured: QualitySettings) -> None:
    """Judge until a signal. StartFailed where nothing is to be judged, or the budget's file cannot be used."""
    if not configured.is_judging:
        raise process.StartFailed("No answer is judged: set SLUICE_QUALITY_JUDGE_RATE or SLUICE_QUALITY_JUDGE_RATES.")
    stop = stop_on_signals()
    async with contextlib.AsyncExitStack() as closing:
        judging = await _judging(configured, closing)
        consumer = EventConsumer(
            service="quality-judge",
            group=f"{configured.group}-judge",
            events=[RequestCompleted],
            handle_each=judging.handle,
            concurrency=configured.judge_concurrency,
            settings=configured,
        )
        await closing.enter_async_context(_health_told(configured, consumer))
        await broker.ensure_topics(configured)
        await consumer.run(stop)


@contextlib.asynccontextmanager
async def _health_told(configured: QualitySettings, consumer: EventConsumer) -> AsyncIterator[None]:
    """Not serving until the consumer has its partitions: until then nothing is judged."""
    health = HealthBoard()
    health.set("kafka", False)
    health.start(())
    listen, variable = configured.judge_metrics_listen, "SLUICE_QUALITY_JUDGE_METRICS_LISTEN"
    server = MetricsServer(listen, health, variable=variable) if listen else None
    following = asyncio.create_task(_follow_readiness(consumer, health))
    try:
        yield
    finally:
        following.cancel()
        health.stop()
        if server is not None:
            server.stop()


async def _follow_readiness(consumer: EventConsumer, health: HealthBoard) -> None:
    await consumer.ready.wait()
    health.set("kafka", True)


async def _judging(configured: QualitySettings, closing: contextlib.AsyncExitStack) -> Judging:
    producer = f"sluice-quality-judge/{configured.instance}"
    folder = configured.data_dir
    try:
        budget = JudgeBudget(
            folder / f"judge-{configured.instance}.db", tokens_per_hour=configured.judge_tokens_per_hour
        )
    except (OSError, sqlite3.Error) as error:
        raise process.StartFailed(
            f"The judge's budget cannot be kept in {folder} ({error}): make it writable."
        ) from None
    closing.callback(budget.close)
    publisher = EventPublisher(
        producer=producer, settings=configured, outbox_path=folder / f"judge-outbox-{configured.instance}.db"
    )
    await publisher.start()
    closing.push_async_callback(publisher.stop)
    channel = await closing.enter_async_context(connect(settings.target_of(configured, "inference"), configured))
    return Judging(
        judge=GrpcJudge(channel, model=configured.judge_model, timeout_seconds=configured.judge_timeout_seconds),
        budget=budget,
        publish=publisher.publish,
        has_room=lambda: publisher.has_room,
        # A key that was destroyed a moment ago opens nothing: no data key is kept.
        reader=TextReader(key_store_of(configured, make=False), keep_seconds=0) if seals_texts(configured) else None,
        rate=configured.judge_rate,
        rates=configured.judge_rates,
        longest_age_seconds=configured.judge_longest_age_seconds,
    )
