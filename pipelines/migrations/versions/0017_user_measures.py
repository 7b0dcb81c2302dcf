"""What users' own functions measured of runs."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "user_measures",
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("reference_id", sa.Integer, primary_key=True),
        sa.Column("value", sa.Float),
        sa.Column("problem", sa.String, nullable=False),
    )
