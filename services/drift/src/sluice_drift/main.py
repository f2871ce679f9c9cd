"""Wires the drift processor and runs it."""

from __future__ import annotations

from sluice_kit import broker, process, settings, telemetry
from sluice_kit.publisher import EventPublisher
from sluice_kit.streams.runner import create_runner

from sluice_drift.adapters.topics import ensure_topic
from sluice_drift.agents import OBSERVATIONS_TOPIC, declare
from sluice_drift.settings import DriftSettings


async def make_topics(configured: DriftSettings) -> None:
    """Before the worker: Faust must find the topics with all their partitions."""
    await broker.ensure_topics(configured)
    await ensure_topic(OBSERVATIONS_TOPIC, configured.worker_options())


def main() -> None:
    """Entry point of `sluice-drift`."""
    configured = settings.load(DriftSettings)
    telemetry.configure("drift", configured)
    broker.install_empty_fetch_guard(configured)
    process.run(lambda: make_topics(configured))
    runner = create_runner(configured.streams_runner, configured.worker_options())
    publisher = EventPublisher(
        producer=f"sluice-drift/{configured.instance}",
        settings=configured,
        outbox_path=configured.data_dir / f"outbox-{configured.instance}.db",
    )
    runner.host(publisher)
    declare(runner, rules=configured.rules(), detection=configured.detection(), publish=publisher.publish)
    runner.run()
