"""The runs table."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    texts = ["datetime_utc", "status", "model_id", "task", "prompt", "negative_prompt",
             "scheduler"]
    optional_texts = ["error", "noise_sha256", "image_sha256", "device", "dtype"]
    optional_integers = ["height", "width", "nfe", "denoiser_rows", "peak_memory_bytes"]
    times = ["load_ms", "warm_up_ms", "text_encoding_ms", "denoising_ms", "decoding_ms",
             "total_ms"]
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in texts),
        *(sa.Column(name, sa.String) for name in optional_texts),
        sa.Column("num_inference_steps", sa.Integer, nullable=False),
        sa.Column("guidance_scale", sa.Float, nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Integer) for name in optional_integers),
        *(sa.Column(name, sa.Float) for name in times),
        *(sa.Column(name, sa.JSON, nullable=False)
          for name in ("request", "step_ms", "environment")),
    )
    op.create_index("ix_runs_datetime_utc", "runs", ["datetime_utc"])
