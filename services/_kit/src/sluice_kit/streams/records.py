"""A service's records as bytes, and what is stored of them."""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol, TypeVar

from sluice_kit.streams.source import Table

RecordT = TypeVar("RecordT")


class Records(Protocol[RecordT]):
    """A service's records as bytes; a module with these three functions fits."""

    def encode(self, record: RecordT) -> bytes:
        """The record's bytes."""

    def decode(self, key: bytes, value: bytes) -> RecordT:
        """The record under a key."""

    def partition_of(self, key: bytes) -> int:
        """The partition a key belongs to."""


def load(table: Table, records: Records[RecordT]) -> dict[int, list[RecordT]]:
    """Every record in the local store, by partition. O(records): once per assignment."""
    found: defaultdict[int, list[RecordT]] = defaultdict(list)
    for key, value in table.items():
        found[records.partition_of(key)].append(records.decode(key, value))
    return dict(found)
