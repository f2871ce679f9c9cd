"""Wires the drift processor and runs it."""

from __future__ import annotations

from sluice_kit import broker, process, settings, telemetry
from sluice_kit.publisher import EventPublisher

from sluice_drift.adapters.topics import ensure_topic
from sluice_drift.adapters.worker import create_app, host_publisher, run
from sluice_drift.agents import OBSERVATIONS_TOPIC, declare
from sluice_drift.settings import DriftSettings


def main() -> None:
    """Entry point of `sluice-drift`."""
    configured = settings.load(DriftSettings)
    telemetry.configure("drift", configured)
    configured.data_dir.mkdir(parents=True, exist_ok=True)
    broker.install_empty_fetch_guard(configured)
    options = configured.worker_options()
    process.run(lambda: broker.ensure_topics(configured))  # Faust must find them with all their partitions
    process.run(lambda: ensure_topic(OBSERVATIONS_TOPIC, options))
    app = create_app(options)
    publisher = EventPublisher(
        producer=f"sluice-drift/{configured.instance}",
        settings=configured,
        outbox_path=configured.data_dir / f"outbox-{configured.instance}.db",
    )
    host_publisher(app, publisher)
    declare(app, rules=configured.rules(), detection=configured.detection(), publish=publisher.publish)
    run(app)
