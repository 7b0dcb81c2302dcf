"""Rules that leave cells out, cells taken from the log, and measured timings."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("comparisons") as comparisons:
        comparisons.add_column(sa.Column("skip", sa.JSON, nullable=False, server_default="[]"))
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("reused_from", sa.Integer))
        runs.create_foreign_key("fk_runs_reused_from", "runs", ["reused_from"], ["id"])
    op.create_table(
        "timings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("datetime_utc", sa.String, nullable=False),
        *(sa.Column(f"{name}_ms", sa.Float, nullable=False)
          for name in ("text_encoding", "denoising", "decoding", "total")),
    )
    op.create_index("ix_timings_run_id", "timings", ["run_id"])
