"""The predicted x0 of a run's steps, as one picture."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("steps_sha256", sa.String))
        runs.add_column(sa.Column("steps_shown", sa.JSON, nullable=False, server_default="[]"))
