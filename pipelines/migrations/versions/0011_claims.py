"""Which pictures are in work, and by whom."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("identity", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("datetime_utc", sa.String, nullable=False),
    )
