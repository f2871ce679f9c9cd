"""RequestCompleted to facts, many at once: the same facts as one by one, in a fifth of the time (docs/streams.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import repeat
from typing import Any

import numpy as np
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.events import topic_of
from sluice_kit.streams.columns import (
    decode_columns,
    durations,
    event_times,
    groups,
    integers,
    is_empty,
    is_plain,
    sums_of_lists,
)
from sluice_kit.streams.source import SourceEvent

from sluice_quality.adapters.events import LARGEST_TOKEN_COUNT, OUTCOMES, TRUNCATED, series_of
from sluice_quality.domain.facts import Completion, Fact, Outcome, Series

_TOPIC = topic_of(RequestCompleted).name.encode()
_INPUT = ("uncached_input_tokens", "cached_input_tokens", "cache_write_tokens")
_OUTPUT = ("output_tokens", "reasoning_tokens")
_SERIES = tuple(field.name for field in fields(Series))


def facts_of(events: Sequence[SourceEvent]) -> tuple[list[Fact | None], list[int]]:
    """The facts in records of RequestCompleted, by their place, and the places that must be read one by one."""
    plain = [is_plain(event, _TOPIC) for event in events]
    if all(plain):
        return _facts_of_plain(events)
    places = [place for place, each in enumerate(plain) if each]
    among, alone = _facts_of_plain([events[place] for place in places])
    found: list[Fact | None] = [None] * len(events)
    for place, fact in zip(places, among, strict=True):
        found[place] = fact
    odd = {place for place, each in enumerate(plain) if not each}
    return found, sorted(odd | {places[each] for each in alone})


def _facts_of_plain(events: Sequence[SourceEvent]) -> tuple[list[Fact | None], list[int]]:
    try:
        batch = decode_columns(RequestCompleted, [event.message.value for event in events])
    except ValueError:  # one of them is no message; which one shows only when each is read
        return [None] * len(events), list(range(len(events)))
    found, doubtful = _Columns(batch).facts(events)
    places = np.flatnonzero(doubtful).tolist()
    for place in places:
        found[place] = None
    return found, places


class _Columns:
    """A batch of RequestCompleted as columns."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._metadata = batch.column("metadata")
        self._usage = batch.column("usage")
        self._doubtful = np.zeros(batch.num_rows, dtype=bool)

    def facts(self, events: Sequence[SourceEvent]) -> tuple[list[Fact | None], np.ndarray]:
        """A fact for each row, None for synthetic requests; and which rows are in doubt."""
        batch, metadata = self._batch, self._metadata
        record_times = np.array([round(event.message.timestamp * 1_000_000) for event in events], dtype=np.int64)
        at, odd_times = event_times(metadata.field("occurred_at"), record_times)
        self._doubtful |= odd_times | is_empty(metadata.field("event_id"))
        contexts = integers(batch.column("context_sentences"))
        columns = (
            [event.message.offset for event in events],
            at.tolist(),
            metadata.field("request_id").to_pylist(),
            self._series(),
            list(map(OUTCOMES.get, integers(batch.column("outcome")).tolist(), repeat(Outcome.FAILED))),
            self._span("latency"),
            self._span("time_to_first_token"),
            self._span("generation_time"),
            self._tokens(_INPUT),
            self._tokens(_OUTPUT),
            integers(batch.column("output_characters")).tolist(),
            (
                sums_of_lists(batch.column("redacted_input"), "count")
                + sums_of_lists(batch.column("redacted_output"), "count")
            ).tolist(),
            batch.column("streamed").to_pylist(),
            np.isin(integers(batch.column("finish_reason")), list(TRUNCATED)).tolist(),
            *[self._judged(name) for name in ("refusal", "empty_answer", "language_mismatch", "repetition_permille")],
            contexts.tolist(),
            np.minimum(integers(batch.column("grounded_sentences")), contexts).tolist(),
        )
        found: list[Fact | None] = list(map(Completion._make, zip(*columns, strict=True)))
        for place in np.flatnonzero(np.asarray(metadata.field("synthetic").fill_null(False))).tolist():
            found[place] = None
        return found, self._doubtful

    def _series(self) -> list[Series]:
        names = [
            (self._metadata.field(name) if name in ("tenant_id", "project_id") else self._batch.column(name))
            for name in _SERIES
        ]
        numbers, rows = groups(names)
        made = [series_of(*[column[row].as_py() for column in names]) for row in rows]
        return [made[number] for number in numbers.tolist()]

    def _span(self, name: str) -> list[int | None]:
        micros, given, doubtful = durations(self._batch.column(name))
        self._doubtful |= doubtful
        found: list[int | None] = micros.tolist()
        for place in np.flatnonzero(~given).tolist():
            found[place] = None
        return found

    def _tokens(self, names: Sequence[str]) -> list[int]:
        total = np.zeros(len(self._doubtful), dtype=np.int64)
        for name in names:
            counts = integers(self._usage.field(name))
            absurd = counts > LARGEST_TOKEN_COUNT
            total += np.where(absurd, 0, counts).astype(np.int64)
            self._doubtful |= absurd
        self._doubtful |= total > LARGEST_TOKEN_COUNT
        return total.tolist()

    def _judged(self, name: str) -> list[Any]:
        column = self._batch.column(name)
        return [None] * len(column) if column.null_count == len(column) else column.to_pylist()
