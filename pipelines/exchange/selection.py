"""The rows that an export takes along, chosen in the database: a million need no memory here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Select, column, insert, select, table, text
from sqlalchemy.orm import Session

from pipelines.log_tables import Base, ComparisonRow, Distance, Run, Tag, Timing
from pipelines.run_filter import Clauses, RunFilter
from pipelines.run_log import RunLog
from pipelines.study.rows import StudyRow

AT_ONCE = 500  # rows in memory
CHOSEN = table("chosen", column("id"))
# What a run cannot be understood without: the run it is a copy of, the one that it started from,
# and those that it was measured against.
NEEDED = """
    INSERT OR IGNORE INTO chosen SELECT other FROM (
        SELECT reused_from AS other FROM runs JOIN chosen USING (id)
        UNION SELECT parent_id FROM runs JOIN chosen USING (id)
        UNION SELECT reference_id FROM distances JOIN chosen ON run_id = chosen.id
    ) WHERE other IN (SELECT id FROM runs)"""


class Selection:
    """The runs that a filter lets through, what they need, and what is known of them, as they were
    at one moment."""

    def __init__(self, session: Session, run_filter: RunFilter) -> None:
        self._session = session
        execute = session.connection().exec_driver_sql
        execute("BEGIN")
        execute("CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)")
        clauses = Clauses(session, run_filter)
        self.everything = not run_filter.conditions
        where = (Run.deleted_utc.is_(None),) if self.everything else (
            clauses.scope, clauses.by_row())
        session.execute(insert(CHOSEN).from_select(["id"], select(Run.id).where(*where)))
        self.asked = self._count()
        while execute(NEEDED).rowcount > 0:
            pass
        self.count = self._count()

    def _count(self) -> int:
        return self._session.connection().exec_driver_sql("SELECT count(*) FROM chosen").scalar()

    def rows(self, kind: type[Base]) -> Iterator[Any]:
        """The rows of a table that go along, a few at a time; runs in the order of their ids."""
        return iter(self._session.scalars(
            self._query(kind).execution_options(yield_per=AT_ONCE)))

    def _query(self, kind: type[Base]) -> Select:
        chosen = select(CHOSEN.c.id)
        if kind is Run:
            return select(Run).where(Run.id.in_(chosen)).order_by(Run.id)
        if kind is Distance:
            return select(Distance).where(Distance.run_id.in_(chosen),
                                          Distance.reference_id.in_(chosen))
        if kind in (Timing, Tag):
            return select(kind).where(kind.run_id.in_(chosen))
        if self.everything:
            return select(kind)
        of_runs = select(Run.comparison_id).where(Run.id.in_(chosen))
        if kind is ComparisonRow:
            return select(ComparisonRow).where(ComparisonRow.id.in_(of_runs))
        return select(StudyRow).where(select(ComparisonRow.id).where(
            ComparisonRow.id.in_(of_runs),
            (ComparisonRow.id == StudyRow.id) | ComparisonRow.id.op("GLOB")(StudyRow.id + "-*")
        ).exists())

    def names(self, *columns: str) -> Iterator[str]:
        """The files that these columns of the runs name, each once; `request.image` is a value in a
        column."""
        parts = [f"json_extract({of}, '$.{field}')" if field else of
                 for of, _, field in (name.partition(".") for name in columns)]
        union = " UNION ".join(
            f"SELECT {part} AS name FROM runs JOIN chosen USING (id) WHERE json_valid(request)"
            for part in parts)
        yield from self._session.scalars(text(
            f"SELECT DISTINCT name FROM ({union}) WHERE name IS NOT NULL").execution_options(
                yield_per=AT_ONCE))


@contextlib.contextmanager
def selection(run_log: RunLog, run_filter: RunFilter) -> Iterator[Selection]:
    """A Selection, as long as it is looked at; raises QueryError and StorageError."""
    with run_log.database.session() as session:
        try:
            yield Selection(session, run_filter)
        finally:
            session.rollback()  # with it goes the table of what was chosen
