"""Alembic's entry: the run log hands its connection over."""

from alembic import context

from pipelines.log_tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
