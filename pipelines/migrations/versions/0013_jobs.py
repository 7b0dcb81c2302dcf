"""The queue of jobs; who makes a comparison."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("datetime_utc", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("browser", sa.String, nullable=False),
        sa.Column("asked_with", sa.String, nullable=False),
        sa.Column("comparison_id", sa.String),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("turn", sa.Integer),
        sa.Column("owner", sa.String),
        sa.Column("wish", sa.String, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("waits_for", sa.String, nullable=False),
        sa.Column("seconds_left", sa.Float),
        sa.Column("run_ids", sa.JSON, nullable=False),
        sa.Column("after_run", sa.Integer, nullable=False),
        sa.Column("error", sa.String),
        sqlite_autoincrement=True,  # the id of a job that was forgotten is never another's
    )
    op.add_column("comparisons", sa.Column("owner", sa.String))
    # Nobody knows who made these; whoever still does will say that they are done.
    op.execute("UPDATE comparisons SET status = 'interrupted' WHERE status = 'running'")
