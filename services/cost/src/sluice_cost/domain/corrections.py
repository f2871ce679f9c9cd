"""Pricing the past anew: what an entry should have cost by the prices as they are known now, less what it was charged."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID, uuid5

from sluice_cost.domain.ledger import CORRECTION, Completion, LedgerEntry, Partition, price_of
from sluice_cost.domain.pricing import Charge, Priced, PriceHistory, charge
from sluice_cost.domain.usage import Usage

# Fixed for ever: it makes the id of a correction from what it corrects and the price it corrects to.
_CORRECTION_NAMESPACE = UUID("5be1b9a2-0c5e-5a55-9d3e-4a8c26b5a0d7")
# The corrections' own chain: they come from no topic.
CORRECTIONS = Partition("sluice.cost.corrections", 0)
LINES = tuple(line.name for line in fields(Charge) if line.name not in ("priced", "currency", "price"))


@dataclass(frozen=True, slots=True)
class Charged:
    """An entry of the past and what it was charged until now, corrections included."""

    completion: Completion
    charge_kind: str
    is_unpriced: bool
    """No price was known, and none has been since."""
    lines: Mapping[str, Sequence[int]]
    """Nano-units by currency, in the order of LINES."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which entries are priced anew: those that happened in [start, end), of one model or of all (empty)."""

    start: datetime
    end: datetime
    model: str = ""


@dataclass(slots=True)
class Difference:
    """Sums of corrections, in nano-units of one currency."""

    corrections: int = 0
    before: int = 0
    after: int = 0


@dataclass(slots=True)
class Recomputation:
    """What was, or is to be, corrected."""

    rows: int = 0
    corrections: int = 0
    groups: dict[tuple[str, str, str], Difference] = field(default_factory=dict)
    """By tenant, model that answered (or else the alias), currency."""
    digest: str = ""
    """The same for the same corrections in the same order, however they were paged; empty without any."""

    def take(self, page: Sequence[tuple[LedgerEntry, int]], *, rows: int) -> None:
        """Counts the corrections of the next `rows` entries, each with what was charged before."""
        self.rows += rows
        for entry, before in page:
            self._count(entry, before)

    def _count(self, entry: LedgerEntry, before: int) -> None:
        charge, completion = entry.charge, entry.completion
        key = (completion.tenant_id, completion.served_model or completion.model, charge.currency)
        group = self.groups.setdefault(key, Difference())
        group.corrections += 1
        group.before += before
        group.after += before + charge.total
        self.corrections += 1
        amounts = ",".join(str(getattr(charge, line)) for line in LINES)
        told = f"{self.digest} {completion.event_id} {charge.currency} {amounts}"
        self.digest = hashlib.sha256(told.encode()).hexdigest()


def corrections_of(
    charged: Charged, prices: PriceHistory, *, recorded_at: datetime, approved_by: str
) -> Iterator[tuple[LedgerEntry, int]]:
    """The corrections an entry needs, one a currency, each with what was charged in it before. None when all is right.

    Their ids name the entry and the price, so the same correction made twice is one.
    """
    price = price_of(charged.completion, prices)
    if price is None:
        return
    right = charge(charged.completion.usage, price, is_synthetic=False, currency=price.currency)
    if right.price is None:  # nothing was used
        return
    zero = [0] * len(LINES)
    for currency in sorted({*charged.lines, right.currency}):
        before = charged.lines.get(currency, zero)
        after = [getattr(right, line) for line in LINES] if currency == right.currency else zero
        difference = [new - old for new, old in zip(after, before, strict=True)]
        tells_the_price = charged.is_unpriced and currency == right.currency
        if any(difference) or tells_the_price:
            lines = dict(zip(LINES, difference, strict=True))
            priced = Priced.NEWLY_PRICED if tells_the_price else Priced.PRICED
            corrected = Charge(priced, currency, **lines, price=price)
            yield _correction(charged, corrected, recorded_at, approved_by), sum(before)


def _correction(charged: Charged, charge: Charge, recorded_at: datetime, approved_by: str) -> LedgerEntry:
    assert charge.price is not None
    original = charged.completion
    name = f"{original.event_id}|{charge.price.model}@{charge.price.version}|{charge.currency}"
    # Its tokens are in the ledger already: a correction adds money only.
    completion = replace(
        original,
        event_id=str(uuid5(_CORRECTION_NAMESPACE, name)),
        usage=Usage(),
        partition=CORRECTIONS,
        offset=0,
    )
    return LedgerEntry(completion, charge, recorded_at, CORRECTION, original.event_id, approved_by)


def largest_first(
    groups: Mapping[tuple[str, str, str], Difference],
) -> Iterable[tuple[tuple[str, str, str], Difference]]:
    """By falling size of the difference, then by name."""
    return sorted(groups.items(), key=lambda item: (-abs(item[1].after - item[1].before), item[0]))


class OtherPlan(Exception):
    """The corrections are not those that were signed off."""


class Recomputer(Protocol):
    """Prices entries anew."""

    async def plan(self, scope: Scope) -> Recomputation:
        """What would be corrected; enters nothing."""

    async def correct(
        self, scope: Scope, *, approved_by: str, plan_digest: str, recorded_at: datetime
    ) -> Recomputation:
        """Enters the corrections. Raises OtherPlan when `plan_digest` is given and is not theirs."""
