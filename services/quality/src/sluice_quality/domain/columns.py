"""Completions of a batch as columns: divided among windows and summed all at once, to the digits of one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sluice_quality.domain.facts import Completion, Outcome, Series
from sluice_quality.domain.sketch import BUCKETS_PER_OCTAVE, Values, bucket_of
from sluice_quality.domain.totals import ANSWERED, MICROSECONDS, REPETITIVE_PERMILLE, Share

OUTCOMES = tuple(Outcome)
_CODES = {outcome: code for code, outcome in enumerate(OUTCOMES)}
_MOST = 2**63 - 1
# numpy's logarithm and the C library's differ in their last digits, by 1e-12 of a bucket: nearer to a border than this the
# bucket is looked up one by one.
_NEAR_A_BORDER = 1e-6


class Maybe(NamedTuple):
    """A column whose values are not all given."""

    values: np.ndarray
    given: np.ndarray
    """Booleans. Where there is no value, `values` holds anything."""

    def as_list(self) -> list[Any]:
        """None where there is no value."""
        found = self.values.tolist()
        for place in np.flatnonzero(~self.given).tolist():
            found[place] = None
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionColumns:
    """Fields of Completion, a row for each, in the order of the log. Numbers are int64."""

    offset: np.ndarray
    at: np.ndarray
    request_id: list[str]
    series: np.ndarray
    """Numbers of `all_series`."""
    all_series: Sequence[Series]
    """Each once."""
    outcome: np.ndarray
    """Numbers of OUTCOMES."""
    latency: Maybe
    time_to_first_token: Maybe
    generation_time: Maybe
    prompt_tokens: np.ndarray
    completion_tokens: np.ndarray
    answer_characters: np.ndarray
    redactions: np.ndarray
    streamed: np.ndarray
    truncated: np.ndarray
    refusal: Maybe
    empty_answer: Maybe
    language_mismatch: Maybe
    repetition_permille: Maybe
    context_sentences: np.ndarray
    grounded_sentences: np.ndarray

    def __len__(self) -> int:
        return len(self.request_id)

    def series_by_row(self) -> Iterator[Series]:
        """The series of each row."""
        return map(self.all_series.__getitem__, self.series.tolist())

    def completions(self) -> list[Completion]:
        """One by one."""
        made: dict[str, Any] = {
            "series": self.series_by_row(),
            "outcome": map(OUTCOMES.__getitem__, self.outcome.tolist()),
        }
        for name in Completion._fields:
            column = getattr(self, name)
            if isinstance(column, Maybe):
                made[name] = column.as_list()
            elif name not in made:
                made[name] = column if isinstance(column, list) else column.tolist()
        return list(map(Completion._make, zip(*[made[name] for name in Completion._fields], strict=True)))

    def only(self, rows: np.ndarray) -> CompletionColumns:
        """These rows, in this order."""
        changes: dict[str, Any] = {"request_id": list(map(self.request_id.__getitem__, rows.tolist()))}
        for each in fields(self):
            column = getattr(self, each.name)
            if isinstance(column, np.ndarray):
                changes[each.name] = column[rows]
            elif isinstance(column, Maybe):
                changes[each.name] = Maybe(column.values[rows], column.given[rows])
        return replace(self, **changes)

    def shares(self, length: int) -> list[Share]:
        """What each series has in each window of this length, in the order in which they begin."""
        start = self.at - self.at % length
        _, windows = np.unique(start, return_inverse=True)
        _, begins, group, counts = np.unique(
            windows * len(self.all_series) + self.series, return_index=True, return_inverse=True, return_counts=True
        )
        rank = np.empty(len(begins), dtype=np.int64)
        rank[np.argsort(begins)] = np.arange(len(begins))
        counts[rank] = counts.copy()
        return _Groups(self, rank[group], counts).shares()


class _Groups:
    """Rows of the columns in groups, those of a group in the order of the log."""

    def __init__(self, columns: CompletionColumns, group: np.ndarray, counts: np.ndarray) -> None:
        """`group` is the number of each row's, `counts` the size of each."""
        self._columns = columns
        self._rows = np.argsort(group, kind="stable")
        self._group = group[self._rows]
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts

    def shares(self) -> list[Share]:
        """One for each group."""
        columns, first, last = self._columns, self._rows[self._begins], self._rows[self._ends - 1]
        sums, values = self._all_sums(), self._all_values()
        return [
            Share(
                series=columns.all_series[series],
                at=at,
                first=begin,
                last=end,
                requests=high - low,
                sums=[(name, found) for name, column in sums if (found := column[number])],
                values=[(name, each) for name, column in values if (each := column[number])],
                completions=partial(self._completions, low, high),
            )
            for number, (series, at, begin, end, low, high) in enumerate(
                zip(
                    columns.series[first].tolist(),
                    columns.at[first].tolist(),
                    columns.offset[first].tolist(),
                    columns.offset[last].tolist(),
                    self._begins.tolist(),
                    self._ends.tolist(),
                    strict=True,
                )
            )
        ]

    def _completions(self, begin: int, end: int) -> list[Completion]:
        return self._columns.only(self._rows[begin:end]).completions()

    def _all_sums(self) -> list[tuple[str, list[int]]]:
        return [
            (name, np.add.reduceat(column[self._rows], self._begins, dtype=np.int64).tolist())
            for name, column in _counted(self._columns)
            if column.any()
        ]

    def _all_values(self) -> list[tuple[str, Sequence[Values | None]]]:
        return [(name, self._values(column)) for name, column in _measured(self._columns) if column.given.any()]

    def _values(self, column: Maybe) -> Sequence[Values | None]:
        """Of each group; None where it has none."""
        given = column.given[self._rows]
        values, group = np.maximum(column.values[self._rows][given], 0), self._group[given]
        groups, begins, counts = np.unique(group, return_index=True, return_counts=True)
        positive = values > 0
        ends = np.cumsum(np.add.reduceat(positive, begins, dtype=np.int64))
        indexes, begin = _buckets(values[positive]).tolist(), 0
        found: list[Values | None] = [None] * len(self._begins)
        for number, count, end, total, least, most in zip(
            groups.tolist(),
            counts.tolist(),
            ends.tolist(),
            _exact_sums(values, begins).tolist(),
            np.minimum.reduceat(values, begins).tolist(),
            np.maximum.reduceat(values, begins).tolist(),
            strict=True,
        ):
            found[number] = Values(indexes[begin:end], count - (end - begin), total, least, most)
            begin = end
        return found


def _counted(columns: CompletionColumns) -> Iterator[tuple[str, np.ndarray]]:
    """What is summed, by its name in RequestTotals."""
    yield from ((outcome.value, columns.outcome == code) for outcome, code in _CODES.items())
    yield "redactions", columns.redactions
    yield "redacted_requests", columns.redactions > 0
    for name in ("streamed", "truncated", "prompt_tokens", "completion_tokens"):
        yield name, getattr(columns, name)
    answered = _is_answered(columns)
    yield from _judged("refusals", "refusals_judged", columns.refusal, answered)
    yield from _judged("empty_answers", "empty_answers_judged", columns.empty_answer, answered)
    yield from _judged("language_mismatches", "languages_judged", columns.language_mismatch, answered)
    permille, given = columns.repetition_permille
    yield from _judged(
        "repetitive_answers", "repetition_judged", Maybe(permille >= REPETITIVE_PERMILLE, given), answered
    )
    sentences, grounded = columns.context_sentences, columns.grounded_sentences
    has_context = answered & (sentences != 0)
    yield "context_answers", has_context
    yield "ungrounded_answers", has_context & (2 * grounded < sentences)
    yield "context_sentences", sentences * has_context
    yield "grounded_sentences", grounded * has_context


def _judged(name: str, judged: str, column: Maybe, answered: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield judged, column.given & answered
    yield name, column.values & column.given & answered


def _measured(columns: CompletionColumns) -> Iterator[tuple[str, Maybe]]:
    """What is sketched, by its name in RequestTotals; why each is as it is, is said there."""
    latency, first, took = columns.latency, columns.time_to_first_token, columns.generation_time
    yield "latency", Maybe(latency.values, latency.given & (columns.outcome != _CODES[Outcome.REJECTED]))
    yield "time_to_first_token", first
    timed = took.given & (took.values != 0) & (columns.completion_tokens != 0)
    time = np.where(timed, took.values, 1)
    yield "tokens_per_kilosecond", Maybe(columns.completion_tokens * (1000 * MICROSECONDS) // time, timed)
    answered = _is_answered(columns)
    yield "answer_characters", Maybe(columns.answer_characters, answered)
    permille, given = columns.repetition_permille
    yield "repetition_permille", Maybe(permille, given & answered)


def _is_answered(columns: CompletionColumns) -> np.ndarray:
    return np.isin(columns.outcome, [_CODES[outcome] for outcome in ANSWERED])


def _exact_sums(values: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Of non-negative values; with Python's integers where 64 bits might not do."""
    fits = int(values.max()) <= _MOST // len(values)
    return np.add.reduceat(values if fits else values.astype(object), begins)


def _buckets(values: np.ndarray) -> np.ndarray:
    """bucket_of each positive value."""
    exact = np.log2(values) * BUCKETS_PER_OCTAVE
    found = np.ceil(exact).astype(np.int64)
    for place in np.flatnonzero(np.abs(exact - np.rint(exact)) < _NEAR_A_BORDER).tolist():
        found[place] = bucket_of(int(values[place]))
    return found
