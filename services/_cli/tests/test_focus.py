"""FOCUS rows in files."""

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from sluice_cli import focus
from sluice_cli.mesh.problem import MeshProblem

ROW = {
    "BilledCost": "-0.000000001",
    "BillingCurrency": "USD",
    "ChargePeriodStart": "2026-11-24T12:00:00Z",
    "Tags": '{"tenant": "a, \\"b\\""}',
    "x_LedgerEventId": "e1",
}


def test_a_csv_has_every_column_and_empty_fields_for_nulls(tmp_path: Path) -> None:
    path = tmp_path / "focus.csv"
    assert focus.write_csv([ROW, ROW], path) == 2
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows[0]) == 58
    assert {name: value for name, value in rows[0].items() if value} == ROW


def test_a_request_that_is_refused_leaves_no_file_that_looks_like_an_empty_ledger(tmp_path: Path) -> None:
    def refused() -> Iterator[focus.Row]:
        raise MeshProblem("until must be after from")
        yield ROW

    path = tmp_path / "focus.csv"
    with pytest.raises(MeshProblem):
        focus.write_csv(refused(), path)
    assert not path.exists()


def test_parquet_keeps_decimals_exact_times_in_utc_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "focus.parquet"
    assert focus.write_parquet([ROW] * 3, path) == 3
    table = parquet.read_table(path)
    assert (table.num_rows, table.num_columns) == (3, 58)
    assert table["BilledCost"][0].as_py() == Decimal("-0.000000001")
    assert table["ChargePeriodStart"].type == pyarrow.timestamp("us", tz="UTC")
    assert table["ChargePeriodStart"][0].as_py().isoformat() == "2026-11-24T12:00:00+00:00"
    assert table["InvoiceId"].null_count == 3


def test_parquet_needs_a_file() -> None:
    with pytest.raises(MeshProblem, match="--output"):
        focus.write_parquet([], None)
