"""Idle time of one's own machines: what capacity costs beyond what was computed on it, spread over those who used it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from sluice_cost.domain.ledger import IDLE, Completion, LedgerEntry, Partition
from sluice_cost.domain.money import divide_half_even
from sluice_cost.domain.pricing import MICROSECONDS_PER_PRICE, Charge, Price, Priced
from sluice_cost.domain.usage import Usage

HOUR = timedelta(hours=1)
UNALLOCATED = "unallocated"
"""Stands for the tenant of an hour in which nobody computed."""
IDLE_CHAIN = Partition("sluice.cost.idle", 0)
# Fixed for ever: an hour's idle time has the same ids whichever replica closes it.
_IDLE_NAMESPACE = UUID("7f1f0a55-7d2b-5f0e-8b4c-1d6a0c9e2b34")
_US_AN_HOUR_OF_A_THOUSANDTH = 3_600_000


@dataclass(frozen=True, slots=True)
class Seconds:
    """Nano-units of processor and accelerator time."""

    cpu: int = 0
    accelerator: int = 0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.cpu + other.cpu, self.accelerator + other.accelerator)

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.cpu - other.cpu, self.accelerator - other.accelerator)


@dataclass(frozen=True, slots=True)
class ModelHour:
    """What the ledger has of one model and hour in one currency, by tenant."""

    model: str
    start: datetime
    computed: Mapping[str, Seconds]
    """Rows of requests and filters, corrections included."""
    idle: Mapping[str, Seconds]
    """Rows of idle time written until now."""
    currency: str = ""
    """Of the amounts; empty for that of the price in force."""
    written: int = 0
    """How many rows of idle time there are: rows that restate them have ids of their own."""


def capacity_of(price: Price) -> Seconds:
    """What an hour of all that is paid for costs."""
    return Seconds(_cost(price.cpus_milli, price.cpu_second), _cost(price.accelerators_milli, price.accelerator_second))


def _cost(milli: int, nano_per_second: int) -> int:
    return divide_half_even(milli * _US_AN_HOUR_OF_A_THOUSANDTH * nano_per_second, MICROSECONDS_PER_PRICE)


def idle_entries(hour: ModelHour, price: Price, *, recorded_at: datetime) -> list[LedgerEntry]:
    """The rows that make computed and idle time together cost exactly the capacity.

    Late rows of requests make idle time less: what was written is then taken back in part, by rows below zero. Where the price
    is in another currency by now, all of it is.
    """
    computed = sum(hour.computed.values(), Seconds())
    is_price_s = hour.currency in ("", price.currency)
    idle = capacity_of(price) - computed if is_price_s else Seconds()
    cpu = _spread(max(idle.cpu, 0), {tenant: use.cpu for tenant, use in hour.computed.items()})
    accelerator = _spread(max(idle.accelerator, 0), {tenant: use.accelerator for tenant, use in hour.computed.items()})
    entries = []
    for tenant in sorted({*cpu, *accelerator, *hour.idle}):
        right = Seconds(cpu.get(tenant, 0), accelerator.get(tenant, 0))
        difference = right - hour.idle.get(tenant, Seconds())
        if difference != Seconds():
            entries.append(_entry(hour, tenant, difference, computed, price, recorded_at))
    return entries


def _spread(amount: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Parts in proportion to the weights, whose sum is exactly the amount: largest remainders get what is left over."""
    total = sum(weights.values())
    if not amount:
        return {}
    if total <= 0:
        return {UNALLOCATED: amount}
    parts = {tenant: amount * weight // total for tenant, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda tenant: (-(amount * weights[tenant] % total), tenant))
    for tenant in by_remainder[: amount - sum(parts.values())]:
        parts[tenant] += 1
    return parts


def _entry(
    hour: ModelHour, tenant: str, amount: Seconds, computed: Seconds, price: Price, recorded_at: datetime
) -> LedgerEntry:
    at = f"{hour.start:%Y-%m-%dT%H}"
    currency = hour.currency or price.currency
    # Named by what was known and written of the hour too: late rows make a new statement of it, also when corrections bring
    # back what was known before.
    known = f"{computed.cpu}|{computed.accelerator}|{currency}|{hour.written}"
    name = f"{hour.model}|{at}|{tenant}|{price.version}|{known}"
    completion = Completion(
        event_id=str(uuid5(_IDLE_NAMESPACE, name)),
        occurred_at=hour.start,
        request_id=f"idle-{at}-{hour.model}"[:128],
        tenant_id=tenant,
        project_id="",
        subject_id="",
        api_key_id="",
        operation="idle",
        model=hour.model,
        served_model=hour.model,
        route="",
        outcome="completed",
        usage=Usage(),
        is_synthetic=False,
        traceparent="",
        partition=IDLE_CHAIN,
        offset=0,
    )
    charge = Charge(Priced.PRICED, currency, cpu=amount.cpu, accelerator=amount.accelerator, price=price)
    return LedgerEntry(completion, charge, recorded_at, IDLE)


def closed_hours(now: datetime, *, lateness: timedelta, looking_back: timedelta) -> Sequence[datetime]:
    """Hours that are over for `lateness`, oldest first."""
    end = (now - lateness).replace(minute=0, second=0, microsecond=0)
    return [end - (i + 1) * HOUR for i in reversed(range(int(looking_back / HOUR)))]
