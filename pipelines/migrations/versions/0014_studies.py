"""Studies: methods over many prompts; their pictures are cells of comparisons."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("datetime_utc", sa.String, nullable=False),
        sa.Column("base", sa.JSON, nullable=False),
        sa.Column("axes", sa.JSON, nullable=False),
        sa.Column("skip", sa.JSON, nullable=False),
        sa.Column("prompts", sa.JSON, nullable=False),
        sa.Column("seeds", sa.JSON, nullable=False),
        sa.Column("reference", sa.String),
        sa.Column("measures", sa.JSON, nullable=False),
        sa.Column("stop_when_decided", sa.Boolean, nullable=False),
        sa.Column("status", sa.String, nullable=False),
    )
