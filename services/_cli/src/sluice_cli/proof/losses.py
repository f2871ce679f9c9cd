"""What producers said they lost: EventsLost names the numbers that will never come."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sluice.events.v1.mesh_pb2 import EventsLost
from sluice_kit.completeness import Range
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.ordered import OrderedReader

LOST = topic_of(EventsLost).name
Told = Mapping[tuple[str, str], tuple[Range, ...]]
"""By topic and producer."""


async def told_losses(reader: OrderedReader) -> Told:
    """Every range that a producer gave up, as the topic tells now."""
    found: defaultdict[tuple[str, str], list[Range]] = defaultdict(list)
    async for record in reader.records(await reader.spans([LOST])):
        try:
            event: Any = decode(record.topic, record.value, dict(record.headers))
        except UndecodableEvent:
            continue  # told where the topic itself is verified
        if event.first_sequence <= event.last_sequence:
            place = event.lost_topic, event.metadata.producer
            found[place].append((event.first_sequence, event.last_sequence))
    return {place: tuple(sorted(ranges)) for place, ranges in found.items()}
