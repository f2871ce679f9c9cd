"""Asks the processor to pin the reference of a series anew: `python -m sluice_drift.pin MODEL [--tenant TENANT]`.

The next observations are collected beside the reference in use, which stays until they are enough; then windows that begin
later are compared with the new version. The command is a record of the internal topic, so a killed worker obeys it once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from sluice_kit.broker import client_options
from sluice_kit.errors import Unavailable
from sluice_kit.ordered import OrderedReader
from sluice_kit.settings import load

from sluice_drift.adapters import records
from sluice_drift.agents import OBSERVATIONS_TOPIC, SERIES_TABLE
from sluice_drift.domain.observation import Pin, Series
from sluice_drift.domain.reference import Reference, series_key
from sluice_drift.domain.versions import Versions
from sluice_drift.settings import DriftSettings


class CannotPin(Exception):
    """Says why not, and what to do."""


async def known(settings: DriftSettings) -> dict[Series, Versions]:
    """The references that the processor has stored."""
    kept: dict[str, Reference] = {}
    async with OrderedReader.opened(settings) as reader:
        async for record in reader.records(await reader.spans([f"{settings.group}-{SERIES_TABLE}-changelog"])):
            key = (record.key or b"").decode()
            if not key.startswith("reference|"):
                continue
            reference = records.decode(key.encode(), record.value) if record.value else None
            if isinstance(reference, Reference):
                kept[key] = reference
            else:
                kept.pop(key, None)
    series = {each.series for each in kept.values()}
    return {one: Versions([each for each in kept.values() if each.series == one]) for one in series}


def checked(versions: dict[Series, Versions], series: Series) -> Reference:
    """The reference in use. Raises CannotPin where a command would do nothing."""
    if series not in versions:
        names = sorted(f"--tenant {each.tenant_id!r} {each.model}" for each in versions)
        told = "; ".join(names[:20]) or "none: has the mesh answered anything?"
        raise CannotPin(f"There is no series of tenant {series.tenant_id!r} and model {series.model!r}. Known: {told}.")
    found = versions[series]
    if found.proposed is not None:
        raise CannotPin(
            f"Version {found.proposed.version} was asked for already ({found.proposed.command}); it has "
            f"{found.proposed.observations} texts and {found.proposed.request.observations} requests."
        )
    if not (found.current.pinned or found.current.requests_pinned):
        raise CannotPin(f"Version {found.current.version} is still being collected; there is nothing to replace yet.")
    return found.current


async def pin(settings: DriftSettings, series: Series) -> dict[str, object]:
    """Send the command; what was asked for."""
    current = checked(await known(settings), series)
    command = Pin(command=str(uuid4()), series=series)
    async with AIOKafkaProducer(**client_options(settings), acks="all") as producer:
        await producer.send_and_wait(OBSERVATIONS_TOPIC, records.encode_pin(command), key=series_key(series).encode())
    return {
        "command_id": command.command,
        "tenant_id": series.tenant_id,
        "model": series.model,
        "version": current.version + 1,
        "replaces": current.version,
        "observations_to_collect": settings.reference_observations,
    }


def main() -> None:
    """Entry point. Exit code 1 when it cannot be done, with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="sluice drift pin")
    parser.add_argument("model")
    parser.add_argument("--tenant", default="", help="empty: the series of all tenants")
    arguments = parser.parse_args()
    try:
        told = asyncio.run(pin(load(DriftSettings), Series(arguments.tenant, arguments.model)))
    except (CannotPin, Unavailable) as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
