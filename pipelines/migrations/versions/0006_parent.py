"""The run whose picture a run of a chain started from."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("parent_id", sa.Integer, nullable=True))
        runs.create_foreign_key("fk_runs_parent_id", "runs", ["parent_id"], ["id"])
