"""Whether a run shared its UNet calls with other cells."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("shared", sa.Boolean, nullable=False, server_default="0"))
