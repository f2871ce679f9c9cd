"""Holds and leases: money that may still be spent, set aside in every budget over a caller.

Decision 0010 has the rules. Moments are whole microseconds since 1970, UTC; amounts are nano-units of one currency.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID, uuid5

from sluice_cost.domain.budget import AccountKey, Budget, Caller, Scope
from sluice_cost.domain.pricing import Price
from sluice_cost.domain.usage import Usage

# Fixed for ever: it makes a hold's id from the request it is for, so that the same request finds the same hold.
_HOLDS_NAMESPACE = UUID("0f1c5f3e-6a55-5d0a-9c0e-2f4b8a7d1e90")


class HoldKind(StrEnum):
    """What money is set aside for."""

    REQUEST = "request"
    LEASE = "lease"


class HoldState(StrEnum):
    """How far a hold has come."""

    OPEN = "open"
    """The request runs, or requests may begin on the lease."""
    ENDED = "ended"
    """Settled or given back; what it said was spent is held until the ledger has entered it."""
    CLOSED = "closed"
    """Holds nothing: the ledger has entered it, or it expired."""


@dataclass(frozen=True, slots=True)
class ReserveOrder:
    """Asks for a hold."""

    caller: Caller
    request_id: str
    model: str
    served_models: tuple[str, ...]
    """Models that may answer; empty means that the alias itself is priced."""
    prompt_tokens: int
    max_output_tokens: int
    min_output_tokens: int
    """Fewest tokens that are of use; equal to max_output_tokens for all or nothing."""
    lasts: int
    """Microseconds until it expires."""

    @property
    def hold_id(self) -> str:
        return hold_id_of(self.caller.tenant_id, self.request_id)


@dataclass(frozen=True, slots=True)
class SettleOrder:
    """Ends a hold with what was used; None when nothing was."""

    tenant_id: str
    request_id: str
    usage: Usage | None
    served_model: str

    @property
    def hold_id(self) -> str:
        return hold_id_of(self.tenant_id, self.request_id)


@dataclass(frozen=True, slots=True)
class ExtendOrder:
    """Asks for a larger hold."""

    tenant_id: str
    request_id: str
    additional_output_tokens: int
    held_output_tokens: int
    """What is held as far as the caller knows, so that a repeated order changes nothing; 0 means: not told."""

    @property
    def hold_id(self) -> str:
        return hold_id_of(self.tenant_id, self.request_id)


@dataclass(frozen=True, slots=True)
class LeaseOrder:
    """Asks for a slice of the budgets over a caller."""

    caller: Caller
    lease_id: str
    holder: str
    model: str
    served_models: tuple[str, ...]
    amount: int | None
    """What is wished for; None only asks for the price and for what is left, and writes nothing."""
    currency: str
    lasts: int

    @property
    def hold_id(self) -> str:
        return self.lease_id


@dataclass(frozen=True, slots=True)
class ReturnOrder:
    """Gives a lease back."""

    tenant_id: str
    lease_id: str
    spent: int
    currency: str

    @property
    def hold_id(self) -> str:
        return self.lease_id


@dataclass(frozen=True, slots=True)
class ExpireOrder:
    """Closes a hold whose time and grace have passed."""

    hold_id: str


@dataclass(frozen=True, slots=True)
class Posting:
    """A ledger row, as far as budgets know it."""

    caller: Caller
    occurred_at: int
    currency: str
    amount: int
    hold_id: str = ""
    """The hold or lease the request was admitted on; empty for none, and for rows beside that of the request."""


Order = ReserveOrder | SettleOrder | ExtendOrder | LeaseOrder | ReturnOrder | ExpireOrder


@dataclass(slots=True)
class Hold:
    """A hold or a lease."""

    hold_id: str
    kind: HoldKind
    caller: Caller
    request_id: str
    """Of a hold; empty for a lease."""
    holder: str
    """Of a lease; empty for a hold."""
    model: str
    served_models: tuple[str, ...]
    currency: str
    accounts: tuple[AccountKey, ...]
    """The accounts it is held in."""
    fingerprint: str
    """Of what was asked for: the same id with other content is refused."""
    granted: int
    """What was set aside when it was made or last extended."""
    created_at: int
    expires_at: int
    prompt_tokens: int = 0
    output_tokens: int = 0
    state: HoldState = HoldState.OPEN
    held: int = 0
    """What it holds now."""
    settled: int = 0
    """What its holder said was spent; 0 until it ended."""
    ended_by: str = ""
    """Fingerprint of what ended it."""
    entered: int = 0
    """What the ledger has entered on it."""

    @property
    def released(self) -> int:
        """What went back to the budgets when it ended."""
        return max(self.granted - self.settled, 0)

    def due(self) -> int:
        """What it must hold now: everything that may still become a ledger row."""
        if self.state is HoldState.CLOSED:
            return 0
        bound = self.granted if self.state is HoldState.OPEN else self.settled
        return bound if self.kind is HoldKind.REQUEST else max(bound - self.entered, 0)


@dataclass(frozen=True, slots=True)
class Reserved:
    """The answer to a ReserveOrder, an ExtendOrder, a LeaseOrder: `hold` is None when no budget stands over the caller."""

    hold: Hold | None
    price: Price | None = None
    """What requests on a lease are to be counted at; None where no budget stands over the caller."""
    held_in: tuple[Budget, ...] = ()
    """For leases: the budgets it is taken from."""
    left: int | None = None
    """For leases: what the tightest hard budget has left after it; None when there is no hard one."""
    is_by_person: bool = False
    """For leases: a budget of the tenant is by person, so the answer is for the caller's subject alone."""
    retry_at: int | None = None
    """When asking again may help, where a lease is of nothing."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer to a SettleOrder and a ReturnOrder."""

    currency: str
    amount: int
    released: int


Answer = Reserved | Ended | None


class HoldRefused(Exception):
    """An order that is not carried out; nothing has changed."""


@dataclass(eq=False)
class BudgetExhausted(HoldRefused):
    """A budget has not enough left. No amounts: a tenant may not see those of its organisation."""

    budget_id: str
    scope: Scope
    retry_at: int
    """When asking again may help."""

    def __str__(self) -> str:
        return f"The {self.scope.value} budget {self.budget_id!r} has not enough left"


class ModelUnpriced(HoldRefused):
    """Nobody knows what the model costs, so a hard budget cannot be kept."""


class CurrencyNotBudgeted(HoldRefused):
    """Hard budgets stand over the caller, but none in the currency of the model's price."""


class CurrenciesMixed(HoldRefused):
    """The models that may answer are priced in several currencies."""


class HoldUnknown(HoldRefused):
    """There is no such hold or lease of this tenant."""


class HoldConflict(HoldRefused):
    """The id was used with other content, or what it named has ended."""


class HoldDesk(Protocol):
    """Where orders are carried out, each of them whole or not at all."""

    async def submit(self, order: Order) -> Answer:
        """Carries out an order, durably. Raises a HoldRefused, or LedgerUnavailable."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A budget came to a share of its limit, or refused a request; told once a window."""

    key: AccountKey
    percent: int
    is_refusal: bool
    at: int
    window_start: int
    spent: int
    held: int


def hold_id_of(tenant_id: str, request_id: str) -> str:
    """The id of the hold of a request."""
    return str(uuid5(_HOLDS_NAMESPACE, f"{tenant_id}\n{request_id}"))


def fingerprint(*parts: Any) -> str:
    """Tells contents apart."""
    return hashlib.sha256(json.dumps(parts, default=_plain).encode()).hexdigest()[:32]


def _plain(part: Any) -> Sequence[Any]:
    return [getattr(part, name) for name in part.__slots__]
