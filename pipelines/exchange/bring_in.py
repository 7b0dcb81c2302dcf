"""An exported log brought into the log of this machine, with nothing doubled.

A run is known by its identity (what decides the picture) and the hash of its picture, a comparison
and a study by their ids. A few runs at a time: their files first, then their rows, so that an
import which ends in the middle leaves whole runs, and goes on where it is done again.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from pipelines.comparison import axes_key
from pipelines.errors import RequestError, first_line
from pipelines.exchange.archive import TABLES, OnDone
from pipelines.exchange.opened import Opened, opened
from pipelines.fields import PICTURES
from pipelines.job_log import INTERRUPTED, PAUSED, RUNNING
from pipelines.log_tables import Base, ComparisonRow, Distance, Run, Tag, Timing
from pipelines.request import RunRequest
from pipelines.run_marks import check_tag
from pipelines.study.rows import StudyRow

if TYPE_CHECKING:
    from pipelines.engine import Engine

AT_ONCE = 100  # runs of a transaction
MOST_NAMED = 1000  # lines about what was left out; the rest is counted
NUMBERED = (Run, Timing)  # whose ids the database gives
Values = dict[str, Any]


@dataclass
class Imported:
    """What came in, what was here already, and what was left out and why (`skipped_count` lines,
    the first of which are `skipped`). Measures are distances and timings."""

    runs: int = 0
    runs_here: int = 0
    comparisons: int = 0
    studies: int = 0
    measures: int = 0
    tags: int = 0
    skipped_count: int = 0
    skipped: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """'3 runs came in, 2 were here already; 1 comparison, 4 measures'."""
        parts = [f"{count:,} {noun}{'s' * (count != 1)}" for count, noun in (
            (self.comparisons, "comparison"), (self.measures, "measure"), (self.tags, "tag"))
            if count]
        if self.studies:
            parts.append(f"{self.studies:,} {'study' if self.studies == 1 else 'studies'}")
        text = (f"{self.runs:,} run{'s' * (self.runs != 1)} came in, "
                f"{self.runs_here:,} {'was' if self.runs_here == 1 else 'were'} here already")
        text += f"; with them {', '.join(parts)}" if parts else ""
        return text + (f"; {self.skipped_count:,} left out" if self.skipped_count else "")

    def skip(self, what: str, reason: str) -> None:
        self.skipped_count += 1
        if len(self.skipped) < MOST_NAMED:
            self.skipped.append(f"{what}: {reason}")


def bring_in(engine: Engine, source: Path, on_done: OnDone | None = None) -> Imported:
    """Add what an exported log holds to the log; `on_done` may raise Cancelled. Raises RequestError
    where the file is no exported log or holds what none does, StorageError where nothing can be
    written."""
    engine.run_log.database.check_writable()
    with opened(source, engine.home) as file:
        return _Import(engine, file).run(on_done)


class _Import:
    """One import: `new` and `made` say under which id a run of the file is here, and which one was
    really made (`Run.source_id`)."""

    def __init__(self, engine: Engine, file: Opened) -> None:
        self.engine, self.file, self.done = engine, file, Imported()
        self._session = engine.run_log.database.session
        self.new: dict[int, int] = {}
        self.made: dict[int, int] = {}
        self.comparisons: set[str] = set()

    def run(self, on_done: OnDone | None) -> Imported:
        for some in _parts(self._rows("comparisons")):
            self._of_ids(ComparisonRow, some)
        for some in _parts(self._rows("studies")):
            self._of_ids(StudyRow, some)
        total, seen = self.file.rows_of("runs"), 0
        for some in _parts(self._rows("runs")):
            self._runs(some)
            seen += len(some)
            if on_done:
                on_done(min(seen, total), total)
        for some in _parts(self._rows("distances")):
            self._distances(some)
        for some in _parts(self._rows("timings")):
            self._timings(some)
        for some in _parts(self._rows("tags")):
            self._tags(some)
        return self.done

    def _rows(self, name: str) -> Iterator[Values]:
        """The rows of a table that this version can read."""
        kind = TABLES[name]
        for number, row in self.file.lines(name):
            what = f"{name}, line {number}"
            if isinstance(row, str):
                self.done.skip(what, row)
            elif reason := _unfit(kind, row):
                self.done.skip(what, reason)
            else:
                yield row

    def _of_ids(self, kind: type[ComparisonRow | StudyRow], rows: list[Values]) -> None:
        """Comparisons or studies; one of the same id that is here must ask for the same."""
        name = kind.__tablename__
        with self._session(write=True) as session:
            query = select(kind).where(kind.id.in_([row["id"] for row in rows]))
            here = {row.id: row for row in session.scalars(query)}
            for row in rows:
                known = here.get(row["id"])
                if known is not None and any(getattr(known, part) != row[part]
                                             for part in ("base", "axes")):
                    self.done.skip(f"{name} {row['id']}",
                                   "another one of this id is here; runs come in without it")
                    continue
                if kind is ComparisonRow:
                    self.comparisons.add(row["id"])
                if known is None:
                    here[row["id"]] = _made(kind, row)
                    session.add(here[row["id"]])
                    setattr(self.done, name, getattr(self.done, name) + 1)

    # --- runs

    def _runs(self, rows: list[Values]) -> None:
        """Bring the files of some runs, then their rows."""
        ready = [row for row in rows if self._bring_files(row)]
        with self._session(write=True) as session:
            here = _Here(session, ready)
            for row in ready:
                self._keep_files(row)
                self._run(session, here, row)

    def _bring_files(self, row: Values) -> bool:
        """Whether the picture of a run is here now; what else cannot be had is left out of it."""
        what, pictures, latents = f"run {row['id']}", self.engine.pictures, self.engine.latents
        names = [row.get("image_sha256"), *(row["request"].get(name) for name in PICTURES)]
        for place, name in enumerate(names):
            if isinstance(name, str) and (reason := self.file.bring(pictures, name)):
                if place == 0:
                    self.done.skip(what, f"its picture {reason}")
                    return False
                self.done.skip(what, f"the picture that it started from {reason}; it came in "
                                     "without")
        for column, store, empty in (("steps_sha256", pictures, {"steps_shown": []}),
                                     ("latents_sha256", latents, {})):
            if row.get(column) and (reason := self.file.bring(store, row[column])):
                self.done.skip(what, f"{column} {reason}; it came in without")
                row.update({column: None, **empty})
        return True

    def _keep_files(self, row: Values) -> None:
        """Bring again what was removed since, now that nobody else can write."""
        for store, columns in ((self.engine.pictures, ("image_sha256", "steps_sha256")),
                               (self.engine.latents, ("latents_sha256",))):
            for name in filter(None, map(row.get, columns)):
                self.file.bring(store, name)

    def _run(self, session: Session, here: _Here, row: Values) -> None:
        number, comparison = row["id"], row.get("comparison_id")
        if comparison not in self.comparisons:
            row.update(comparison_id=None, axes={})
        known = here.same(row)
        if known is None:
            source = here.source(row) or self.made.get(row.get("reused_from"))
            run = _made(Run, row, parent_id=self.new.get(row.get("parent_id")), reused_from=source)
            session.add(run)
            session.flush()
            here.add(run)
            self.done.runs += 1
        else:
            run = known
            run.starred = run.starred or bool(row.get("starred"))
            run.remark = run.remark or row.get("remark", "")
            run.deleted_utc = run.deleted_utc and row.get("deleted_utc")  # out of the bin
            self.done.runs_here += 1
        self.new[number], self.made[number] = run.id, run.source_id

    # --- what is known of runs

    def _distances(self, rows: list[Values]) -> None:
        values = []
        for row in rows:
            ids = [self.made.get(row[name]) for name in ("run_id", "reference_id")]
            if None not in ids:
                values.append({**row, "run_id": ids[0], "reference_id": ids[1]})
        self.done.measures += self._insert(Distance, values)

    def _timings(self, rows: list[Values]) -> None:
        """Each once: it is known by its run, its moment and its length."""
        with self._session() as session:
            ids = {self.made.get(row["run_id"]) for row in rows}
            here = set(session.execute(select(
                Timing.run_id, Timing.datetime_utc, Timing.total_ms).where(
                    Timing.run_id.in_(ids))).tuples())
        values = []
        for row in rows:
            run_id = self.made.get(row["run_id"])
            key = (run_id, row["datetime_utc"], row["total_ms"])
            if run_id is not None and key not in here:
                here.add(key)
                values.append({**{name: value for name, value in row.items() if name != "id"},
                               "run_id": run_id})
        self.done.measures += self._insert(Timing, values)

    def _tags(self, rows: list[Values]) -> None:
        values = [{"run_id": self.new[row["run_id"]], "tag": row["tag"]}
                  for row in rows if row["run_id"] in self.new]
        self.done.tags += self._insert(Tag, values)

    def _insert(self, kind: type[Base], values: list[Values]) -> int:
        """How many of these are new."""
        count = 0
        with self._session(write=True) as session:
            for row in values:
                count += session.execute(
                    insert(kind).prefix_with("OR IGNORE").values(row)).rowcount
        return count


class _Here:
    """The runs of this log that some of the file may be."""

    def __init__(self, session: Session, rows: list[Values]) -> None:
        identities = {row["identity"] for row in rows if row.get("identity")}
        moments = {row["datetime_utc"] for row in rows if not row.get("identity")}
        self._runs: dict[Any, list[Run]] = {}
        for query in (Run.identity.in_(identities), Run.datetime_utc.in_(moments)):
            for run in session.scalars(select(Run).where(query).order_by(Run.id)):
                self.add(run)

    def add(self, run: Run) -> None:
        self._runs.setdefault(_key(run.identity, run.image_sha256, run.datetime_utc, run.status,
                                   run.request), []).append(run)

    def _like(self, row: Values) -> list[Run]:
        return self._runs.get(_key(row.get("identity"), row.get("image_sha256"),
                                   row["datetime_utc"], row["status"], row["request"]), [])

    def same(self, row: Values) -> Run | None:
        """The run of this log that a row is: where it is a cell of a comparison, that cell."""
        comparison = row.get("comparison_id")
        axes = axes_key(row["axes"])
        return next((run for run in self._like(row) if comparison is None
                     or (run.comparison_id == comparison and axes_key(run.axes) == axes)), None)

    def source(self, row: Values) -> int | None:
        """The run that was really made, of which a row is a copy for another comparison."""
        return next((run.source_id for run in self._like(row) if run.status == "ok"), None)


def _key(identity: str | None, picture: str | None, moment: str, status: str, request: Any) -> Any:
    """Equal for runs that are the same; without an identity, as of failed runs and of old ones, by
    when and of what they were made."""
    if identity and picture:
        return identity, picture
    return moment, status, picture, json.dumps(request, sort_keys=True)


def _unfit(kind: type[Base], row: Values) -> str:
    """Why this version cannot take a row, '' where it can."""
    columns = kind.__table__.columns
    if unknown := sorted(row.keys() - columns.keys()):
        return f"of a newer version: it has {', '.join(unknown)[:80]}"
    given = {**dict.fromkeys(_required(kind)), **row}
    problems = {name: reason for name, reason in kind.column_problems(given).items()
                if name in given}
    if problems:
        return f"damaged: {'; '.join(problems.values())[:300]}"
    try:
        if "datetime_utc" in row:
            datetime.datetime.fromisoformat(row["datetime_utc"])
        if kind is Run:
            if reasons := _made(Run, row).contradictions():
                return f"damaged: {'; '.join(reasons)}"
            RunRequest(**row["request"])
        if kind is Tag:
            check_tag(row["tag"])
    except (RequestError, TypeError, ValueError) as error:
        return f"damaged, or of another version: {first_line(error)}"
    return ""


@functools.cache
def _required(kind: type[Base]) -> tuple[str, ...]:
    """The columns that every version wrote."""
    names = [name for name, parameter in inspect.signature(kind).parameters.items()
             if parameter.default is parameter.empty]
    return (*names, "id") if kind in NUMBERED else tuple(names)


def _made(kind: type[Base], row: Values, **changed: Any) -> Any:
    """A new row."""
    values = {name: value for name, value in {**row, **changed}.items()
              if not (kind in NUMBERED and name == "id")}
    if "status" in values and kind is not Run and values["status"] in (RUNNING, PAUSED):
        values["status"] = INTERRUPTED if kind is ComparisonRow else "cancelled"
    if kind is ComparisonRow:
        values["owner"] = None
    return kind(**values)


def _parts(rows: Iterable[Values]) -> Iterator[list[Values]]:
    parts = iter(rows)
    while part := list(itertools.islice(parts, AT_ONCE)):
        yield part
