"""The device of a cluster on which a timing was measured."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("timings", sa.Column("node", sa.String))
