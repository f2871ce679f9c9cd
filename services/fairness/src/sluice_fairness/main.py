"""Wires the fairness processor and runs it."""

from __future__ import annotations

from sluice_kit import broker, process, settings, telemetry
from sluice_kit.publisher import EventPublisher
from sluice_kit.streams.runner import create_runner

from sluice_fairness.agents import declare
from sluice_fairness.settings import FairnessSettings


async def make_topics(configured: FairnessSettings) -> None:
    """Before the worker: Faust must find the topics with all their partitions."""
    await broker.ensure_topics(configured)


def main() -> None:
    """Entry point of `sluice-fairness`."""
    configured = settings.load(FairnessSettings)
    telemetry.configure("fairness", configured)
    broker.install_empty_fetch_guard(configured)
    process.run(lambda: make_topics(configured))
    runner = create_runner(configured.streams_runner, configured.worker_options())
    publisher = EventPublisher(
        producer=f"sluice-fairness/{configured.instance}",
        settings=configured,
        outbox_path=configured.data_dir / f"outbox-{configured.instance}.db",
    )
    runner.host(publisher)
    declare(runner, rules=configured.rules(), judging=configured.judging(), publish=publisher.publish)
    runner.run()
