"""Wires the quality processor and runs it."""

from __future__ import annotations

from sluice_kit import broker, process, settings, telemetry
from sluice_kit.publisher import EventPublisher
from sluice_kit.streams.runner import create_runner

from sluice_quality.agents import declare
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
