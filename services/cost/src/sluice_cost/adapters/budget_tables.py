"""The tables of budgets and holds, for queries. Migration 0002 makes them."""

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from sluice_cost.adapters.tables import metadata

# SQLite numbers rows by itself only when the type is INTEGER, which is 64 bits wide there.
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")

budgets = Table(
    "cost_budgets",
    metadata,
    Column("put_id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("budget_id", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("scope", String(16), nullable=False),
    Column("tenant_ids", Text, nullable=False),
    Column("scope_id", String(128), nullable=False),
    Column("limit_nano", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("window_kind", String(16), nullable=False),
    Column("rolling_minutes", Integer, nullable=False),
    Column("is_hard", Integer, nullable=False),
    Column("notify_percent", Text, nullable=False),
    Column("approved_by", String(200), nullable=False),
    Column("is_disabled", Integer, nullable=False),
    Column("origin", String(8), nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Index("cost_budgets_by_version", "budget_id", "version", unique=True),
)

accounts = Table(
    "cost_budget_accounts",
    metadata,
    Column("budget_id", String(128), primary_key=True),
    Column("subject_id", String(128), primary_key=True),
    Column("window_start_us", BigInteger, nullable=False),
    Column("spent_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("leased_nano", BigInteger, nullable=False),
    Column("notified_percent", Integer, nullable=False),
    Column("notified_at_us", BigInteger, nullable=False),
)

spent = Table(
    "cost_budget_spent",
    metadata,
    Column("budget_id", String(128), primary_key=True),
    Column("subject_id", String(128), primary_key=True),
    Column("bucket_us", BigInteger, primary_key=True, autoincrement=False),
    Column("spent_nano", BigInteger, nullable=False),
)

holds = Table(
    "cost_holds",
    metadata,
    Column("hold_id", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("tenant_id", String(128), nullable=False),
    Column("project_id", String(128), nullable=False),
    Column("api_key_id", String(128), nullable=False),
    Column("subject_id", String(128), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("holder", String(128), nullable=False),
    Column("model", String(200), nullable=False),
    Column("served_models", Text, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("accounts", Text, nullable=False),
    Column("fingerprint", String(32), nullable=False),
    Column("granted_nano", BigInteger, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("state", String(8), nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("settled_nano", BigInteger, nullable=False),
    Column("ended_by", String(32), nullable=False),
    Column("entered_nano", BigInteger, nullable=False),
    Index("cost_holds_by_expiry", "state", "expires_at_us"),
)
