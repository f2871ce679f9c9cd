"""Seals the ledger with hash chains; adds corrections, computing time, tiers and more dimensions of spend."""

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op

from sluice_cost.adapters.sql_chain import begin_chains

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_DIMENSIONS = {
    "tenant_id": 128,
    "project_id": 128,
    "model": 200,
    "served_model": 200,
    "api_key_id": 128,
    "route": 200,
    "operation": 32,
    "prompt_version": 200,
    "experiment_arm": 200,
    "charge_kind": 16,
    "outcome": 32,
    "currency": 3,
}
_TOKENS = (
    "uncached_input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
_SUMS = (
    "row_count",
    "request_count",
    "unpriced_request_count",
    "estimated_request_count",
    "amount_nano",
    *_TOKENS,
    "cpu_us",
    "accelerator_us",
)
_HOUR_US = 3_600_000_000


def upgrade() -> None:
    _widen_prices()
    _widen_ledger()
    _create_heads()
    begin_chains(op.get_bind())
    _remake_spend_hours()
    op.add_column("cost_outbox", _text("event_type", 64, default="CostRecorded"))


def _widen_prices() -> None:
    for column in (_number("cpu_second"), _number("accelerator_second")):
        op.add_column("cost_prices", column)
    op.add_column("cost_prices", sa.Column("tiers", sa.Text, nullable=False, server_default="[]"))


def _widen_ledger() -> None:
    # Rows that are there take the defaults, which both databases keep without rewriting the table.
    columns: tuple[sa.Column[Any], ...] = (
        *(_number(name) for name in ("cpu_us", "accelerator_us", "cpu_nano", "accelerator_nano")),
        *(_text(name, 200) for name in ("prompt_version", "experiment_arm", "approved_by")),
        _text("corrects", 64),
        sa.Column("request_count", sa.Integer, nullable=False, server_default="1"),
        _number("chain_number"),
        sa.Column("entry_hash", sa.LargeBinary(32)),
    )
    for column in columns:
        op.add_column("cost_ledger", column)
    corrections = sa.text("corrects <> ''")
    op.create_index(
        "cost_ledger_by_corrected",
        "cost_ledger",
        ["corrects"],
        sqlite_where=corrections,
        postgresql_where=corrections,
    )


def _create_heads() -> None:
    op.create_table(
        "cost_chain_heads",
        sa.Column("topic", sa.String(249), primary_key=True),
        sa.Column("partition_number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("unsealed", sa.BigInteger, nullable=False),
    )


def _remake_spend_hours() -> None:
    """The sums are derived: they are added up anew from the ledger, by the new dimensions."""
    op.drop_table("cost_spend_hours")
    table = op.create_table(
        "cost_spend_hours",
        sa.Column("hour_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("series", sa.LargeBinary(16), primary_key=True),
        *(sa.Column(name, sa.String(length), nullable=False) for name, length in _DIMENSIONS.items()),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _SUMS),
    )
    moment: sa.ColumnElement[int] = sa.column("occurred_at_us")
    dimensions: list[sa.ColumnElement[str]] = [sa.column(name) for name in _DIMENSIONS]
    hour = (moment - moment % sa.literal_column(str(_HOUR_US))).label("hour_us")
    unpriced = sa.case((sa.column("priced") == "unpriced", 1), else_=0)
    sums = {
        "row_count": sa.func.count(),
        "request_count": sa.func.count(),
        "unpriced_request_count": sa.func.sum(unpriced),
        "estimated_request_count": sa.func.sum(sa.column("usage_estimated")),
        **{name: sa.cast(sa.func.sum(sa.column(name)), sa.BigInteger) for name in ("amount_nano", *_TOKENS)},
        "cpu_us": sa.literal_column("0"),
        "accelerator_us": sa.literal_column("0"),
    }
    query = (
        sa.select(hour, *dimensions, *(value.label(name) for name, value in sums.items()))
        .select_from(sa.table("cost_ledger"))
        .group_by(hour, *dimensions)
    )
    rows = op.get_bind().execute(query)
    hours = rows.mappings()
    while chunk := hours.fetchmany(500):
        op.bulk_insert(table, [{**row, "series": _series(row)} for row in chunk])


def _series(row: Any) -> bytes:
    text = "".join(f"{len(row[name])}:{row[name]}" for name in _DIMENSIONS)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _text(name: str, length: int, *, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default=default)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
