"""What the feedback database holds as bytes, the same whatever database holds it; and two of them compared row by row."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import IO, Any

from sqlalchemy import Connection, Table, func, select

from sluice_feedback.adapters import tables
from sluice_feedback.domain.feedback import Feedback, Kind, Value

# Table to its key and the columns that are numbers given in the order of arrival.
_REBUILT: Mapping[Table, tuple[tuple[str, ...], frozenset[str]]] = {
    tables.feedback: (("tenant_id", "feedback_id"), frozenset({"entry_id"})),
    tables.known_requests: (("request_id",), frozenset()),
    tables.erasures: (("tenant_id", "subject_id"), frozenset()),
}
_EXAMPLES = 10
_ROWS_AT_A_TIME = 1000
_KINDS = ("same", "different", "only_live", "only_replayed", "forgotten", "under_way")
_Row = Mapping[str, Any]


@dataclass(frozen=True)
class RegisterDifference:
    """Two feedback databases row by row."""

    same: int = 0
    different: int = 0
    only_live: int = 0
    only_replayed: int = 0
    forgotten: int = 0
    """Requests older than the oldest that the live register still knows."""
    under_way: int = 0
    """Feedback whose last event had not left the service when the topics were read."""
    examples: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        """True when every row that can be compared is the same."""
        return not (self.different or self.only_live or self.only_replayed)


def write_dump(connection: Connection, file: IO[bytes]) -> str:
    """One JSON line a row, by table and key; returns the SHA-256 of what was written. Sealed texts stay sealed."""
    digest = hashlib.sha256()
    for table in _REBUILT:
        for row in _rows(connection, table):
            line = json.dumps({"table": table.name} | dict(row), sort_keys=True, separators=(",", ":")).encode() + b"\n"
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def compare(live: Connection, replayed: Connection, *, told_before_us: int) -> RegisterDifference:
    """Row by row. What changed at or after `told_before_us`, or waits in the outbox, may not be on the topic yet."""
    counts = dict.fromkeys(_KINDS, 0)
    examples: list[str] = []
    oldest = live.execute(select(func.min(tables.known_requests.c.completed_at_us))).scalar() or 0
    waiting = {row.event_id for row in live.execute(select(tables.outbox.c.event_id))}
    for table, (key, _) in _REBUILT.items():
        for left, right in _side_by_side(_rows(live, table), _rows(replayed, table), key):
            is_moving = table is tables.feedback and _is_moving(left, waiting, told_before_us)
            kind = "under_way" if is_moving and left != right else _kind(table, left, right, oldest)
            counts[kind] += 1
            if kind in ("different", "only_live", "only_replayed") and len(examples) < _EXAMPLES:
                examples.append(_sentence(table, key, left, right))
    return RegisterDifference(**counts, examples=tuple(examples))


def _is_moving(row: _Row | None, waiting: Set[str], told_before_us: int) -> bool:
    """Whether the last event of live feedback may not have left the service yet."""
    if row is None:
        return False
    feedback = Feedback(row["feedback_id"], row["request_id"], row["tenant_id"], Value(Kind(row["kind"])))
    is_told_of = {feedback.event_id(is_retraction=over) for over in (False, True)}.isdisjoint(waiting)
    return not is_told_of or (row["ended_at_us"] or row["received_at_us"]) >= told_before_us


def _kind(table: Table, left: _Row | None, right: _Row | None, oldest: int) -> str:
    if left == right:
        return "same"
    if table is tables.known_requests and left is None and right is not None and right["completed_at_us"] <= oldest:
        return "forgotten"
    return "only_replayed" if left is None else "only_live" if right is None else "different"


def _sentence(table: Table, key: tuple[str, ...], left: _Row | None, right: _Row | None) -> str:
    row = left if left is not None else right
    assert row is not None
    what = f"{table.name} {'/'.join(str(row[name]) for name in key)}"
    if left is None or right is None:
        return f"{what}: only {'live' if left is not None else 'replayed'}"
    # Names only: values may be what somebody said.
    return f"{what}: {', '.join(name for name in left if left[name] != right[name])} differ"


def _side_by_side(
    left: Iterator[_Row], right: Iterator[_Row], key: tuple[str, ...]
) -> Iterator[tuple[_Row | None, _Row | None]]:
    """Rows of the same key as pairs, of both sides in the order of keys."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        mine = None if one is None else [one[name].encode() for name in key]
        theirs = None if other is None else [other[name].encode() for name in key]
        if theirs is None or (mine is not None and mine < theirs):
            yield one, None
            one = next(left, None)
        elif mine is None or theirs < mine:
            yield None, other
            other = next(right, None)
        else:
            yield one, other
            one, other = next(left, None), next(right, None)


def _rows(connection: Connection, table: Table) -> Iterator[_Row]:
    key, without = _REBUILT[table]
    names = [column.name for column in table.c if column.name not in without]
    # A database's own collation would order the same keys differently; bytes are ordered the same everywhere.
    is_postgres = connection.dialect.name == "postgresql"
    order = [table.c[name].collate("C") if is_postgres else table.c[name] for name in key]
    found = select(*(table.c[name] for name in names)).order_by(*order)
    for row in connection.execution_options(yield_per=_ROWS_AT_A_TIME).execute(found):
        yield {
            name: bytes(v).hex() if isinstance(v, bytes | memoryview) else v for name, v in zip(names, row, strict=True)
        }
