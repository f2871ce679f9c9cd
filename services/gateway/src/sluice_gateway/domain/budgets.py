"""What the gateway asks of whoever keeps the budgets (the cost service)."""

from dataclasses import dataclass, replace
from typing import Protocol

from sluice_gateway.domain.chat import Usage
from sluice_gateway.domain.pricing import Price
from sluice_gateway.domain.size import Size


@dataclass(frozen=True, slots=True)
class Caller:
    """Over whom budgets can stand, and the model that is asked. `target` is the id the model is priced by."""

    tenant_id: str
    project_id: str
    api_key_id: str
    model: str
    target: str
    subject_id: str = ""

    def anybody(self) -> "Caller":
        """The same caller, whoever the person is."""
        return replace(self, subject_id="")


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands over a caller. `seconds` is how long that may be believed; amounts are nano-units of the price's currency."""

    seconds: float
    unbudgeted: bool = False
    per_subject: bool = False
    """True when it is about the one person; False when it is about every person of this caller."""
    price: Price | None = None
    """What requests are to be counted at; None where nothing is."""
    available: int | None = None
    """What the tightest budget has left; None where none of them refuses anything."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease as it was given; `amount` may be less than what was wished for, down to 0."""

    amount: int
    seconds: float
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """A hold for one request; no id where no budget stands over it. `output_tokens` may be fewer than were wished for."""

    id: str
    output_tokens: int


class BudgetsAway(Exception):
    """Whoever keeps the budgets did not answer, or not in time. Says nothing of what is left."""


class NoBudgets:
    """Fits `Budgets` in a mesh without a cost service: nobody has a budget, so nothing else is ever asked."""

    async def ask(self, caller: Caller, *, seconds: float, is_first: bool = False) -> Standing:
        return Standing(seconds, unbudgeted=True)

    async def lease(self, caller: Caller, lease_id: str, *, amount: int, currency: str, seconds: float) -> Grant:
        raise BudgetsAway

    async def give_back(self, caller: Caller, lease_id: str, *, spent: int, currency: str) -> None:
        raise BudgetsAway

    async def reserve(self, caller: Caller, request_id: str, size: Size, *, seconds: float) -> Reservation:
        raise BudgetsAway

    async def settle(self, caller: Caller, request_id: str, usage: Usage | None, served_model: str) -> None:
        raise BudgetsAway


class Budgets(Protocol):
    """The cost service. Every method raises BudgetsAway when it is away; none waits longer than a bounded time."""

    async def ask(self, caller: Caller, *, seconds: float, is_first: bool = False) -> Standing:
        """What stands over a caller. Raises Rejection when its model cannot be budgeted (it has no price).

        is_first: nothing is known of the caller yet, so that waiting longer is better than to give up.
        """

    async def lease(self, caller: Caller, lease_id: str, *, amount: int, currency: str, seconds: float) -> Grant:
        """Take a slice of the caller's budgets, to be used for at most so long."""

    async def give_back(self, caller: Caller, lease_id: str, *, spent: int, currency: str) -> None:
        """Give back what of a lease is not spent; again when less was spent in the end."""

    async def reserve(self, caller: Caller, request_id: str, size: Size, *, seconds: float) -> Reservation:
        """Hold a request's worst case. Raises Rejection (exhausted) when too little is left."""

    async def settle(self, caller: Caller, request_id: str, usage: Usage | None, served_model: str) -> None:
        """End a hold with what was used; None when nothing was."""
