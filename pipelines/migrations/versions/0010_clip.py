"""What CLIP says of a picture: its distance to the reference, how it fits its prompt, and which."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    with op.batch_alter_table("distances") as distances:
        distances.add_column(sa.Column("clip_distance", sa.Float))
        distances.add_column(sa.Column("clip_score", sa.Float))
        distances.add_column(sa.Column("clip_model", sa.String))
