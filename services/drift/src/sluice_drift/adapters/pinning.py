"""Asks the processor to pin the reference of a series anew.

The next observations are collected beside the reference in use, which stays until they are enough; then windows that begin
later are compared with the new version. The command is a record of the internal topic, so a killed worker obeys it once.
"""

from __future__ import annotations

from uuid import uuid4

from aiokafka import AIOKafkaProducer
from sluice_kit.broker import client_options
from sluice_kit.ordered import OrderedReader
from sluice_kit.settings import MeshSettings

from sluice_drift.adapters import records
from sluice_drift.domain.observation import Pin, Series
from sluice_drift.domain.reference import Reference, series_key
from sluice_drift.domain.versions import Versions


class CannotPin(Exception):
    """Says why not, and what to do."""


async def known(settings: MeshSettings, changelog: str) -> dict[Series, Versions]:
    """The references in the changelog of the processor's table."""
    kept: dict[str, Reference] = {}
    async with OrderedReader.opened(settings) as reader:
        async for record in reader.records(await reader.spans([changelog])):
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


async def pin(settings: MeshSettings, series: Series, *, changelog: str, topic: str) -> dict[str, object]:
    """Send the command; what was asked for."""
    current = checked(await known(settings, changelog), series)
    command = Pin(command=str(uuid4()), series=series)
    async with AIOKafkaProducer(**client_options(settings), acks="all") as producer:
        await producer.send_and_wait(topic, records.encode_pin(command), key=series_key(series).encode())
    return {
        "command_id": command.command,
        "tenant_id": series.tenant_id,
        "model": series.model,
        "version": current.version + 1,
        "replaces": current.version,
    }
