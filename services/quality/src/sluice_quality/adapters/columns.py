"""RequestCompleted to facts, many at once: the same facts as one by one, in a tenth of the time (docs/streams.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import repeat
from typing import Any

import numpy as np
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.events import topic_of
from sluice_kit.streams.columns import (
    booleans,
    decode_columns,
    durations,
    event_times,
    groups,
    integers,
    is_empty,
    is_given,
    is_plain,
    sums_of_lists,
)
from sluice_kit.streams.source import SourceEvent

from sluice_quality.adapters.events import LARGEST_TOKEN_COUNT, OUTCOMES, TRUNCATED, series_of
from sluice_quality.domain import columns as domain
from sluice_quality.domain.columns import CompletionColumns, Maybe
from sluice_quality.domain.facts import Fact, Outcome, Series

_TOPIC = topic_of(RequestCompleted).name.encode()
_INPUT = ("uncached_input_tokens", "cached_input_tokens", "cache_write_tokens")
_OUTPUT = ("output_tokens", "reasoning_tokens")
_SERIES = tuple(field.name for field in fields(Series))
_FAILED = domain.OUTCOMES.index(Outcome.FAILED)
_CODES = {value: domain.OUTCOMES.index(outcome) for value, outcome in OUTCOMES.items()}

Found = tuple[list[Fact | None], list[int]]
"""Facts by the place of their event, and the places of events that must be read one by one."""


def read_together(events: Sequence[SourceEvent]) -> CompletionColumns | Found:
    """What is in records of RequestCompleted: columns, without what counts nowhere, when none must be read by itself."""
    reading = _read(events) if all(map(is_plain, events, repeat(_TOPIC))) else None
    if reading is None:
        return facts_of(events)
    return reading.facts() if reading.doubtful.any() or reading.synthetic.all() else reading.counted()


def facts_of(events: Sequence[SourceEvent]) -> Found:
    """The facts, each by itself, of those that can be decoded together."""
    plain = [is_plain(event, _TOPIC) for event in events]
    places = [place for place, each in enumerate(plain) if each]
    reading = _read([events[place] for place in places])
    found: list[Fact | None] = [None] * len(events)
    if reading is None:
        return found, list(range(len(events)))
    among, alone = reading.facts()
    for place, fact in zip(places, among, strict=True):
        found[place] = fact
    odd = {place for place, each in enumerate(plain) if not each}
    return found, sorted(odd | {places[each] for each in alone})


def _read(events: Sequence[SourceEvent]) -> _Reading | None:
    """None where one of them is no message; which one shows only when each is read."""
    messages = [event.message for event in events]
    try:
        batch = decode_columns(RequestCompleted, [message.value for message in messages])
    except ValueError:
        return None
    return _Reading(batch, messages)


class _Reading:
    """A batch of RequestCompleted, read into columns."""

    def __init__(self, batch: Any, messages: Sequence[Any]) -> None:
        self._batch = batch
        self._metadata = batch.column("metadata")
        self._usage = batch.column("usage")
        self.synthetic = booleans(self._metadata.field("synthetic"))
        self.doubtful = is_empty(self._metadata.field("event_id"))
        """Which rows must be read one by one."""
        self._columns = self._read(messages)

    def counted(self) -> CompletionColumns:
        """All but synthetic requests."""
        return self._columns.only(np.flatnonzero(~self.synthetic)) if self.synthetic.any() else self._columns

    def facts(self) -> Found:
        """A fact for each row, None for synthetic requests and those in doubt."""
        found: list[Fact | None] = list(self._columns.completions())
        for place in np.flatnonzero(self.synthetic | self.doubtful).tolist():
            found[place] = None
        return found, np.flatnonzero(self.doubtful).tolist()

    def _read(self, messages: Sequence[Any]) -> CompletionColumns:
        batch, metadata = self._batch, self._metadata
        series, all_series = self._series()
        permille = batch.column("repetition_permille")
        contexts = integers(batch.column("context_sentences")).astype(np.int64)
        grounded = integers(batch.column("grounded_sentences")).astype(np.int64)
        return CompletionColumns(
            offset=np.array([message.offset for message in messages], dtype=np.int64),
            at=self._at(messages),
            request_id=metadata.field("request_id").to_pylist(),
            series=series,
            all_series=all_series,
            outcome=self._outcomes(),
            latency=self._span("latency"),
            time_to_first_token=self._span("time_to_first_token"),
            generation_time=self._span("generation_time"),
            prompt_tokens=self._tokens(_INPUT),
            completion_tokens=self._tokens(_OUTPUT),
            answer_characters=integers(batch.column("output_characters")).astype(np.int64),
            redactions=sums_of_lists(batch.column("redacted_input"), "count")
            + sums_of_lists(batch.column("redacted_output"), "count"),
            streamed=booleans(batch.column("streamed")),
            truncated=np.isin(integers(batch.column("finish_reason")), list(TRUNCATED)),
            refusal=self._judged("refusal"),
            empty_answer=self._judged("empty_answer"),
            language_mismatch=self._judged("language_mismatch"),
            repetition_permille=Maybe(integers(permille).astype(np.int64), is_given(permille)),
            context_sentences=contexts,
            grounded_sentences=np.minimum(grounded, contexts),
        )

    def _at(self, messages: Sequence[Any]) -> np.ndarray:
        seconds = np.array([message.timestamp for message in messages])
        at, odd = event_times(self._metadata.field("occurred_at"), np.rint(seconds * 1_000_000).astype(np.int64))
        self.doubtful |= odd
        return at

    def _outcomes(self) -> np.ndarray:
        told = integers(self._batch.column("outcome"))
        found = np.full(len(told), _FAILED, dtype=np.int64)
        for value, code in _CODES.items():
            found[told == value] = code
        return found

    def _series(self) -> tuple[np.ndarray, list[Series]]:
        names = [
            (self._metadata.field(name) if name in ("tenant_id", "project_id") else self._batch.column(name))
            for name in _SERIES
        ]
        numbers, rows = groups(names)
        return numbers, [series_of(*[column[row].as_py() for column in names]) for row in rows]

    def _span(self, name: str) -> Maybe:
        micros, given, doubtful = durations(self._batch.column(name))
        self.doubtful |= doubtful
        return Maybe(micros, given)

    def _judged(self, name: str) -> Maybe:
        column = self._batch.column(name)
        return Maybe(booleans(column), is_given(column))

    def _tokens(self, names: Sequence[str]) -> np.ndarray:
        total = np.zeros(len(self.doubtful), dtype=np.int64)
        for name in names:
            counts = integers(self._usage.field(name))
            absurd = counts > LARGEST_TOKEN_COUNT
            total += np.where(absurd, 0, counts).astype(np.int64)
            self.doubtful |= absurd
        self.doubtful |= total > LARGEST_TOKEN_COUNT
        return total
