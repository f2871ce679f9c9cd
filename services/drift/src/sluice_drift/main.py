"""Wires the drift processor and runs it; `pin MODEL [--tenant TENANT]` asks the one that runs for a new reference."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from sluice_kit import broker, process, settings, telemetry
from sluice_kit.errors import Unavailable
from sluice_kit.publisher import EventPublisher
from sluice_kit.streams.runner import create_runner

from sluice_drift.adapters import pinning
from sluice_drift.adapters.topics import ensure_topic
from sluice_drift.agents import OBSERVATIONS_TOPIC, SERIES_TABLE, declare
from sluice_drift.domain.observation import Series
from sluice_drift.settings import DriftSettings


async def make_topics(configured: DriftSettings) -> None:
    """Before the worker: Faust must find the topics with all their partitions."""
    await broker.ensure_topics(configured)
    await ensure_topic(OBSERVATIONS_TOPIC, configured.worker_options())


def main() -> None:
    """Entry point of `sluice-drift`."""
    parser = argparse.ArgumentParser(prog="sluice-drift")
    pin = parser.add_subparsers(dest="command").add_parser("pin", help="collect the reference of a series anew")
    pin.add_argument("model")
    pin.add_argument("--tenant", default="", help="empty: the series of all tenants")
    arguments = parser.parse_args()
    configured = settings.load(DriftSettings)
    if arguments.command:
        ask_for_reference(configured, Series(arguments.tenant, arguments.model))
    else:
        work(configured)


def ask_for_reference(configured: DriftSettings, series: Series) -> None:
    """Print what was asked for, as JSON. Exit code 1 when it cannot be done, with the reason on standard error."""
    changelog = f"{configured.group}-{SERIES_TABLE}-changelog"
    try:
        asked = asyncio.run(pinning.pin(configured, series, changelog=changelog, topic=OBSERVATIONS_TOPIC))
    except (pinning.CannotPin, Unavailable) as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(asked | {"observations_to_collect": configured.reference_observations}) + "\n")


def work(configured: DriftSettings) -> None:
    """Process until told to stop."""
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


if __name__ == "__main__":
    main()
