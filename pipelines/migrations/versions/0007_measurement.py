"""What identifies a picture, its latents, and distances to a reference."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("identity", sa.String))
        runs.add_column(sa.Column("latents_sha256", sa.String))
        runs.create_index("ix_runs_identity", ["identity"])
    with op.batch_alter_table("comparisons") as comparisons:
        comparisons.add_column(sa.Column("reference", sa.String))
    op.create_table(
        "distances",
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("reference_id", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        *(sa.Column(name, sa.Float) for name in ("rms_latents", "psnr", "ssim")),
    )
