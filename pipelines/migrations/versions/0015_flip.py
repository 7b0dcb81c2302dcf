"""FLIP: how different two pictures look."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

MEASURES = ("rms_latents", "psnr", "ssim", "flip", "clip_distance", "clip_score")


def upgrade() -> None:
    with op.batch_alter_table("distances") as distances:
        distances.add_column(sa.Column("flip", sa.Float))
    op.create_index("distances_flip", "distances", ["flip", "run_id"])
    op.drop_index("distances_measures", "distances")
    op.create_index("distances_measures", "distances", ["run_id", *MEASURES])
