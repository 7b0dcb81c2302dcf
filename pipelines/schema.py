"""The run log's schema: the migrations in migrations/, applied when a database is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.errors import StorageError, first_line


def migrate(path: Path, engine: Any, read_only: bool = False, to: str = "head") -> None:
    """Bring a fresh or an old database to the newest schema, or to another one; StorageError for
    one from a newer version, and for an old one that can only be read."""
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # One transaction by hand: sqlite3 begins none before DDL, so that two processes would
        # migrate at once, and a killed one would leave half a schema.
        # References are off meanwhile: a table that is made anew is dropped in between, and the
        # runs of a chain name each other. Within a transaction the pragma has no effect.
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        # Whether there is anything to do is read first: it waits for nobody who writes.
        for begin in ("BEGIN", "BEGIN IMMEDIATE")[: 1 if read_only else 2]:
            connection.exec_driver_sql(begin)
            try:
                current = MigrationContext.configure(connection).get_current_revision()
            except CommandError as error:  # several versions at once
                raise StorageError(f"{path} is damaged: {first_line(error)}") from error
            if current == scripts.get_current_head():
                connection.exec_driver_sql("ROLLBACK")
                connection.exec_driver_sql("PRAGMA foreign_keys=ON")
                return
            if begin == "BEGIN" and not read_only:
                connection.exec_driver_sql("ROLLBACK")
        if current is not None and current not in {s.revision for s in scripts.walk_revisions()}:
            raise StorageError(
                f"{path} was written by a newer version of Contact Sheet (schema {current}); "
                "update, or set CONTACT_SHEET_HOME to another folder"
            )
        if read_only:
            raise StorageError(
                f"{path} was written by an older version of Contact Sheet (schema {current}) and "
                "can only be read here; allow writing to its folder, so that it can be brought up "
                "to date"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, to)
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        connection.exec_driver_sql("PRAGMA wal_checkpoint")  # so that the WAL begins anew
