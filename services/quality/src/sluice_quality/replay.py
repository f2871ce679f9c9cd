"""Counts the quality windows again from their events, compares them with those that were published, and corrects on demand.

`python -m sluice_quality.replay [--from TIME] [--into NAME] [--export FILE] [--switch --accept-differences]`. The report is JSON
on standard output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from aiokafka import ConsumerRecord
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.events.v1.quality_pb2 import AnswerJudged, QualityMeasured
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.settings import load
from sluice_kit.streams.windows_compared import Windows
from sluice_kit.streams.windows_replayed import FOR_EVER, Stored, WindowReplay, command

from sluice_quality.adapters import records
from sluice_quality.adapters.events import fact_of, measured
from sluice_quality.agents import WINDOWS_TABLE
from sluice_quality.domain.partition import Part, Partition, Rules
from sluice_quality.domain.watermark import Marks
from sluice_quality.settings import QualitySettings

SOURCES = tuple(topic_of(event).name for event in (RequestCompleted, ContentModerated, FeedbackReceived, AnswerJudged))


class Recount:
    """The windows of all partitions, counted from records in one order."""

    def __init__(self, rules: Rules) -> None:
        self._rules = replace(rules, retention=FOR_EVER)
        self._partitions: dict[int, Partition] = {}
        self.newest_us = 0
        self.skipped: Counter[str] = Counter()
        self.events = 0

    def take(self, record: ConsumerRecord) -> None:
        """One more record. Kafka's timestamp is the clock."""
        now = record.timestamp * 1000
        partition = self._partitions.get(record.partition)
        if partition is None:
            partition = self._partitions[record.partition] = Partition(record.partition, self._rules, now=now)
        try:
            fact = fact_of(
                decode(record.topic, record.value, dict(record.headers)), offset=record.offset, record_time=now
            )
        except UndecodableEvent as error:
            self.skipped[error.reason] += 1
            return
        self.events += 1
        self.newest_us = max(self.newest_us, now)
        if fact is not None:
            partition.absorb(record.topic, [fact], now=now, through=record.offset)

    def windows(self) -> dict[str, QualityMeasured]:
        """All windows, by part key."""
        states = (state for partition in self._partitions.values() for state in partition.windows)
        return {state.key: measured(Part(state, state.revision, False, 0)) for state in states if state.revision}

    def untold(self, live: Windows) -> set[str]:
        """A window depends on nothing before its own beginning."""
        return set()

    def unlike(self) -> list[str]:
        """Nothing else is compared."""
        return []


def forgotten_before(stored: Stored) -> Mapping[int, int]:
    """By partition: facts of windows that end at or before this moment are too late."""
    return {each.partition: each.forgotten_before for each in stored.values() if isinstance(each, Marks)}


def replay_of(settings: QualitySettings) -> WindowReplay:
    """What is quality's own."""
    rules = settings.rules()
    return WindowReplay(
        service="quality",
        settings=settings,
        group=settings.group,
        folder=settings.data_dir,
        sources=SOURCES,
        measured=QualityMeasured,
        table=WINDOWS_TABLE,
        records=records,
        forgotten_before=forgotten_before,
        slack_us=rules.lateness + rules.idle_after,
        recount=lambda start: Recount(rules),
    )


def main() -> None:
    """Entry point of `python -m sluice_quality.replay`."""
    command(lambda: replay_of(load(QualitySettings)))


if __name__ == "__main__":
    main()
