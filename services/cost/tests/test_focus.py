"""The ledger as FOCUS 1.2 rows."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.adapters.sql_recompute import SqlRecomputer
from sluice_cost.adapters.sql_rows import SqlEntries
from sluice_cost.domain.corrections import Scope
from sluice_cost.domain.focus import COLUMNS, focus_rows
from sluice_cost.domain.ledger import Completion, LedgerEntry, enter
from sluice_cost.domain.money import to_nano
from sluice_cost.domain.pricing import Price, PriceHistory
from sluice_cost.domain.usage import Usage

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
# FOCUS 1.2: columns that may never be null, and those of a usage row beside.
NEVER_NULL = (
    "BilledCost",
    "BillingAccountId",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCurrency",
    "PricingCurrencyEffectiveCost",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "BillingAccountType",
    "ChargeDescription",
)
OF_USAGE = (
    "ChargeFrequency",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedUnitPrice",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "ResourceId",
)


@pytest.fixture
def make_entry(
    make_price: Callable[..., Price], make_completion: Callable[..., Completion]
) -> Callable[..., LedgerEntry]:
    def make(*, prices: tuple[Price, ...] | None = None, **changes: Any) -> LedgerEntry:
        history = PriceHistory(prices or (make_price(version=3),), default_currency="USD")
        return enter(make_completion(1, **changes), history, recorded_at=NOON)

    return make


def test_every_line_is_a_row_whose_cost_is_its_price_times_its_quantity(make_entry: Callable[..., LedgerEntry]) -> None:
    entry = make_entry(usage=Usage(10, 20, 30, 40, 50), prompt_version="greet@2")
    rows = list(focus_rows(entry))
    assert [row["SkuMeter"].split()[0] for row in rows] == ["Uncached", "Cached", "Cache", "Output", "Reasoning"]
    for row in rows:
        assert Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["BilledCost"])
        assert all(row.get(name) for name in (*NEVER_NULL, *OF_USAGE))
        assert set(row) <= set(COLUMNS)
    assert sum(to_nano(Decimal(row["BilledCost"])) for row in rows) == entry.charge.total
    first = rows[0]
    assert (first["ConsumedQuantity"], first["ConsumedUnit"], first["SkuPriceId"]) == (
        "10",
        "Tokens",
        "small@3/uncached_input",
    )
    assert (first["ChargePeriodStart"], first["BillingPeriodEnd"]) == ("2026-11-24T12:00:00Z", "2026-12-01T00:00:00Z")
    assert (first["SubAccountId"], first["SubAccountType"]) == ("shop", "Project")
    assert (
        json.loads(first["Tags"]).items() >= {"tenant": "acme", "project": "shop", "prompt_version": "greet@2"}.items()
    )


def test_what_is_charged_once_a_request_is_a_row_of_its_own(
    make_entry: Callable[..., LedgerEntry], make_price: Callable[..., Price]
) -> None:
    rows = list(focus_rows(make_entry(prices=(make_price(per_request=500, minimum=50_000),))))
    assert [(row["SkuMeter"], row["BilledCost"]) for row in rows[2:]] == [
        ("Requests", "0.0000005"),
        ("Minimum Charge", "0.0000095"),
    ]


@pytest.mark.parametrize("changes", [{"usage": Usage()}, {"is_synthetic": True}])
def test_what_is_no_charge_is_no_row(changes: dict[str, Any], make_entry: Callable[..., LedgerEntry]) -> None:
    assert list(focus_rows(make_entry(**changes))) == []


def test_an_unpriced_request_is_a_row_that_says_so(make_entry: Callable[..., LedgerEntry]) -> None:
    (row,) = focus_rows(make_entry(served_model="new"))
    assert (row["BilledCost"], row["ConsumedQuantity"]) == ("0", "14")
    assert row["ChargeDescription"].startswith("UNPRICED")
    assert all(row.get(name) for name in (*NEVER_NULL, *OF_USAGE))


def test_a_project_that_is_none_is_null_with_all_that_describes_it(make_entry: Callable[..., LedgerEntry]) -> None:
    row = next(iter(focus_rows(make_entry(project_id=""))))
    assert {"SubAccountId", "SubAccountName", "SubAccountType"}.isdisjoint(row)


@pytest.mark.parametrize(("days", "charge_class"), [(1, None), (10, "Correction")])
async def test_a_correction_is_an_adjustment_and_of_the_class_once_its_period_is_over(
    days: int,
    charge_class: str | None,
    database: Database,
    make_price: Callable[..., Price],
    make_completion: Callable[..., Completion],
) -> None:
    prices = SqlPrices(database, default_currency="USD")
    await prices.put(make_price(), recorded_at=NOON)
    ledger = SqlLedger(database, default_currency="USD")
    await ledger.append([make_completion(1)], {}, recorded_at=NOON, encode=encode)
    await prices.put(make_price(output=4_000_000_000), recorded_at=NOON)
    scope = Scope(NOON - timedelta(days=1), NOON + timedelta(days=1))
    await SqlRecomputer(database, default_currency="USD", encode=encode).correct(
        scope, approved_by="Ada", plan_digest="", recorded_at=NOON + timedelta(days=days)
    )
    pages = [page async for page in SqlEntries(database).entries(scope.start, scope.end, tenant_id="")]
    rows = [row for page in pages for entry in page for row in focus_rows(entry)]
    assert [row["ChargeCategory"] for row in rows] == ["Usage", "Usage", "Adjustment"]
    assert (rows[2]["BilledCost"], rows[2].get("ChargeClass")) == ("-0.000004", charge_class)
    assert {"ConsumedQuantity", "ConsumedUnit", "PricingQuantity", "PricingUnit", "ListUnitPrice"}.isdisjoint(rows[2])
    assert all(rows[2].get(name) for name in NEVER_NULL)
    assert json.loads(rows[2]["Tags"])["approved_by"] == "Ada"


async def test_over_grpc_a_tenant_gets_its_own_rows_and_an_operator_all(stub: Any) -> None:
    everything = [row.columns async for row in stub.ExportFocus(pb.ExportFocusRequest())]
    assert {row["BillingAccountId"] for row in everything} == {"acme", "umbrella"}
    own = [
        row.columns
        async for row in stub.ExportFocus(pb.ExportFocusRequest(), metadata=(("x-sluice-tenant-id", "umbrella"),))
    ]
    assert [row["BillingAccountId"] for row in own] == ["umbrella"] * 2
    until = Timestamp()
    until.FromDatetime(NOON)
    assert [row async for row in stub.ExportFocus(pb.ExportFocusRequest(until=until))] == []
