"""The hash chain: every ledger row is sealed with all rows before it on its chain, so that a change shows."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from sluice_cost.domain.ledger import Partition

GENESIS = bytes(32)
_FORMAT = 1

# What is sealed, in this order, for ever: a further column needs a further format. Not sealed are the database's own numbers
# (entry_id, price_id) and the clock of the writer (recorded_at_us), so that a replay of the same events gives the same hashes.
SEALED_COLUMNS = (
    "source_topic",
    "source_partition",
    "source_offset",
    "event_id",
    "cost_event_id",
    "charge_kind",
    "occurred_at_us",
    "request_id",
    "tenant_id",
    "project_id",
    "subject_id",
    "api_key_id",
    "model",
    "served_model",
    "route",
    "operation",
    "outcome",
    "prompt_version",
    "experiment_arm",
    "corrects",
    "approved_by",
    "priced",
    "price_model",
    "price_version",
    "currency",
    "amount_nano",
    "uncached_input_nano",
    "cached_input_nano",
    "cache_write_nano",
    "output_nano",
    "reasoning_nano",
    "per_request_nano",
    "minimum_top_up_nano",
    "cpu_nano",
    "accelerator_nano",
    "uncached_input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cpu_us",
    "accelerator_us",
    "usage_estimated",
)

_as_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Head:
    """The end of one chain: how many rows it has and the hash of the last."""

    number: int
    hash: bytes
    unsealed: int = 0
    """Of `number`, the first rows: written before there was a chain. They bear no hash; the first sealed row vouches for them."""


EMPTY = Head(0, GENESIS)


def seal(previous: bytes, number: int, values: Sequence[str | int]) -> bytes:
    """The hash of a chain's `number`-th row: SHA-256 of the hash before it and the row as a JSON array.

    The array is `[format, number, *SEALED_COLUMNS]` in ASCII without white space, so that anybody can compute it again.
    """
    return hashlib.sha256(previous + _as_json([_FORMAT, number, *values]).encode("ascii")).digest()


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A ledger row as it stands in the database."""

    entry_id: int
    chain: Partition
    event_id: str
    number: int
    """0 for a row written before there was a chain."""
    hash: bytes
    values: Sequence[str | int]
    """Of SEALED_COLUMNS."""


@dataclass(frozen=True, slots=True)
class Break:
    """The first row, or end, of a chain that is not what was sealed."""

    chain: Partition
    number: int
    entry_id: int | None
    """None where a row is missing at the end."""
    event_id: str
    reason: str


class ChainWalk:
    """Walks rows in the order they were entered; keeps one head a chain in memory, whatever the number of rows."""

    def __init__(self, heads: Mapping[Partition, Head], published: Mapping[Partition, Sequence[Head]]) -> None:
        self._expected = heads
        self._reached = {chain: replace(EMPTY, unsealed=head.unsealed) for chain, head in heads.items()}
        self._published = {
            chain: iter(sorted(known, key=lambda head: head.number)) for chain, known in published.items()
        }
        self._next_published = {chain: next(known, None) for chain, known in self._published.items()}
        self.rows = 0

    def broken_by(self, rows: Iterable[StoredRow]) -> Break | None:
        """Takes the next rows in; the first that does not fit, if any."""
        for row in rows:
            if (reason := self._misfit(row)) is not None:
                reached = self._reached.get(row.chain, EMPTY)
                return Break(row.chain, reached.number + 1, row.entry_id, row.event_id, reason)
            self.rows += 1
        return None

    def broken_at_the_end(self) -> Break | None:
        """After the last row: the first chain that is shorter than, or ends otherwise than, what was kept or published."""
        for chain, expected in self._expected.items():
            reached = self._reached[chain]
            if (reached.number, reached.hash) != (expected.number, expected.hash):
                told = (
                    f"the chain ends at row {reached.number}, its head says {expected.number}: rows at its end are gone"
                )
                return Break(chain, reached.number + 1, None, "", told)
        for chain, head in self._next_published.items():
            if head is not None:
                number = self._reached.get(chain, EMPTY).number
                told = f"a head of {head.number} rows was published, the ledger has {number}: rows at its end are gone"
                return Break(chain, number + 1, None, "", told)
        return None

    @property
    def heads(self) -> Mapping[Partition, Head]:
        """How far every chain was walked."""
        return self._reached

    def _misfit(self, row: StoredRow) -> str | None:
        reached = self._reached.get(row.chain)
        if reached is None:
            return "no chain is known for this row: it was put in beneath the ledger"
        number = reached.number + 1
        sealed = seal(reached.hash, number, row.values)
        if number > reached.unsealed:
            if row.number != number:
                return f"row {number} of the chain is missing or out of place: this is {row.number or 'a row without a seal'}"
            if row.hash != sealed:
                return _what_changed(number, reached)
        elif row.number or row.hash:
            return f"row {number} of the chain was written before there were seals, this one bears a seal"
        self._reached[row.chain] = Head(number, sealed, reached.unsealed)
        return self._contradicts_published(row.chain, number, sealed)

    def _contradicts_published(self, chain: Partition, number: int, sealed: bytes) -> str | None:
        head = self._next_published.get(chain)
        while head is not None and head.number == number:
            if head.hash != sealed:
                return f"the head published for row {number} has another hash: the ledger was rewritten"
            self._next_published[chain] = head = next(self._published[chain], None)
        return None


def _what_changed(number: int, reached: Head) -> str:
    if number == reached.unsealed + 1 and reached.unsealed:
        return "the row, or one of those written before there were seals, is not what was sealed"
    return "the row is not what was sealed"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a walk over the whole ledger found."""

    rows: int
    broken: Break | None
    heads: Mapping[Partition, Head] = field(default_factory=dict)
    """Of a ledger that is whole."""
    sums_agree: bool = False
    """The hourly sums are those of the rows; known of a ledger that is whole only."""


class ChainVerifier(Protocol):
    """Walks the ledger."""

    async def verify(
        self, published: Mapping[Partition, Sequence[Head]], report_rows: Callable[[int], None]
    ) -> Verification:
        """Walks all rows, in memory that does not grow with them; tells how many on the way, from another thread."""

    async def heads(self) -> Mapping[Partition, Head]:
        """The ends of all chains."""
