"""The SQLite file of the run log: opened for writing, or for reading where no more is allowed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine, event
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pipelines.errors import StorageError, first_line
from pipelines.schema import migrate

WAIT_SECONDS = 30  # for another program that writes
DEEPEST = 100  # levels of nesting in a JSON column
# Texts in which json.loads may see what no JSON can hold again: half a character, no finite number.
_SUSPECT = re.compile(r"\\u[dD][89a-fA-F]|[eE]\+?\d{3}|\d{309}|NaN|Infinity")


class _Compiler(SQLiteCompiler):
    """Writes hints such as INDEXED BY, which SQLAlchemy leaves out for SQLite."""

    def get_from_hint_text(self, _table: Any, text: str) -> str:
        return text


class Database:
    """An open SQLite file at the newest schema; every error of it is a StorageError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_only = path.exists() and not (
            os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
        self._engine = create_engine(self._url(), connect_args={"timeout": WAIT_SECONDS},
                                     json_deserializer=read_json)
        self._engine.dialect.statement_compiler = _Compiler
        event.listen(self._engine, "connect", self._set_up)
        self._watch: Any = None
        self._watch_lock = threading.Lock()
        with self._errors():
            migrate(self.path, self._engine, self.read_only)
        self._opened = self._file()

    def _url(self) -> URL:
        if not self.read_only:
            return URL.create("sqlite", database=str(self.path))
        # A log that somebody writes is read with its newest rows; SQLite makes no files beside one
        # that nobody writes only if it is told that nothing will change.
        written = self.path.with_name(f"{self.path.name}-wal").exists()
        query = {"uri": "true", **({"mode": "ro"} if written else {"immutable": "1"})}
        return URL.create("sqlite", database=self.path.absolute().as_uri(), query=query)

    def _set_up(self, connection: Any, _record: Any) -> None:
        connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
        if not self.read_only:  # readers never wait for the writer; a crash loses no finished row
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    def version(self) -> int:
        """A number that is another one after any write to the file, by any program."""
        with self._errors(), self._watch_lock:
            if self._watch is None:  # SQLite tells a connection of the writes of all others
                self._watch = self._engine.raw_connection()
            version = self._watch.cursor().execute("PRAGMA data_version").fetchone()[0]
        self._check_present()
        return version

    def copy_to(self, path: Path) -> None:
        """Write what the database holds now to another file, whole, whoever writes meanwhile."""
        with self._errors(), contextlib.closing(sqlite3.connect(path)) as target:
            source = self._engine.raw_connection()
            try:
                source.driver_connection.backup(target)
            finally:
                source.close()
            target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it

    def check_writable(self) -> None:
        """Raise StorageError where nothing can be written."""
        if self.read_only:
            raise StorageError(
                f"the data folder {self.path.parent} can only be read, so nothing can be made; "
                "allow writing to it, or set CONTACT_SHEET_HOME to another folder")

    @contextlib.contextmanager
    def session(self, write: bool = False) -> Iterator[Session]:
        """A transaction that is committed at the end; with `write`, nobody else writes from its
        beginning to its end."""
        if write:
            self.check_writable()
        with self._errors(), Session(self._engine, expire_on_commit=False) as session:
            if write:
                session.connection().exec_driver_sql("BEGIN IMMEDIATE")
            yield session
            session.commit()
        self._check_present()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OverflowError, UnicodeError) as error:
            reason = first_line(getattr(error, "orig", None) or error)
            if reason == "database is locked":
                reason = f"another program has been writing to it for {WAIT_SECONDS} s; try again"
            raise StorageError(f"the run log {self.path} cannot be used: {reason}") from error

    def _file(self) -> tuple[int, int] | None:
        """Which file the path leads to, whatever its name."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _check_present(self) -> None:
        """Raise StorageError where the file that is written has no name any more: what goes into it
        is lost when it is closed."""
        if self._file() != self._opened:
            raise StorageError(
                f"the run log {self.path} was removed or replaced while it was in use; what was "
                "made since is not in the log. Start again to go on with the folder as it is now")


class Unreadable:
    """What stands in a JSON column and is no JSON."""

    def __init__(self, stored: Any) -> None:
        self.stored = stored

    def __repr__(self) -> str:
        return repr(self.stored)


def read_json(stored: Any) -> Any:
    """The value of a JSON column, Unreadable where it is no JSON that could be written again."""
    try:
        value = json.loads(stored)
        if _SUSPECT.search(stored):
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        return Unreadable(stored)
    deep = stored.count("[") + stored.count("{") > DEEPEST and _depth(value) > DEEPEST
    return Unreadable(stored) if deep else value


def _depth(value: Any) -> int:
    """Levels of nesting."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [inner for outer in level if isinstance(outer, dict | list)
                 for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth
