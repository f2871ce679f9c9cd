"""The internal topic of this service; those of the events are made by the kit."""

from __future__ import annotations

from sluice_kit.streams import own_topics
from sluice_kit.streams.options import WorkerOptions

RETENTION_MS = 3_600_000
"""An observation is read within a second; an hour outlives any restart."""


async def ensure_topic(name: str, options: WorkerOptions) -> None:
    """Create the topic if it is missing."""
    limits = {"retention.ms": str(RETENTION_MS), "retention.bytes": str(20 * 2**20)}
    await own_topics.ensure_topic(name, options, limits)
