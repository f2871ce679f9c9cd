"""Feedback, the requests that are known, the outbox and the offsets."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _create_feedback()
    _create_known_requests()
    _create_bookkeeping()


def _create_feedback() -> None:
    op.create_table(
        "feedback_entries",
        sa.Column("entry_id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("tenant_id", sa.String(128), nullable=False),
        sa.Column("feedback_id", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("project_id", sa.String(128), nullable=False),
        sa.Column("subject_id", sa.String(128), nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("is_synthetic", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("thumb", sa.String(8)),
        sa.Column("rating", sa.Integer),
        sa.Column("text", sa.Text),
        sa.Column("other_request_id", sa.String(128)),
        sa.Column("preference", sa.String(8)),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("standing", sa.String(16), nullable=False),
        sa.Column("received_at_us", sa.BigInteger, nullable=False),
        sa.Column("ended_at_us", sa.BigInteger),
    )
    op.create_index("feedback_by_id", "feedback_entries", ["tenant_id", "feedback_id"], unique=True)
    op.create_index("feedback_by_request", "feedback_entries", ["request_id"])
    op.create_index("feedback_by_other_request", "feedback_entries", ["other_request_id"])


def _create_known_requests() -> None:
    op.create_table(
        "feedback_known_requests",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("tenant_id", sa.String(128), nullable=False),
        sa.Column("completed_at_us", sa.BigInteger, nullable=False),
    )
    op.create_index("feedback_known_requests_by_age", "feedback_known_requests", ["completed_at_us"])


def _create_bookkeeping() -> None:
    op.create_table(
        "feedback_outbox",
        sa.Column("outbox_id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String(64), nullable=False, unique=True),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "feedback_consumer_offsets",
        sa.Column("topic", sa.String(249), primary_key=True),
        sa.Column("partition_number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
    )
