"""The queue as the run log's database has it: a row for every job, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from pipelines.checked_rows import checked
from pipelines.log_tables import Base, ComparisonRow, Run
from pipelines.presence import is_there
from pipelines.run_log import RunLog

WAITING, RUNNING, PAUSED, INTERRUPTED = "waiting", "running", "paused", "interrupted"
STATES = (WAITING, RUNNING, PAUSED, INTERRUPTED, "done", "failed", "cancelled")
GO_ON = (WAITING, RUNNING, PAUSED, INTERRUPTED)  # states in which a job has not ended
CANCEL, CANCEL_AFTER, PAUSE = "cancel", "cancel after", "pause"
WISHES = ("", CANCEL, CANCEL_AFTER, PAUSE)


@checked
class JobRow(Base):
    """A job: what it does (`kind` and `settings`, checked again when it begins), and how far it is.

    `browser` asked for it, `asked_with` says in words what that is. `key` is equal for jobs that do
    the same. `position` orders the jobs of a browser; `turn` counts the jobs that were begun.
    `owner` is the process that does it, or that will (presence.py); `wish` is what somebody wants
    of a running one. `done` of `total` units. `run_ids` are the pictures it made, `after_run` the
    newest run when it was asked for.
    """

    __tablename__ = "jobs"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    datetime_utc: Mapped[str]
    kind: Mapped[str]
    title: Mapped[str]
    settings: Mapped[dict[str, Any]]
    key: Mapped[str]
    browser: Mapped[str] = mapped_column(default="")
    asked_with: Mapped[str] = mapped_column(default="")
    comparison_id: Mapped[str | None] = mapped_column(default=None)
    status: Mapped[str] = mapped_column(default=WAITING)
    position: Mapped[int] = mapped_column(default=0)
    turn: Mapped[int | None] = mapped_column(default=None)
    owner: Mapped[str | None] = mapped_column(default=None)
    wish: Mapped[str] = mapped_column(default="")
    total: Mapped[int] = mapped_column(default=0)
    done: Mapped[int] = mapped_column(default=0)
    message: Mapped[str] = mapped_column(default="")
    waits_for: Mapped[str] = mapped_column(default="")
    seconds_left: Mapped[float | None] = mapped_column(default=None)
    run_ids: Mapped[list[int]] = mapped_column(default_factory=list)
    after_run: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(default=None)

    def contradictions(self) -> list[str]:
        return [f"{name}: received {getattr(self, name)!r:.80}, accepted {', '.join(accepted)}"
                for name, accepted in (("status", STATES), ("wish", WISHES))
                if getattr(self, name) not in accepted]


def fair_order(rows: Sequence[JobRow]) -> list[JobRow]:
    """The waiting jobs as they will begin: the browsers in turn, first whose last job began longest
    ago; the jobs of each by their position."""
    turns: dict[str, int] = {}
    queues: dict[str, list[JobRow]] = {}
    for row in rows:
        turns[row.browser] = max(turns.get(row.browser, 0), row.turn or 0)
        if row.status == WAITING:
            queues.setdefault(row.browser, []).append(row)
    for queue in queues.values():
        queue.sort(key=lambda row: (row.position, row.id))
    order: list[JobRow] = []
    last = max(turns.values(), default=0)
    while queues:
        browser = min(queues, key=lambda name: (turns[name], queues[name][0].position,
                                                queues[name][0].id))
        order.append(queues[browser].pop(0))
        last += 1
        turns[browser] = last
        if not queues[browser]:
            del queues[browser]
    return order


class JobLog:
    """What is written of jobs; each method is one transaction, and raises StorageError."""

    def __init__(self, run_log: RunLog) -> None:
        self.home: Path = run_log.path.parent
        self._session = run_log.database.session

    def rows(self) -> Sequence[JobRow]:
        """All that are listed, the oldest first."""
        with self._session() as session:
            return session.scalars(select(JobRow).order_by(JobRow.id)).all()

    def add(self, row: JobRow) -> int:
        """Put a job at the end of its browser's; the id, that of one with the same key where one
        has not ended and is not being cancelled."""
        with self._session(write=True) as session:
            session.add(row)
            session.flush()  # from now on nobody else can write
            same = session.scalar(
                select(JobRow.id).where(
                    JobRow.key == row.key, JobRow.id != row.id, JobRow.status.in_(GO_ON),
                    JobRow.wish.not_in((CANCEL, CANCEL_AFTER))).limit(1))
            if same is not None:
                session.rollback()
                return same
            row.position = session.scalar(select(func.coalesce(func.max(JobRow.position), 0))) + 1
            row.after_run = session.scalar(select(func.coalesce(func.max(Run.id), 0)))
            return row.id

    def take(self, job_id: int, owner: str) -> bool:
        """Begin a waiting job, which only one process can."""
        turn = select(func.coalesce(func.max(JobRow.turn), 0) + 1).scalar_subquery()
        return self._change(job_id, JobRow.status == WAITING, status=RUNNING, owner=owner,
                            turn=turn, wish="", error=None)

    def save(self, job_id: int, **columns: Any) -> str:
        """Write how far a running job is; what somebody wishes of it. A job that is not there any
        more is to be cancelled."""
        with self._session(write=True) as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(**columns))
            wish = session.scalar(select(JobRow.wish).where(JobRow.id == job_id))
        return CANCEL if wish is None else wish

    def end(self, job_id: int, status: str, error: str | None, kept: int, **columns: Any) -> None:
        """Write how a job ended, or was put aside, and forget the oldest that ended."""
        with self._session(write=True) as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(
                status=status, error=error, owner=None, wish="", waits_for="", **columns))
            ended = select(JobRow.id).where(JobRow.status.not_in(GO_ON))
            old = session.scalars(ended.order_by(JobRow.id.desc()).offset(kept)).all()
            session.execute(delete(JobRow).where(JobRow.id.in_(old)))

    def wish(self, job_id: int, wish: str) -> None:
        """Pause or cancel: at once where it does not run, else whoever runs it will."""
        if wish == PAUSE:
            changed = self._change(job_id, JobRow.status == WAITING, status=PAUSED, owner=None)
        else:
            idle = JobRow.status.in_((WAITING, PAUSED, INTERRUPTED))
            changed = self._change(job_id, idle, status="cancelled", owner=None)
        if not changed:
            self._change(job_id, JobRow.status == RUNNING, wish=wish)

    def resume(self, job_id: int, owner: str | None) -> None:
        """Let a job go on that was paused or interrupted, or is about to be paused."""
        if not self._change(job_id, JobRow.status.in_((PAUSED, INTERRUPTED)), status=WAITING,
                            owner=owner):
            self._change(job_id, JobRow.wish == PAUSE, wish="")

    def swap(self, one: int, other: int) -> None:
        """Exchange the places of two waiting jobs."""
        with self._session(write=True) as session:
            session.execute(update(JobRow).where(JobRow.id == one).values(
                position=JobRow.position))  # shuts out other writers
            places = dict(session.execute(select(JobRow.id, JobRow.position).where(
                JobRow.id.in_((one, other)), JobRow.status == WAITING)).all())
            if len(places) == 2:
                for job_id, position in ((one, places[other]), (other, places[one])):
                    session.execute(update(JobRow).where(JobRow.id == job_id).values(
                        position=position))

    def sweep(self) -> None:
        """Jobs and comparisons whose process has ended are interrupted, or cancelled where somebody
        wished it."""
        tables = ((JobRow, (WAITING, RUNNING)), (ComparisonRow, (RUNNING,)))
        for table, states in tables:
            with self._session() as session:
                owners = session.scalars(select(table.owner).where(
                    table.status.in_(states)).distinct()).all()
            gone = [owner for owner in owners if not is_there(self.home, owner)]
            if not gone:
                continue
            orphans = table.owner.in_(gone) | (table.owner.is_(None) if None in gone else False)
            with self._session(write=True) as session:
                if table is JobRow:
                    session.execute(update(table).where(
                        orphans, table.status.in_(states), table.wish.in_((CANCEL, CANCEL_AFTER))
                    ).values(status="cancelled", wish=""))
                session.execute(update(table).where(orphans, table.status.in_(states)).values(
                    status=INTERRUPTED, **({"wish": "", "owner": None} if table is JobRow else
                                           {"owner": None})))

    def _change(self, job_id: int, where: ColumnElement[bool], **columns: Any) -> bool:
        """Whether the job was as `where` says, and has these columns now."""
        with self._session(write=True) as session:
            changed = session.execute(update(JobRow).where(JobRow.id == job_id, where).values(
                **columns))
            return changed.rowcount > 0
