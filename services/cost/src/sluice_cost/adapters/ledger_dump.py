"""The ledger as bytes: one JSON line a row, ordered by event id, the same whatever database holds it; and two ledgers compared."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from sqlalchemy import Connection, and_, false, func, or_, select

from sluice_cost.adapters import tables
from sluice_cost.domain.ledger import Partition

Bounds = Mapping[Partition, tuple[int, int]]
"""Offsets of each partition, first inclusive, last exclusive."""

# Numbers the database gave in the order of arrival. When two partitions are read side by side no two orders are the same.
_BY_ARRIVAL = frozenset({"entry_id"})
# The live ledger writes down when it wrote; a replay cannot know that, and takes Kafka's timestamps.
_BY_CLOCK = frozenset({"recorded_at_us"})
# A part of a ledger has a chain of its own; of whole ledgers the heads of the chains are compared.
_BY_CHAIN = frozenset({"chain_number", "entry_hash"})
_BY_PRICE = frozenset({"priced", "price_id", "currency", "amount_nano", *tables.LINES})
_EXAMPLES = 10
_ROWS_AT_A_TIME = 1000


@dataclass(frozen=True)
class LedgerDifference:
    """Two ledgers row by row."""

    same: int = 0
    different: int = 0
    only_live: int = 0
    only_replayed: int = 0
    begun_before: int = 0
    """Copies of events whose first copy stands before the range: the live ledger has them from there."""
    corrected: int = 0
    """Priced differently, and the live ledger's corrections make up for exactly that."""
    examples: tuple[str, ...] = ()
    """The first differences, a sentence each."""

    @property
    def is_none(self) -> bool:
        """True when every row is the same."""
        return not (self.different or self.only_live or self.only_replayed)


def write_dump(connection: Connection, bounds: Bounds, file: IO[bytes]) -> str:
    """Write the rows of these bounds; returns the SHA-256 of what was written."""
    digest = hashlib.sha256()
    for row in _rows(connection, bounds, without=_BY_ARRIVAL):
        row["entry_hash"] = bytes(row["entry_hash"] or b"").hex()
        line = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
        digest.update(line)
        file.write(line)
    return digest.hexdigest()


def compare(live: Connection, replayed: Connection, bounds: Bounds) -> LedgerDifference:
    """Row by row, but for the numbers and the moments of writing down."""
    counts = dict.fromkeys(("same", "different", "only_live", "only_replayed", "begun_before", "corrected"), 0)
    examples: list[str] = []
    without = _BY_ARRIVAL | _BY_CLOCK | _BY_CHAIN
    corrections = _corrections(live)
    for left, right in _side_by_side(_rows(live, bounds, without=without), _rows(replayed, bounds, without=without)):
        kind, sentence = _difference(left, right)
        if left is None and right is not None and _holds(live, right["event_id"]):
            kind, sentence = "begun_before", ""
        if kind == "different" and left and right and _makes_up(corrections, left, right):
            kind, sentence = "corrected", ""
        counts[kind] += 1
        if sentence and len(examples) < _EXAMPLES:
            examples.append(sentence)
    return LedgerDifference(**counts, examples=tuple(examples))


def corrections_held(connection: Connection) -> int:
    """How many corrections a ledger holds: decisions, which no replay can make from events."""
    return int(connection.execute(select(func.count()).where(tables.ledger.c.corrects != "")).scalar() or 0)


def others_held(connection: Connection, topic: str) -> int:
    """How many rows a ledger holds that were made from something else than a topic, and are no corrections."""
    ledger = tables.ledger.c
    asked = select(func.count()).where(ledger.source_topic != topic, ledger.corrects == "")
    return int(connection.execute(asked).scalar() or 0)


def heads(connection: Connection, topic: str) -> dict[int, tuple[int, str, int]]:
    """The ends of a topic's hash chains by partition: rows, hash, and how many rows are older than the chain."""
    found = select(tables.chain_heads).where(tables.chain_heads.c.topic == topic)
    return {
        row.partition_number: (row.number, bytes(row.hash).hex(), row.unsealed) for row in connection.execute(found)
    }


def sums(connection: Connection) -> list[tuple[Any, ...]]:
    """The hourly sums, in one order."""
    return sorted(tuple(row) for row in connection.execute(select(tables.spend_hours)))


def _difference(left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> tuple[str, str]:
    if left is None or right is None:
        row = left or right or {}
        kind = "only_live" if left else "only_replayed"
        return kind, f"{row['event_id']}: only in the {'live' if left else 'replayed'} ledger"
    changed = [name for name in left if left[name] != right[name]]
    told = ", ".join(f"{name} {left[name]} -> {right[name]}" for name in changed)
    return ("different", f"{left['event_id']}: {told}") if changed else ("same", "")


def _corrections(connection: Connection) -> dict[tuple[str, str], int]:
    """What was added to each event's row later, by event id and currency."""
    ledger = tables.ledger.c
    asked = select(ledger.corrects, ledger.currency, func.sum(ledger.amount_nano)).where(ledger.corrects != "")
    rows = connection.execute(asked.group_by(ledger.corrects, ledger.currency))
    return {(event_id, currency): int(amount) for event_id, currency, amount in rows}


def _makes_up(corrections: Mapping[tuple[str, str], int], left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    if any(left[name] != right[name] for name in left if name not in _BY_PRICE):
        return False
    correction = corrections.get((left["event_id"], right["currency"]))
    own = left["amount_nano"] if left["currency"] == right["currency"] or not left["amount_nano"] else None
    return correction is not None and own is not None and own + correction == right["amount_nano"]


def _holds(connection: Connection, event_id: str) -> bool:
    found = connection.execute(select(tables.ledger.c.entry_id).where(tables.ledger.c.event_id == event_id))
    return found.scalar() is not None


def _side_by_side(
    left: Iterator[dict[str, Any]], right: Iterator[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Rows of the same event as pairs, of both sides in the order of event ids."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one["event_id"] < other["event_id"]):
            yield one, None
            one = next(left, None)
        elif one is None or other["event_id"] < one["event_id"]:
            yield None, other
            other = next(right, None)
        else:
            yield one, other
            one, other = next(left, None), next(right, None)


def _rows(connection: Connection, bounds: Bounds, *, without: frozenset[str]) -> Iterator[dict[str, Any]]:
    names = [column.name for column in tables.ledger.c if column.name not in without]
    event_id = tables.ledger.c.event_id
    # A database's own collation would order the same ids differently; bytes are ordered the same everywhere.
    order = event_id.collate("C") if connection.dialect.name == "postgresql" else event_id
    statement = select(*(tables.ledger.c[name] for name in names)).where(_within(bounds)).order_by(order)
    streamed = connection.execution_options(yield_per=_ROWS_AT_A_TIME).execute(statement)
    return (dict(zip(names, row, strict=True)) for row in streamed)


def _within(bounds: Bounds) -> Any:
    ledger = tables.ledger.c
    parts: Sequence[Any] = [
        and_(
            ledger.source_topic == partition.topic,
            ledger.source_partition == partition.number,
            ledger.source_offset >= first,
            ledger.source_offset < last,
        )
        for partition, (first, last) in sorted(bounds.items(), key=lambda item: (item[0].topic, item[0].number))
    ]
    return or_(false(), *parts)
