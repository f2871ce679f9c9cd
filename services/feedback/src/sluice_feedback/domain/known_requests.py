"""What is remembered of requests, and which texts must go because of what is learnt of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What is known of a request; the defaults are those of one that was never seen."""

    is_known: bool = False
    subject_id: str = ""
    """Pseudonym of the person it was for; empty for none."""
    captures_text: bool = True
    """False when its tenant captures no text."""


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request whose completion was seen, and whose it is."""

    request_id: str
    tenant_id: str
    completed_at: datetime
    subject_id: str = ""
    captures_text: bool = True


@dataclass(frozen=True, slots=True)
class Erasure:
    """The keys of a person were destroyed: what came of or about them before is not to be kept."""

    tenant_id: str
    subject_id: str
    erased_at: datetime


@dataclass(frozen=True, slots=True)
class DoomedText:
    """A text that is to be erased; its keys are named as the key store names them."""

    entry_id: int
    tenant_id: str
    sealed_text: bytes | None


@dataclass(frozen=True, slots=True)
class Partition:
    """Where an event was read."""

    topic: str
    number: int


class RequestRegister(Protocol):
    """The bounded memory of which request is whose."""

    async def learn(
        self,
        requests: Sequence[KnownRequest],
        next_offsets: Mapping[Partition, int],
        *,
        at: datetime,
        erasures: Sequence[Erasure] = (),
    ) -> int:
        """Remembers requests, rejects feedback that another tenant gave on them, erases texts, keeps the offsets: all or nothing.

        Returns how many pieces of feedback were rejected.
        """

    async def doomed(self, requests: Sequence[KnownRequest], erasures: Sequence[Erasure]) -> Sequence[DoomedText]:
        """The texts that `learn` will erase: of erased persons, about their requests, and of tenants that capture none."""

    async def forget(self, *, before: datetime, keep_at_most: int) -> int:
        """Drops what completed before a moment, and the oldest beyond a number. Returns how many."""

    async def next_offsets(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """The offset to read next of every partition that was read before."""
