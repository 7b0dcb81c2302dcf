"""The run log: a row for every run; their pictures are in stores.py."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from pipelines.database import Database
from pipelines.errors import StorageError
from pipelines.log_tables import LISTED, Base, ComparisonRow, Distance, Run, Timing, utc_now
from pipelines.run_filter import FEW, Clauses, RunFilter
from pipelines.run_pages import BY_FACTS, FIRST, Page, Place, batches, distinct_values, few, page_of


def data_home() -> Path:
    """Where the log and the pictures lie; CONTACT_SHEET_HOME moves it."""
    if home := os.environ.get("CONTACT_SHEET_HOME"):
        return Path(home).expanduser().absolute()
    return user_data_path("contact-sheet", appauthor=False)


@dataclass(frozen=True)
class TimingSummary:
    """The total over `repeats` measured runs, in milliseconds: median, least and most."""

    repeats: int
    median_ms: float
    low_ms: float
    high_ms: float


class RunLog:
    """The SQLite database `runs.sqlite` in a folder; made or migrated when it is opened."""

    def __init__(self, home: Path) -> None:
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"the data folder {home} cannot be made: {error}") from error
        self.path = home / "runs.sqlite"
        self.database = Database(self.path)
        self.version, self._session = self.database.version, self.database.session
        self._answers: tuple[int, dict[Any, Any]] = -1, {}  # of which version

    def add(self, row: Base, keep_files: Callable[[], object] | None = None) -> None:
        """Write a row now; raises StorageError. `keep_files` sees to the files that it names: it is
        called when nobody else can write, as one must who removes a file (run_marks.py)."""
        with self._session(write=True) as session:
            if keep_files:
                keep_files()
            session.add(row)

    def add_copy(
        self, run: Run, comparison_id: str, axes: dict[str, Any], complete: Callable[[Run], bool]
    ) -> Run | None:
        """Take a run into another comparison; None where it or its files have gone meanwhile."""
        with self._session(write=True) as session:
            if session.get(Run, run.source_id) is None or not complete(run):
                return None
            copy = run.copy_for(comparison_id, axes)
            session.add(copy)
        return copy

    def update(
        self, run: Run, keep_files: Callable[[], object] | None = None, **columns: Any
    ) -> None:
        """Write columns of a run that were not known yet when it was added; `keep_files` as of
        `add`."""
        with self._session(write=True) as session:
            if keep_files:
                keep_files()
            session.add(run)
            for name, value in columns.items():
                setattr(run, name, value)

    def set_status(self, comparison_id: str, status: str, owner: str | None = None) -> None:
        with self._session(write=True) as session:
            row = session.get_one(ComparisonRow, comparison_id)
            row.status, row.owner = status, owner

    def set_reference(self, comparison_id: str, reference: str | None) -> None:
        with self._session(write=True) as session:
            session.get_one(ComparisonRow, comparison_id).reference = reference

    def comparison(self, comparison_id: str) -> ComparisonRow | None:
        with self._session() as session:
            return session.get(ComparisonRow, comparison_id)

    def comparisons(self, limit: int = 50) -> Sequence[ComparisonRow]:
        """The newest first."""
        with self._session() as session:
            query = select(ComparisonRow).order_by(ComparisonRow.datetime_utc.desc())
            return session.scalars(query.limit(limit)).all()

    def run(self, run_id: int) -> Run | None:
        with self._session() as session:
            return session.get(Run, run_id)

    def of_identities(self, identities: Collection[str]) -> dict[str, list[Run]]:
        """The pictures that were made of exactly these, by identity, the newest first."""
        query = select(Run).where(Run.identity.in_(identities), Run.status == "ok",
                                  Run.reused_from.is_(None))
        runs: dict[str, list[Run]] = {}
        with self._session() as session:
            for run in session.scalars(query.order_by(Run.id.desc())):
                if not run.damage:
                    runs.setdefault(run.identity, []).append(run)
        return runs

    def made_after(self, run_id: int) -> Sequence[Run]:
        """The pictures that were made since a run, outside comparisons, the oldest first."""
        query = select(Run).where(Run.id > run_id, Run.status == "ok", Run.comparison_id.is_(None))
        with self._session() as session:
            return session.scalars(query.order_by(Run.id)).all()

    def steps_of(self, comparison_id: str) -> dict[int, str | None]:
        """The ids of a comparison's runs, the oldest first, and the picture of each one's steps:
        what else is in a row never changes."""
        query = select(Run.id, Run.steps_sha256).where(Run.comparison_id == comparison_id)
        with self._session() as session:
            return dict(session.execute(query.order_by(Run.id)).all())

    def runs_by_id(self, run_ids: Collection[int]) -> Sequence[Run]:
        """The runs of these ids, the oldest first."""
        if not run_ids:
            return []
        with self._session() as session:
            return session.scalars(select(Run).where(Run.id.in_(run_ids)).order_by(Run.id)).all()

    def measured(self, run_ids: Collection[int]) -> dict[int, list[tuple]]:
        """What stands in the log of these runs' distances: by run, the columns as they are."""
        query = select(*Distance.__table__.columns).where(Distance.run_id.in_(run_ids))
        rows: dict[int, list[tuple]] = {}
        with self._session() as session:
            for row in session.execute(query.order_by(Distance.reference_id)):
                rows.setdefault(row.run_id, []).append(tuple(row))
        return rows

    def keep_distance(self, distance: Distance) -> None:
        with self._session(write=True) as session:
            session.merge(distance)  # somebody may have measured it at the same time

    def timings(self, run_ids: Sequence[int]) -> dict[int, TimingSummary]:
        """What was measured of these runs, by their id: on the machine or device of a cluster that
        measured one of them last, since times of two do not mix."""
        query = select(Timing.run_id, Timing.total_ms, Timing.node)
        query = query.where(Timing.run_id.in_(run_ids)).order_by(Timing.id.desc())
        totals: dict[int, list[float]] = {}
        with self._session() as session:
            rows = [row for row in session.execute(query) if _are_numbers(row.total_ms)]
        for row in rows:
            if row.node == rows[0].node:
                totals.setdefault(row.run_id, []).append(row.total_ms)
        return {run_id: TimingSummary(len(ms), statistics.median(ms), min(ms), max(ms))
                for run_id, ms in totals.items()}

    def timing_nodes(self, run_ids: Sequence[int]) -> set[str]:
        """The devices of clusters that have measured some of these runs."""
        query = select(Timing.node).where(Timing.run_id.in_(run_ids), Timing.node.is_not(None))
        with self._session() as session:
            return set(session.scalars(query.distinct()))

    def distances(self, run_ids: Collection[int]) -> list[tuple[Distance, Run]]:
        """What was measured of these runs, each with its reference."""
        query = select(Distance, Run).join(Run, Run.id == Distance.reference_id)
        with self._session() as session:
            return [(distance, reference) for distance, reference in
                    session.execute(query.where(Distance.run_id.in_(run_ids)))]

    def distances_to(self, reference_id: int) -> list[tuple[Distance, Run]]:
        """What was measured against a run, each with the run that was."""
        query = select(Distance, Run).join(Run, Run.id == Distance.run_id)
        with self._session() as session:
            return [(distance, run) for distance, run in
                    session.execute(query.where(Distance.reference_id == reference_id))]

    def runs(
        self,
        *,
        sort: str = "id",
        ascending: bool = False,
        limit: int | None = None,
        offset: int = 0,
        **filters: Any,
    ) -> Sequence[Run]:
        """The runs that a RunFilter of these fields lets through, the newest first; `sort` names
        a column."""
        run_filter = RunFilter(**filters)
        columns = [getattr(Run, sort), Run.id]
        order = [column.asc() if ascending else column.desc() for column in columns]
        with self._session() as session:
            clauses = Clauses(session, run_filter)
            query = select(Run).where(clauses.scope, clauses.by_row())
            return session.scalars(query.order_by(*order).limit(limit).offset(offset)).all()

    def costs(self, model_id: str, limit: int = 200) -> Sequence[Any]:
        """What the newest finished runs of a model cost, and at which size: rows of a few columns
        of Run, without its JSON."""
        query = select(Run.height, Run.width, Run.nfe, Run.denoiser_rows, Run.shared, Run.device,
                       Run.denoising_ms, Run.total_ms)
        query = query.where(LISTED, Run.model_id == model_id, Run.status == "ok")
        with self._session() as session:
            rows = session.execute(query.order_by(Run.id.desc()).limit(limit)).all()
        return [row for row in rows
                if _are_numbers(row.nfe, row.denoiser_rows, row.denoising_ms, row.total_ms)]

    def tries(self, image_sha256: str, limit: int = 24) -> Sequence[Run]:
        """In-paintings of one picture that went well, the newest first."""
        image = case((func.json_valid(Run.request) == 1, Run.request["image"].as_string()))
        query = select(Run).where(LISTED, Run.task == "inpainting", Run.status == "ok",
                                  image == image_sha256)
        query = query.with_hint(Run, "INDEXED BY listed_task", "sqlite")
        with self._session() as session:
            return session.scalars(query.order_by(Run.id.desc()).limit(limit)).all()

    def page(
        self,
        *,
        sort: str = "id",
        ascending: bool = False,
        place: Place = FIRST,
        size: int = 25,
        counted: bool = True,
        **filters: Any,
    ) -> Page:
        """The runs of one page of those that a RunFilter lets through; `sort` names the id or a
        column of SORTED (log_tables.py). To count them may take longer than to show a page of them:
        without `counted`, `count` is asked for afterwards."""
        run_filter = RunFilter(**filters)
        filtered = bool(run_filter.conditions)
        fitting = (lambda: self._fitting(run_filter)) if filtered else None
        with self._session() as session:
            runs, more = page_of(session, run_filter, fitting, sort, ascending, place, size)
        earlier, later = ((more, place.run_id is not None) if place.backwards
                          else (place.run_id is not None, more))
        if not runs:
            earlier = later = False
        before = Place(getattr(runs[0], sort), runs[0].id, True) if earlier else None
        after = Place(getattr(runs[-1], sort), runs[-1].id) if later else None
        if not counted:
            return Page(runs, before, after, None)
        count = self.count(**filters)
        return Page(runs, before, after, min(count, FEW) if filtered else count,
                    filtered and count > FEW)

    def count(self, **filters: Any) -> int:
        """How many runs a RunFilter of these fields lets through; more than FEW (run_filter.py) is
        FEW + 1 where something is filtered."""
        run_filter = RunFilter(**filters)
        if run_filter.conditions:
            return len(self._fitting(run_filter))
        query = select(func.count(Run.id)).where(run_filter.scope())
        return self._until_a_write("count", lambda session: session.scalar(query))

    def known_count(self, **filters: Any) -> int | None:
        """What `count` gives, where nobody wrote since it was asked for; else None."""
        version, answers = self._answers
        run_filter = RunFilter(**filters)
        answer = answers.get(run_filter if run_filter.conditions else "count")
        if answer is None or version != self.version():
            return None
        return answer if isinstance(answer, int) else len(answer)

    def stream(self, **filters: Any) -> Iterator[Run]:
        """All runs that a RunFilter of these fields lets through, the newest first, of which a few
        are in memory at once."""
        return self.stream_of(RunFilter(**filters))

    def stream_of(self, run_filter: RunFilter) -> Iterator[Run]:
        """`stream` for a filter as a whole."""
        for runs in batches(self._session, run_filter):
            yield from runs

    def clock_behind_seconds(self) -> float:
        """How far this machine's clock is behind the newest run or comparison of the log, 0 where
        it is not: it was set back, or what is imported comes from one that is ahead."""
        with self._session() as session:
            newest = [session.scalar(select(func.max(of))) for of in (
                Run.datetime_utc, ComparisonRow.datetime_utc)]
        now = datetime.datetime.fromisoformat(utc_now())
        behind = [0.0]
        for moment in newest:
            with contextlib.suppress(ValueError, TypeError):  # what another program wrote
                behind.append((datetime.datetime.fromisoformat(moment) - now).total_seconds())
        return max(behind)

    def exact_count(self, run_filter: RunFilter) -> int:
        """How many runs a filter lets through, however long that takes to say."""
        with self._session() as session:
            clauses = Clauses(session, run_filter)
            return session.scalar(select(func.count(Run.id)).where(
                clauses.scope, clauses.by_row()).with_hint(Run, BY_FACTS, "sqlite"))

    def distinct(self, column: str) -> list[str]:
        """The values that occur in a column of SORTED (log_tables.py), sorted."""
        values = self._until_a_write(column, lambda session: distinct_values(session, column))
        return sorted(value for value in values if isinstance(value, str))

    def _fitting(self, run_filter: RunFilter) -> Sequence[int]:
        return self._until_a_write(run_filter, lambda session: few(session, run_filter))

    def forget(self) -> None:
        """Ask everything anew, as after a write."""
        self._answers = -1, {}

    def _until_a_write(self, key: Any, ask: Callable[[Session], Any]) -> Any:
        """What a look over the whole table gives, asked again only after a write."""
        version = self.version()
        if self._answers[0] != version:
            self._answers = version, {}
        answers = self._answers[1]
        if key not in answers:
            with self._session() as session:
                answers[key] = ask(session)
        return answers[key]


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)
