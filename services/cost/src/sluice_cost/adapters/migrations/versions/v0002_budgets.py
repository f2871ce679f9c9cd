"""Budgets, their counters, holds and leases; versions of a budget can never be changed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _create_budgets()
    _create_counters()
    _create_holds()
    _refuse_changes("cost_budgets")


def _create_budgets() -> None:
    op.create_table(
        "cost_budgets",
        sa.Column("put_id", _ROW_ID, primary_key=True, autoincrement=True),
        _text("budget_id", 128),
        sa.Column("version", sa.Integer, nullable=False),
        _text("scope", 16),
        sa.Column("tenant_ids", sa.Text, nullable=False),
        _text("scope_id", 128),
        *_numbers("limit_nano"),
        _text("currency", 3),
        _text("window_kind", 16),
        sa.Column("rolling_minutes", sa.Integer, nullable=False),
        sa.Column("is_hard", sa.Integer, nullable=False),
        sa.Column("notify_percent", sa.Text, nullable=False),
        _text("approved_by", 200),
        sa.Column("is_disabled", sa.Integer, nullable=False),
        _text("origin", 8),
        *_numbers("recorded_at_us"),
    )
    op.create_index("cost_budgets_by_version", "cost_budgets", ["budget_id", "version"], unique=True)


def _create_counters() -> None:
    op.create_table(
        "cost_budget_accounts",
        sa.Column("budget_id", sa.String(128), primary_key=True),
        sa.Column("subject_id", sa.String(128), primary_key=True),
        *_numbers("window_start_us", "spent_nano", "held_nano", "leased_nano"),
        sa.Column("notified_percent", sa.Integer, nullable=False),
        *_numbers("notified_at_us"),
    )
    op.create_table(
        "cost_budget_spent",
        sa.Column("budget_id", sa.String(128), primary_key=True),
        sa.Column("subject_id", sa.String(128), primary_key=True),
        sa.Column("bucket_us", sa.BigInteger, primary_key=True, autoincrement=False),
        *_numbers("spent_nano"),
    )


def _create_holds() -> None:
    op.create_table(
        "cost_holds",
        sa.Column("hold_id", sa.String(64), primary_key=True),
        _text("kind", 8),
        *(_text(name, 128) for name in ("tenant_id", "project_id", "api_key_id", "subject_id", "request_id", "holder")),
        _text("model", 200),
        sa.Column("served_models", sa.Text, nullable=False),
        _text("currency", 3),
        sa.Column("accounts", sa.Text, nullable=False),
        _text("fingerprint", 32),
        *_numbers("granted_nano", "created_at_us", "expires_at_us", "prompt_tokens", "output_tokens"),
        _text("state", 8),
        *_numbers("held_nano", "settled_nano"),
        _text("ended_by", 32),
        *_numbers("entered_nano"),
    )
    op.create_index("cost_holds_by_expiry", "cost_holds", ["state", "expires_at_us"])


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
