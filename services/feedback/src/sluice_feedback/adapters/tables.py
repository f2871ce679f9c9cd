"""The tables, for queries. The migrations make them; a test keeps both in step."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

# SQLite numbers rows by itself only when the type is INTEGER, which is 64 bits wide there.
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")

feedback = Table(
    "feedback_entries",
    metadata,
    Column("entry_id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("tenant_id", String(128), nullable=False),
    Column("feedback_id", String(64), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("project_id", String(128), nullable=False),
    Column("subject_id", String(128), nullable=False),
    Column("traceparent", String(64), nullable=False),
    Column("is_synthetic", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("thumb", String(8)),
    Column("rating", Integer),
    Column("text", Text),
    Column("other_request_id", String(128)),
    Column("preference", String(8)),
    Column("source", String(16), nullable=False),
    Column("tags", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("standing", String(16), nullable=False),
    Column("received_at_us", BigInteger, nullable=False),
    Column("ended_at_us", BigInteger),
    Column("sealed_text", LargeBinary),
    Column("request_subject_id", String(128), nullable=False, server_default=""),
    Index("feedback_by_id", "tenant_id", "feedback_id", unique=True),
    Index("feedback_by_request", "request_id"),
    Index("feedback_by_other_request", "other_request_id"),
    Index("feedback_by_subject", "tenant_id", "subject_id"),
    Index("feedback_by_request_subject", "tenant_id", "request_subject_id"),
)

known_requests = Table(
    "feedback_known_requests",
    metadata,
    Column("request_id", String(128), primary_key=True),
    Column("tenant_id", String(128), nullable=False),
    Column("completed_at_us", BigInteger, nullable=False),
    Column("subject_id", String(128), nullable=False, server_default=""),
    Column("captures_text", Integer, nullable=False, server_default="1"),
    Index("feedback_known_requests_by_age", "completed_at_us"),
)

erasures = Table(
    "feedback_erasures",
    metadata,
    Column("tenant_id", String(128), primary_key=True),
    Column("subject_id", String(128), primary_key=True),
    Column("erased_at_us", BigInteger, nullable=False),
)

outbox = Table(
    "feedback_outbox",
    metadata,
    Column("outbox_id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("event_id", String(64), nullable=False, unique=True),
    Column("payload", LargeBinary, nullable=False),
)

consumer_offsets = Table(
    "feedback_consumer_offsets",
    metadata,
    Column("topic", String(249), primary_key=True),
    Column("partition_number", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
)
