"""Ledger entries: one for every request that completed, whatever its outcome, and never changed."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Protocol
from uuid import UUID, uuid5

from sluice_cost.domain.pricing import Charge, Price, Priced, PriceHistory, charge
from sluice_cost.domain.usage import Usage

# Fixed for ever: it makes the id of a CostRecorded from the id of its RequestCompleted.
_COST_RECORDED_NAMESPACE = UUID("b1f6b7be-30b2-5a3f-9d0e-6f8f4a1f6c55")

# Kinds of ledger row.
INFERENCE = "inference"
"""The tokens of a request."""
SYNTHETIC = "synthetic"
"""A self-test of the mesh."""
CORRECTION = "correction"
"""What an entry of another kind should have cost, less what it was charged until now."""
COMPUTE = "compute"
"""Time of one's own machines for one generation, also of a retried, cancelled or failed one."""
GUARDRAIL = "guardrail"
"""Time that a filter took."""
IDLE = "idle"
"""Capacity that is paid for and nobody used."""
JUDGE = "judge"
"""Tokens of a model that graded an answer: the tenant's, and no part of what its callers spent."""
REQUEST_KINDS = (INFERENCE, SYNTHETIC)
"""One row a request; rows of every other kind stand beside them and count no request."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Where a fact was read."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What the ledger keeps of a completed request. No text, no person's name."""

    event_id: str
    occurred_at: datetime
    request_id: str
    tenant_id: str
    project_id: str
    subject_id: str
    """Pseudonym; empty where none was given."""
    api_key_id: str
    operation: str
    """What was called: `chat`, `embed`."""
    model: str
    """Alias that was asked for; empty when it was not readable."""
    served_model: str
    """The model that answered; empty when none did."""
    route: str
    """Route that was taken, `alias/deployment`; empty when none was."""
    outcome: str
    usage: Usage
    is_synthetic: bool
    traceparent: str
    partition: Partition
    offset: int
    cost_hold_id: str = ""
    """Hold or lease the request was admitted on; empty when no budget stands over the caller."""
    prompt_version: str = ""
    """`name@version`; empty when no prompt of the registry was used."""
    experiment_arm: str = ""
    """`experiment/arm`; empty outside experiments."""


# A row asks for it three times (seal, outbox, event), and it was a quarter of a row's processor time.
@lru_cache(maxsize=4096)
def _cost_event_id(event_id: str) -> str:
    return str(uuid5(_COST_RECORDED_NAMESPACE, event_id))


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A completion and what it was charged."""

    completion: Completion
    charge: Charge
    recorded_at: datetime
    charge_kind: str = INFERENCE
    corrects: str = ""
    """Event id of the entry that a correction is for; empty otherwise."""
    approved_by: str = ""
    """Who signed a correction off; empty otherwise."""

    @property
    def request_count(self) -> int:
        """1 for the row that stands for a request."""
        return int(self.charge_kind in REQUEST_KINDS)

    @property
    def unpriced_count(self) -> int:
        """1 for a request whose cost is unknown, -1 for the correction that makes it known."""
        if self.charge.priced is Priced.NEWLY_PRICED:
            return -1
        return int(self.charge.priced is Priced.UNPRICED)

    @property
    def cost_event_id(self) -> str:
        """Id of the CostRecorded that tells of this entry: the same however often it is sent."""
        return _cost_event_id(self.completion.event_id)


class UnusableCompletion(ValueError):
    """A completion that can never become an entry, such as one without an id."""


def enter(completion: Completion, prices: PriceHistory, *, recorded_at: datetime) -> LedgerEntry:
    """Prices a completion at what was in force when it happened."""
    if not completion.event_id or not completion.request_id or not completion.tenant_id:
        raise UnusableCompletion("event_id, request_id and tenant_id must be set")
    charged = charge(
        completion.usage,
        price_of(completion, prices),
        is_synthetic=completion.is_synthetic,
        currency=prices.default_currency,
    )
    kind = SYNTHETIC if completion.is_synthetic else INFERENCE
    return LedgerEntry(completion, charged, recorded_at, kind)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a part of a request took beside its answer: its model is what took it. Seconds only, but for a judge: tokens."""

    facts: Completion
    charge_kind: str
    """COMPUTE, GUARDRAIL or JUDGE."""


def enter_measured(measured: Measured, prices: PriceHistory, *, recorded_at: datetime) -> LedgerEntry | None:
    """The entry of measured time; None where seconds have no price: what a token costs covers it then.

    A self-test is not billed: its time is idle time. A judge is priced by the token, and without a price its cost is unknown.
    """
    facts = measured.facts
    price = price_of(facts, prices)
    if measured.charge_kind == JUDGE:
        if facts.usage.is_nothing or facts.is_synthetic or not facts.tenant_id or not facts.event_id:
            return None
        charged = charge(facts.usage, price, is_synthetic=False, currency=prices.default_currency)
        return LedgerEntry(facts, charged, recorded_at, JUDGE)
    if price is None or not price.is_for_compute or facts.is_synthetic or not facts.tenant_id or not facts.event_id:
        return None
    charged = charge(facts.usage, price, is_synthetic=False, currency=prices.default_currency)
    return LedgerEntry(facts, charged, recorded_at, measured.charge_kind) if charged.price else None


def price_of(completion: Completion, prices: PriceHistory) -> Price | None:
    """The price in force when it happened."""
    return prices.for_call(
        route=completion.route,
        served_model=completion.served_model,
        model=completion.model,
        at=completion.occurred_at,
    )


class Ledger(Protocol):
    """Where entries are kept."""

    async def append(
        self,
        completions: Sequence[Completion],
        next_offsets: Mapping[Partition, int],
        *,
        recorded_at: datetime,
        encode: Callable[[LedgerEntry], bytes],
        measured: Sequence[Measured] = (),
    ) -> Sequence[LedgerEntry]:
        """Enters what is new among `completions` and `measured`, with spend, outbox and offsets, all or nothing.

        Returns the entries that were new. `encode` gives the event that tells of an entry.
        Raises LedgerUnavailable when the database cannot be reached.
        """

    async def next_offsets(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """The offset to read next of every partition that was read before."""


class EntryReader(Protocol):
    """Where entries are read again."""

    def entries(self, start: datetime, end: datetime, *, tenant_id: str) -> AsyncIterator[Sequence[LedgerEntry]]:
        """Pages of entries that happened in [start, end), in order; of one tenant or of all (empty)."""


class LedgerUnavailable(Exception):
    """The database cannot be reached now; trying again later may help."""
