"""How many pixels an in-painting was to leave alone, and how many it changed."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("unmasked_pixels", sa.Integer))
        runs.add_column(sa.Column("changed_unmasked_pixels", sa.Integer))
