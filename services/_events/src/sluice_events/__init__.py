"""Sluice's events for other teams: `async for event in consume(RequestCompleted, bootstrap=..., group=...)`."""

from sluice_events.blocking import consume_blocking
from sluice_events.consuming import consume
from sluice_events.event import Event, Poison, PoisonRecord, TopicMissing
from sluice_events.seen import SeenIds

__all__ = ["Event", "Poison", "PoisonRecord", "SeenIds", "TopicMissing", "consume", "consume_blocking"]
