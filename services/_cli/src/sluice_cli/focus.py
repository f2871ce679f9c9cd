"""Writes the rows of the FOCUS export into files."""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from sluice_cli.mesh.problem import MeshProblem

Row = Mapping[str, str]

TIMES = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
NUMBERS = (
    "BilledCost",
    "CommitmentDiscountQuantity",
    "ConsumedQuantity",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "ListCost",
    "ListUnitPrice",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
)
_TEXTS = (
    "AvailabilityZone",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "CapacityReservationId",
    "CapacityReservationStatus",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedUnit",
    "InvoiceId",
    "InvoiceIssuerName",
    "PricingCategory",
    "PricingCurrency",
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
)
# All columns of FOCUS 1.2, in its alphabetical order, and the ledger row behind each.
COLUMNS = (*sorted((*TIMES, *NUMBERS, *_TEXTS)), "x_LedgerEventId")
_ROWS_A_GROUP = 10_000


def write_csv(rows: Iterable[Row], path: Path | None) -> int:
    """Writes a header and the rows; a null is an empty field. Returns the number of rows."""
    count, left = 0, iter(rows)
    # Asked for before the header is written: a request that is refused leaves no file that looks like an empty ledger.
    first = list(islice(left, 1))
    with _opened(path) as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in chain(first, left):
            writer.writerow(row)
            count += 1
    return count


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        yield file


def write_parquet(rows: Iterable[Row], path: Path | None) -> int:
    """Writes typed columns: decimals exactly, times in UTC. Returns the number of rows. Needs the `parquet` extra."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MeshProblem(
            "Parquet needs pyarrow: `.venv/bin/pip install pyarrow`, or install sluice-cli[parquet]."
        ) from None
    if path is None:
        raise MeshProblem("Parquet goes into a file: name it with --output.")
    schema = pyarrow.schema([(name, _type_of(name, pyarrow)) for name in COLUMNS])
    count, left = 0, iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(left, _ROWS_A_GROUP)):
            columns = {name: [_value(name, row.get(name)) for row in group] for name in COLUMNS}
            writer.write_table(pyarrow.table(columns, schema=schema))
            count += len(group)
    return count


def _type_of(name: str, pyarrow: Any) -> Any:
    if name in NUMBERS:
        return pyarrow.decimal128(38, 9)
    return pyarrow.timestamp("us", tz="UTC") if name in TIMES else pyarrow.string()


def _value(name: str, text: str | None) -> Any:
    if not text:
        return None
    if name in NUMBERS:
        return Decimal(text)
    return datetime.fromisoformat(text) if name in TIMES else text
