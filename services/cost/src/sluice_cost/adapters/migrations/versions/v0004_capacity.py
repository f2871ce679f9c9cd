"""Capacity that is paid for though it is idle, and the days on which a model without a price was told of."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("cpus_milli", "accelerators_milli"):
        op.add_column("cost_prices", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "cost_unpriced_days",
        sa.Column("day_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(200), primary_key=True),
    )
