"""Tags, stars, remarks and the bin; indexes for a log of a million runs; prompts for searching.

`prompts` holds the three-letter pieces of all prompts. Two signs behind each text make every one of
its letters the first of a piece, so that a search for one letter finds it, too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

LISTED = "reused_from IS NULL AND deleted_utc IS NULL"
SORTED = ("datetime_utc", "prompt", "model_id", "task", "scheduler", "status",
          "num_inference_steps", "guidance_scale", "seed", "total_ms", "nfe", "peak_memory_bytes")
FACTS = ("id", "datetime_utc", "status", "comparison_id", "model_id", "task", "scheduler", "device",
         "dtype", "num_inference_steps", "guidance_scale", "seed", "height", "width", "nfe",
         "denoiser_rows", "load_ms", "warm_up_ms", "text_encoding_ms", "denoising_ms",
         "decoding_ms", "total_ms", "peak_memory_bytes", "shared", "parent_id", "reused_from",
         "unmasked_pixels", "changed_unmasked_pixels", "starred", "deleted_utc")
MEASURES = ("rms_latents", "psnr", "ssim", "clip_distance", "clip_score")
PAD = "|| char(31, 31)"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("starred", sa.Boolean, nullable=False, server_default="0"))
        runs.add_column(sa.Column("remark", sa.String, nullable=False, server_default=""))
        runs.add_column(sa.Column("deleted_utc", sa.String))
    op.create_table(
        "tags",
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("tag", sa.String, primary_key=True),
    )
    op.create_index("ix_tags_tag", "tags", ["tag"])
    for name in SORTED:
        op.create_index(f"listed_{name}", "runs", [name], sqlite_where=sa.text(LISTED))
    op.create_index("runs_facts", "runs", list(FACTS))
    op.create_index("runs_starred", "runs", ["starred"], sqlite_where=sa.text("starred = 1"))
    op.create_index("runs_deleted", "runs", ["deleted_utc"],
                    sqlite_where=sa.text("deleted_utc IS NOT NULL"))
    op.create_index("comparisons_datetime_utc", "comparisons", ["datetime_utc"])
    for name in MEASURES:
        op.create_index(f"distances_{name}", "distances", [name, "run_id"])
    op.create_index("distances_measures", "distances", ["run_id", *MEASURES])

    op.execute("CREATE VIRTUAL TABLE prompts USING fts5"
               "(prompt, negative_prompt, content='', tokenize='trigram')")
    op.execute("CREATE VIRTUAL TABLE prompts_terms USING fts5vocab(prompts, row)")
    op.execute("INSERT INTO prompts(rowid, prompt, negative_prompt) "
               f"SELECT id, prompt {PAD}, negative_prompt {PAD} FROM runs")
    insert = ("INSERT INTO prompts(rowid, prompt, negative_prompt) "
              f"VALUES (new.id, new.prompt {PAD}, new.negative_prompt {PAD});")
    remove = ("INSERT INTO prompts(prompts, rowid, prompt, negative_prompt) "
              f"VALUES ('delete', old.id, old.prompt {PAD}, old.negative_prompt {PAD});")
    op.execute(f"CREATE TRIGGER prompts_insert AFTER INSERT ON runs BEGIN {insert} END")
    op.execute(f"CREATE TRIGGER prompts_delete AFTER DELETE ON runs BEGIN {remove} END")
    op.execute("CREATE TRIGGER prompts_update AFTER UPDATE OF id, prompt, negative_prompt ON runs "
               f"BEGIN {remove} {insert} END")
