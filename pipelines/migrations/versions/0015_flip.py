"""FLIP: how different two pictures look."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    with op.batch_alter_table("distances") as distances:
        distances.add_column(sa.Column("flip", sa.Float))
