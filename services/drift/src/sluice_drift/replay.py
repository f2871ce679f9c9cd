"""Counts the drift windows again from their events, compares them with those that were published, and corrects on demand.

`python -m sluice_drift.replay [--from TIME] [--into NAME] [--export FILE] [--switch --accept-differences]`. The report is JSON on
standard output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiokafka import ConsumerRecord
from aiokafka.partitioner import DefaultPartitioner
from sluice.events.v1.drift_pb2 import DRIFT_VERDICT_INSUFFICIENT, DriftMeasured
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.settings import load
from sluice_kit.streams import windows_compared
from sluice_kit.streams.windows_compared import Windows
from sluice_kit.streams.windows_replayed import FOR_EVER, Start, Stored, WindowReplay, command

from sluice_drift.adapters import records
from sluice_drift.adapters.events import measured
from sluice_drift.adapters.facts import observations_of
from sluice_drift.agents import OBSERVATIONS_TOPIC, SERIES_TABLE, SOURCES
from sluice_drift.domain.causes import causes_of
from sluice_drift.domain.comparison import Comparer, Detection
from sluice_drift.domain.observation import Observation, Series
from sluice_drift.domain.partition import Due, Rules
from sluice_drift.domain.recount import Recount, Version
from sluice_drift.domain.reference import Reference, series_key
from sluice_drift.domain.watermark import Marks
from sluice_drift.settings import DriftSettings

SOURCE = topic_of(InferenceMeasured)


class SeriesCounted:
    """The windows of all series, counted from records in one order."""

    def __init__(self, rules: Rules, detection: Detection, start: Start) -> None:
        self._rules, self._detection = replace(rules, retention=FOR_EVER), detection
        self._pinned: dict[Version, Reference] = {
            (each.series, each.version): each
            for each in start.stored.values()
            if isinstance(each, Reference) and (each.pinned or each.requests_pinned) and not each.proposed
        }
        self._marks = {each.partition: each for each in start.stored.values() if isinstance(each, Marks)}
        self._is_partial = start.is_partial
        self._numbers = list(range(start.partitions.get(OBSERVATIONS_TOPIC) or SOURCE.partitions))
        self._partitions: dict[int, Recount] = {}
        self._whose: dict[Series, Recount] = {}
        self.newest_us = 0
        self.skipped: Counter[str] = Counter()
        self.events = 0

    def take(self, record: ConsumerRecord) -> None:
        """One more record. Kafka's timestamp is the clock."""
        now = record.timestamp * 1000
        try:
            message: Any = decode(record.topic, record.value, dict(record.headers))
        except UndecodableEvent as error:
            self.skipped[error.reason] += 1
            return
        self.events += 1
        self.newest_us = max(self.newest_us, now)
        marks = self._marks.get(record.partition)
        offset = marks.place(record.topic, record.offset) if marks else record.offset
        for found in observations_of(message, partition=record.partition, offset=offset, record_time=now):
            self._partition_of(found, now).absorb_one(found, now=now)

    def windows(self) -> dict[str, DriftMeasured]:
        """All windows, by part key."""
        comparer, rate = Comparer(self._detection, self._rules.trailing), self._detection.false_alarm_rate
        return {
            due.window.key: _event(due, comparer, rate)
            for partition in self._partitions.values()
            for due in partition.due_all()
        }

    def untold(self, live: Windows) -> set[str]:
        """Windows against a reference that is not known and was collected before the range."""
        counted = {
            due.window.key: (due.window.series, due.window.reference_version)
            for partition in self._partitions.values()
            for due in partition.due_all()
        }
        published = {
            key: (Series(event.series.tenant_id, event.series.model), event.reference.version)
            for key, event in live.items()
        }
        return {key for key, version in [*counted.items(), *published.items()] if version not in self._pinned}

    def unlike(self) -> list[str]:
        """Pinned references whose observations are not those of the topic."""
        found = [version for partition in self._partitions.values() for version in partition.unlike()]
        return sorted(
            f"reference {number} of {series_key(series)} is not what the topic holds" for series, number in found
        )

    def _partition_of(self, observation: Observation, now: int) -> Recount:
        """As the router's producer chooses it, by the key."""
        series = observation.series
        if series not in self._whose:
            number = DefaultPartitioner()(series_key(series).encode(), self._numbers, self._numbers)
            if number not in self._partitions:
                self._partitions[number] = Recount(
                    number, self._rules, pinned=self._pinned, partial=self._is_partial, now=now
                )
            self._whose[series] = self._partitions[number]
        return self._whose[series]


def _event(due: Due, comparer: Comparer, rate: float) -> DriftMeasured:
    comparison = comparer.compare(due.window, due.reference, due.before)
    return measured(due, comparison, causes_of(due.window, due.reference, comparison), false_alarm_rate=rate)


def alike(live: DriftMeasured, replayed: DriftMeasured) -> bool:
    """The same was observed, and said of it.

    A window is published with its reference as it was at that moment. While that was collected it grew afterwards, so what
    is said of it is left out; and a window of an earlier embedding model that was published later was compared with nothing.
    """
    replaced = live.reference.version > replayed.reference.version and not live.features
    if not live.reference.requests_pinned:  # none of the window's requests are in its sample
        live, replayed = _without_requests(live), _without_requests(replayed)
    if live.reference.pinned and not replaced:
        return windows_compared.same(live, replayed)
    return windows_compared.same(_bare(live, replaced), _bare(replayed, replaced))


def _without_requests(event: DriftMeasured) -> DriftMeasured:
    bare = DriftMeasured()
    bare.CopyFrom(event)
    bare.reference.requests, bare.reference.requests_pinned = 0, False
    return bare


def _bare(event: DriftMeasured, is_replaced: bool) -> DriftMeasured:
    bare = windows_compared.content(event)
    bare.ClearField("reference")
    if is_replaced:
        bare.ClearField("features")
        bare.ClearField("causes")
        bare.verdict = DRIFT_VERDICT_INSUFFICIENT
    for feature in bare.features:
        seen = [(name, count) for name, count in zip(feature.bins, feature.bin_counts, strict=True) if count]
        feature.ClearField("reference_observations")
        feature.ClearField("reference_bin_counts")
        feature.bins[:] = [name for name, _ in seen]
        feature.bin_counts[:] = [count for _, count in seen]
    return bare


def forgotten_before(stored: Stored) -> Mapping[int, int]:
    """By partition: observations of windows that end at or before this moment are too late."""
    return {each.partition: each.forgotten_before for each in stored.values() if isinstance(each, Marks)}


def replay_of(settings: DriftSettings) -> WindowReplay:
    """What is drift's own."""
    rules, detection = settings.rules(), settings.detection()
    return WindowReplay(
        service="drift",
        settings=settings,
        group=settings.group,
        folder=settings.data_dir,
        sources=SOURCES,
        measured=DriftMeasured,
        table=SERIES_TABLE,
        records=records,
        forgotten_before=forgotten_before,
        slack_us=rules.lateness + rules.idle_after,
        recount=lambda start: SeriesCounted(rules, detection, start),
        counted_as=(OBSERVATIONS_TOPIC,),
        alike=alike,
    )


def main() -> None:
    """Entry point of `python -m sluice_drift.replay`."""
    command(lambda: replay_of(load(DriftSettings)))


if __name__ == "__main__":
    main()
