"""Texts are sealed; whose a request is and who was erased is remembered, so that they can be erased."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("feedback_entries", sa.Column("sealed_text", sa.LargeBinary))
    op.add_column("feedback_entries", _subject("request_subject_id"))
    op.create_index("feedback_by_subject", "feedback_entries", ["tenant_id", "subject_id"])
    op.create_index("feedback_by_request_subject", "feedback_entries", ["tenant_id", "request_subject_id"])
    op.add_column("feedback_known_requests", _subject("subject_id"))
    op.add_column("feedback_known_requests", sa.Column("captures_text", sa.Integer, nullable=False, server_default="1"))
    op.create_table(
        "feedback_erasures",
        sa.Column("tenant_id", sa.String(128), primary_key=True),
        sa.Column("subject_id", sa.String(128), primary_key=True),
        sa.Column("erased_at_us", sa.BigInteger, nullable=False),
    )


def _subject(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(128), nullable=False, server_default="")
