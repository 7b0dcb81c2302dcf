"""Comparisons, and the runs that are their cells."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("datetime_utc", sa.String, nullable=False),
        sa.Column("base", sa.JSON, nullable=False),
        sa.Column("axes", sa.JSON, nullable=False),
        sa.Column("status", sa.String, nullable=False),
    )
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("comparison_id", sa.String))
        runs.add_column(sa.Column("axes", sa.JSON, nullable=False, server_default="{}"))
        runs.create_foreign_key("fk_runs_comparison_id", "comparisons", ["comparison_id"], ["id"])
        runs.create_index("ix_runs_comparison_id", ["comparison_id"])
