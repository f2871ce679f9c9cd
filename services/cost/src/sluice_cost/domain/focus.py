"""The ledger as FOCUS 1.2 (FinOps Open Cost and Usage Specification): one row a line of an entry, all columns of the specification."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sluice_cost.domain.forecast import month_of
from sluice_cost.domain.ledger import CORRECTION, IDLE, Completion, LedgerEntry
from sluice_cost.domain.money import divide_half_even, from_nano
from sluice_cost.domain.pricing import Price, Priced
from sluice_cost.domain.usage import Usage

PROVIDER = "Sluice"
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Meter:
    """What a line of a charge is measured in."""

    line: str
    """Field of Charge."""
    price: str
    """Field of Price."""
    name: str
    quantity: str
    """Field of Usage; empty for what is counted once a request."""
    consumed_unit: str
    pricing_unit: str
    per: int
    """Consumed units in a pricing unit."""


def _tokens(bucket: str, name: str) -> _Meter:
    return _Meter(bucket, bucket, name, f"{bucket}_tokens", "Tokens", "1000000 Tokens", 1_000_000)


_METERS = (
    _tokens("uncached_input", "Uncached Input Tokens"),
    _tokens("cached_input", "Cached Input Tokens"),
    _tokens("cache_write", "Cache Write Tokens"),
    _tokens("output", "Output Tokens"),
    _tokens("reasoning", "Reasoning Tokens"),
    _Meter("per_request", "per_request", "Requests", "", "Requests", "Requests", 1),
    _Meter("minimum_top_up", "", "Minimum Charge", "", "Requests", "Requests", 1),
    _Meter("cpu", "cpu_second", "CPU Time", "cpu_us", "CPU-Microseconds", "CPU-Seconds", 1_000_000),
    _Meter(
        "accelerator",
        "accelerator_second",
        "Accelerator Time",
        "accelerator_us",
        "Accelerator-Microseconds",
        "Accelerator-Seconds",
        1_000_000,
    ),
)

# Every column of the specification, in its own (alphabetical) order; a null column is written empty. The last is ours.
COLUMNS = (
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "CapacityReservationId",
    "CapacityReservationStatus",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_LedgerEventId",
)


def focus_rows(entry: LedgerEntry) -> Iterator[Mapping[str, str]]:
    """The rows of an entry: one a line that cost something or was used. An entry without a price has one row that says so."""
    common = _of_entry(entry)
    price, usage = entry.charge.price, entry.completion.usage
    if entry.charge.priced is Priced.UNPRICED:
        yield common | _unpriced(entry)
        return
    if price is None:
        return  # nothing was used, or a self-test: no charge
    in_force = price.for_input(usage.input_tokens)
    for meter in _METERS:
        amount = getattr(entry.charge, meter.line)
        quantity = getattr(usage, meter.quantity) if meter.quantity else int(amount != 0)
        if amount or (meter.quantity and quantity):
            yield common | _of_line(entry, meter, in_force, quantity, amount)


def _of_entry(entry: LedgerEntry) -> dict[str, str]:
    done = entry.completion
    hour = done.occurred_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    month = month_of(hour)
    resource = done.route or done.served_model or done.model
    facts = {
        "BillingAccountId": done.tenant_id,
        "BillingAccountName": done.tenant_id,
        "BillingAccountType": "Tenant",
        "BillingCurrency": entry.charge.currency,
        "BillingPeriodStart": _time(month[0]),
        "BillingPeriodEnd": _time(month[1]),
        "ChargePeriodStart": _time(hour),
        "ChargePeriodEnd": _time(hour + _HOUR),
        "ChargeFrequency": "Usage-Based",
        "InvoiceIssuerName": PROVIDER,
        "PricingCurrency": entry.charge.currency,
        "ProviderName": PROVIDER,
        "PublisherName": PROVIDER,
        "ResourceId": resource,
        "ResourceName": resource,
        "ResourceType": "Model Deployment" if done.route else "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Sluice",
        "ServiceSubcategory": "Generative AI",
        "Tags": _tags(entry, done),
        "x_LedgerEventId": done.event_id,
    }
    if done.project_id:
        facts |= {"SubAccountId": done.project_id, "SubAccountName": done.project_id, "SubAccountType": "Project"}
    return facts | _category(entry, month[1])


def _category(entry: LedgerEntry, period_end: datetime) -> dict[str, str]:
    if not _is_adjustment(entry):
        return {"ChargeCategory": "Usage", "PricingCategory": "Standard"}
    # The class is for periods that are invoiced already; within the period a correction is an ordinary adjustment.
    is_late = entry.recorded_at >= period_end
    return {"ChargeCategory": "Adjustment"} | ({"ChargeClass": "Correction"} if is_late else {})


def _is_adjustment(entry: LedgerEntry) -> bool:
    """A correction, or idle time that is taken back because requests of its hour came late."""
    return entry.charge_kind == CORRECTION or (entry.charge_kind == IDLE and entry.charge.total < 0)


def _tags(entry: LedgerEntry, done: Completion) -> str:
    tags = {
        "tenant": done.tenant_id,
        "project": done.project_id,
        "api_key": done.api_key_id,
        "model": done.model,
        "served_model": done.served_model,
        "prompt_version": done.prompt_version,
        "experiment_arm": done.experiment_arm,
        "charge_kind": entry.charge_kind,
        "outcome": done.outcome,
        "corrects": entry.corrects,
        "approved_by": entry.approved_by,
    }
    return json.dumps({name: value for name, value in tags.items() if value}, sort_keys=True)


def _of_line(entry: LedgerEntry, meter: _Meter, price: Price, quantity: int, amount: int) -> dict[str, str]:
    cost = _number(from_nano(amount))
    model = price.model
    facts = {
        "BilledCost": cost,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "ListCost": cost,
        "PricingCurrencyEffectiveCost": cost,
        "SkuId": f"{model}/{meter.line}",
        "SkuMeter": meter.name,
        "SkuPriceId": f"{model}@{price.version}/{meter.line}",
        "ChargeDescription": f"{meter.name} of {model}, {entry.charge_kind}",
    }
    if _is_adjustment(entry):
        return facts  # it changes an amount, no quantity
    # A top-up to the minimum costs what is missing to it.
    unit_nano = getattr(price, meter.price) if meter.price else amount
    unit_price = _number(from_nano(unit_nano))
    if entry.charge_kind == IDLE and unit_nano:
        quantity = divide_half_even(
            amount * meter.per, unit_nano
        )  # idle time is shared as money: so long it is at this price
    return facts | {
        "ConsumedQuantity": str(quantity),
        "ConsumedUnit": meter.consumed_unit,
        "PricingQuantity": _number(Decimal(quantity) / meter.per),
        "PricingUnit": meter.pricing_unit,
        "ListUnitPrice": unit_price,
        "ContractedUnitPrice": unit_price,
        "PricingCurrencyListUnitPrice": unit_price,
        "PricingCurrencyContractedUnitPrice": unit_price,
    }


def _unpriced(entry: LedgerEntry) -> dict[str, str]:
    usage: Usage = entry.completion.usage
    name = entry.completion.served_model or entry.completion.model
    zero = dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), "0")
    unit = dict.fromkeys(("ListUnitPrice", "ContractedUnitPrice"), "0")
    return {
        **zero,
        **unit,
        "PricingCurrencyEffectiveCost": "0",
        "ConsumedQuantity": str(usage.total_tokens),
        "ConsumedUnit": "Tokens",
        "PricingQuantity": _number(Decimal(usage.total_tokens) / 1_000_000),
        "PricingUnit": "1000000 Tokens",
        "SkuId": f"{name}/unpriced",
        "SkuMeter": "Unpriced Tokens",
        "SkuPriceId": f"{name}@0/unpriced",
        "ChargeDescription": f"UNPRICED: no price of {name} is known; 0 stands for unknown",
    }


def _number(value: Decimal) -> str:
    return f"{value.normalize() + Decimal(0):f}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
