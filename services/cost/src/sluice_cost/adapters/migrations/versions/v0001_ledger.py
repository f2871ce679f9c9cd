"""The ledger, its prices, sums, outbox and offsets; rows of the ledger and the prices can never be changed."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_APPEND_ONLY = ("cost_ledger", "cost_prices", "cost_audit")

_TOKENS = (
    "uncached_input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
_LINES = (
    "uncached_input_nano",
    "cached_input_nano",
    "cache_write_nano",
    "output_nano",
    "reasoning_nano",
    "per_request_nano",
    "minimum_top_up_nano",
)
_SUMS = ("row_count", "request_count", "unpriced_request_count", "estimated_request_count", "amount_nano", *_TOKENS)


def upgrade() -> None:
    _create_prices()
    _create_ledger()
    _create_spend_hours()
    _create_bookkeeping()
    for table in _APPEND_ONLY:
        _refuse_changes(table)


def _create_prices() -> None:
    op.create_table(
        "cost_prices",
        sa.Column("price_id", _ROW_ID, primary_key=True, autoincrement=True),
        _text("model", 200),
        sa.Column("version", sa.Integer, nullable=False),
        _text("currency", 3),
        *_numbers("effective_from_us", "uncached_input", "cached_input", "cache_write", "output", "reasoning"),
        *_numbers("per_request", "minimum"),
        _text("book", 401),
        _text("approved_by", 200),
        *_numbers("recorded_at_us"),
    )
    op.create_index("cost_prices_by_model", "cost_prices", ["model", "version"], unique=True)
    op.create_table(
        "cost_price_books",
        sa.Column("book_id", sa.String(200), primary_key=True),
        sa.Column("version", sa.String(200), primary_key=True),
        _text("digest", 64),
        _text("approved_by", 200),
        *_numbers("recorded_at_us"),
    )


def _create_ledger() -> None:
    op.create_table(
        "cost_ledger",
        sa.Column("entry_id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String(64), nullable=False, unique=True),
        _text("cost_event_id", 64),
        _text("charge_kind", 16),
        *_numbers("occurred_at_us", "recorded_at_us"),
        *(_text(name, 128) for name in ("request_id", "tenant_id", "project_id", "subject_id", "api_key_id")),
        *(_text(name, 200) for name in ("model", "served_model", "route")),
        _text("operation", 32),
        _text("outcome", 32),
        _text("priced", 16),
        sa.Column("price_id", _ROW_ID, sa.ForeignKey("cost_prices.price_id")),
        _text("currency", 3),
        *_numbers("amount_nano", *_LINES, *_TOKENS),
        sa.Column("usage_estimated", sa.Integer, nullable=False),
        _text("source_topic", 249),
        sa.Column("source_partition", sa.Integer, nullable=False),
        *_numbers("source_offset"),
    )
    op.create_index("cost_ledger_by_tenant", "cost_ledger", ["tenant_id", "occurred_at_us"])
    op.create_index("cost_ledger_by_time", "cost_ledger", ["occurred_at_us"])
    op.create_index("cost_ledger_by_request", "cost_ledger", ["request_id"])


def _create_spend_hours() -> None:
    op.create_table(
        "cost_spend_hours",
        sa.Column("hour_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tenant_id", sa.String(128), primary_key=True),
        sa.Column("project_id", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("api_key_id", sa.String(128), primary_key=True),
        sa.Column("route", sa.String(200), primary_key=True),
        sa.Column("charge_kind", sa.String(16), primary_key=True),
        sa.Column("outcome", sa.String(32), primary_key=True),
        sa.Column("currency", sa.String(3), primary_key=True),
        *_numbers(*_SUMS),
    )


def _create_bookkeeping() -> None:
    op.create_table(
        "cost_outbox",
        sa.Column("outbox_id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("cost_event_id", sa.String(64), nullable=False, unique=True),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "cost_consumer_offsets",
        sa.Column("topic", sa.String(249), primary_key=True),
        sa.Column("partition_number", sa.Integer, primary_key=True, autoincrement=False),
        *_numbers("next_offset"),
    )
    op.create_table(
        "cost_audit",
        sa.Column("audit_id", _ROW_ID, primary_key=True, autoincrement=True),
        *_numbers("recorded_at_us"),
        _text("actor", 200),
        _text("action", 64),
        _text("subject", 256),
        sa.Column("details", sa.Text, nullable=False),
    )


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def _numbers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def _refuse_changes(table: str) -> None:
    """A trigger, because a grant does not bind the owner of the table, and SQLite has none."""
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()"
    )
