"""Blind votes, and the ballots that voters were shown, with their answers."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "votes",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("datetime_utc", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("source_id", sa.String, nullable=False),
        sa.Column("question", sa.String, nullable=False),
        sa.Column("shows_prompt", sa.Boolean, nullable=False),
        sa.Column("pictures", sa.Integer, nullable=False),
        sa.Column("ballots", sa.Integer, nullable=False),
        sa.Column("methods", sa.JSON, nullable=False),
        sa.Column("scenes", sa.JSON, nullable=False),
        sa.Column("secret", sa.String, nullable=False),
        sa.Column("revealed_utc", sa.String),
    )
    op.create_table(
        "ballots",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("vote_id", sa.String, sa.ForeignKey("votes.id"), nullable=False),
        sa.Column("voter", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("repeat_of", sa.String),
        sa.Column("scene", sa.Integer, nullable=False),
        sa.Column("methods", sa.JSON, nullable=False),
        sa.Column("datetime_utc", sa.String, nullable=False),
        sa.Column("answer", sa.String),
        sa.Column("answered_utc", sa.String),
    )
    op.create_index("ballots_position", "ballots", ["vote_id", "voter", "position"], unique=True)
