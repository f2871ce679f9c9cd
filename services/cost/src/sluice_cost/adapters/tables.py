"""The tables, for queries. The migrations make them; a test keeps both in step."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

from sluice_cost.domain.usage import COMPUTE_BUCKETS, TOKEN_BUCKETS

metadata = MetaData()

# SQLite numbers rows by itself only when the type is INTEGER, which is 64 bits wide there.
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")

prices = Table(
    "cost_prices",
    metadata,
    Column("price_id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("model", String(200), nullable=False),
    Column("version", Integer, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("effective_from_us", BigInteger, nullable=False),
    Column("uncached_input", BigInteger, nullable=False),
    Column("cached_input", BigInteger, nullable=False),
    Column("cache_write", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("reasoning", BigInteger, nullable=False),
    Column("per_request", BigInteger, nullable=False),
    Column("minimum", BigInteger, nullable=False),
    Column("cpu_second", BigInteger, nullable=False),
    Column("accelerator_second", BigInteger, nullable=False),
    Column("tiers", Text, nullable=False),
    Column("cpus_milli", BigInteger, nullable=False),
    Column("accelerators_milli", BigInteger, nullable=False),
    Column("book", String(401), nullable=False),
    Column("approved_by", String(200), nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Index("cost_prices_by_model", "model", "version", unique=True),
)

price_books = Table(
    "cost_price_books",
    metadata,
    Column("book_id", String(200), primary_key=True),
    Column("version", String(200), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("approved_by", String(200), nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
)

LINES = (
    "uncached_input_nano",
    "cached_input_nano",
    "cache_write_nano",
    "output_nano",
    "reasoning_nano",
    "per_request_nano",
    "minimum_top_up_nano",
    "cpu_nano",
    "accelerator_nano",
)
_CORRECTIONS_ONLY = text("corrects <> ''")

ledger = Table(
    "cost_ledger",
    metadata,
    Column("entry_id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("event_id", String(64), nullable=False, unique=True),
    Column("cost_event_id", String(64), nullable=False),
    Column("charge_kind", String(16), nullable=False),
    Column("occurred_at_us", BigInteger, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("tenant_id", String(128), nullable=False),
    Column("project_id", String(128), nullable=False),
    Column("subject_id", String(128), nullable=False),
    Column("api_key_id", String(128), nullable=False),
    Column("model", String(200), nullable=False),
    Column("served_model", String(200), nullable=False),
    Column("route", String(200), nullable=False),
    Column("operation", String(32), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("priced", String(16), nullable=False),
    Column("price_id", _ROW_ID, ForeignKey("cost_prices.price_id")),
    Column("currency", String(3), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    *(Column(line, BigInteger, nullable=False) for line in LINES),
    *(Column(bucket, BigInteger, nullable=False) for bucket in TOKEN_BUCKETS),
    *(Column(bucket, BigInteger, nullable=False) for bucket in COMPUTE_BUCKETS),
    Column("usage_estimated", Integer, nullable=False),
    Column("source_topic", String(249), nullable=False),
    Column("source_partition", Integer, nullable=False),
    Column("source_offset", BigInteger, nullable=False),
    Column("prompt_version", String(200), nullable=False),
    Column("experiment_arm", String(200), nullable=False),
    Column("corrects", String(64), nullable=False),
    Column("approved_by", String(200), nullable=False),
    Column("request_count", Integer, nullable=False),
    # 0 and NULL: written before there was a chain. The chain's first sealed row vouches for those.
    Column("chain_number", BigInteger, nullable=False),
    Column("entry_hash", LargeBinary(32)),
    Index("cost_ledger_by_tenant", "tenant_id", "occurred_at_us"),
    Index("cost_ledger_by_time", "occurred_at_us"),
    Index("cost_ledger_by_request", "request_id"),
    Index("cost_ledger_by_corrected", "corrects", sqlite_where=_CORRECTIONS_ONLY, postgresql_where=_CORRECTIONS_ONLY),
)

chain_heads = Table(
    "cost_chain_heads",
    metadata,
    Column("topic", String(249), primary_key=True),
    Column("partition_number", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("unsealed", BigInteger, nullable=False),
)

SPEND_DIMENSIONS = (
    "tenant_id",
    "project_id",
    "model",
    "served_model",
    "api_key_id",
    "route",
    "operation",
    "prompt_version",
    "experiment_arm",
    "charge_kind",
    "outcome",
    "currency",
)
SPEND_SUMS = (
    "row_count",
    "request_count",
    "unpriced_request_count",
    "estimated_request_count",
    "amount_nano",
    *TOKEN_BUCKETS,
    *COMPUTE_BUCKETS,
)

spend_hours = Table(
    "cost_spend_hours",
    metadata,
    Column("hour_us", BigInteger, primary_key=True, autoincrement=False),
    # Digest of the dimensions: an index over twelve texts would be most of the table (tests/bench/ledger_speed.py).
    Column("series", LargeBinary(16), primary_key=True),
    *(Column(name, ledger.c[name].type, nullable=False) for name in SPEND_DIMENSIONS),
    *(Column(name, BigInteger, nullable=False) for name in SPEND_SUMS),
)

unpriced_days = Table(
    "cost_unpriced_days",
    metadata,
    Column("day_us", BigInteger, primary_key=True, autoincrement=False),
    Column("model", String(200), primary_key=True),
)

outbox = Table(
    "cost_outbox",
    metadata,
    Column("outbox_id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("cost_event_id", String(64), nullable=False, unique=True),
    Column("event_type", String(64), nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

consumer_offsets = Table(
    "cost_consumer_offsets",
    metadata,
    Column("topic", String(249), primary_key=True),
    Column("partition_number", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
)

audit = Table(
    "cost_audit",
    metadata,
    Column("audit_id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("details", Text, nullable=False),
)
