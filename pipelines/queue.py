"""One queue of long work for a data folder: every browser, page and process sees the same.

It is kept in the run log's database (job_log.py), so that it outlives the process. Each process
does one job at a time, in a thread of the background; a job's settings are values that are checked
when it begins. A job whose process ended is interrupted until somebody lets it go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.engine import Engine
from pipelines.error_log import one_line
from pipelines.errors import NoFurther, RequestError, StorageError
from pipelines.job_log import (
    CANCEL,
    CANCEL_AFTER,
    GO_ON,
    INTERRUPTED,
    PAUSE,
    PAUSED,
    RUNNING,
    WAITING,
    JobLog,
    JobRow,
    fair_order,
)
from pipelines.log_tables import Run, utc_now
from pipelines.presence import Presence, is_there
from pipelines.tasks import Task, outcome

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

KEPT = 50  # jobs that ended and stay listed
POLL_SECONDS = 0.5  # between two looks for work
SWEEP_SECONDS = 3.0
SAVE_SECONDS = 1.0  # between two times that progress is written


class Work(Task):
    """A job that this process does now; times are seconds of time.monotonic()."""

    def __init__(self, row: JobRow, queue: JobQueue) -> None:
        super().__init__(row.id, row.title, row.total, status=RUNNING)
        self.row, self.engine, self.queue = row, queue.engine, queue
        self.preview: Image | None = None
        self.waits_for = ""
        self.runs: list[Run] = []
        self.wish = ""
        self._saved = time.monotonic()

    def check(self) -> None:
        """Raise Cancelled where somebody wants to stop now; tell others how far it is."""
        if time.monotonic() - self._saved > SAVE_SECONDS:
            with contextlib.suppress(StorageError):  # the work itself will say what is wrong
                self.save()
        super().check()

    def check_further(self) -> None:
        """The engine's `check`: raises NoFurther where no other picture shall begin."""
        self.check()
        if self.wish:
            raise NoFurther("stopped by the user")

    def save(self, **columns: Any) -> None:
        self._saved = time.monotonic()
        self.obey(self.queue.log.save(
            self.id, done=self.done, total=self.total, message=self.message,
            waits_for=self.waits_for, seconds_left=self.seconds_left(), **columns))

    def seconds_left(self) -> float | None:
        """By its pace, before there is one by what was forecast."""
        pace = self.eta_seconds()
        return self.row.seconds_left if pace is None else pace

    def obey(self, wish: str) -> None:
        self.wish = wish
        if wish == CANCEL:
            self.stop.set()

    def made(self, run: Run) -> None:
        """Note a picture of this job, for whoever goes on with it and for its page."""
        self.runs.append(run)
        self.save(run_ids=[run.id for run in self.runs])


class Place(NamedTuple):
    """Where a job waits: `ahead` are before it, which take so many seconds, None where that is not
    known."""

    ahead: int
    seconds: float | None


Kinds = Mapping[str, Callable[[Work, Mapping[str, Any]], None]]


class JobQueue:
    """The queue of an engine's data folder. `kinds`: what does the jobs of a kind, from their
    settings; it raises RequestError where it cannot read those."""

    def __init__(
        self, engine: Engine, kinds: Kinds, resume: bool = False, work: bool = True
    ) -> None:
        """Begin to work; `resume`: with what was interrupted, too. Without `work` the jobs are left
        to other processes."""
        self.engine, self.kinds = engine, kinds
        self.log = JobLog(engine.run_log)
        self._presence = Presence(engine.home)
        self._lock = threading.Lock()
        self._wake, self._closed = threading.Event(), threading.Event()
        self._version: int | None = None
        self._rows: dict[int, JobRow] = {}
        self.work: Work | None = None
        if engine.run_log.database.read_only:
            return
        self.log.sweep()
        if not work:
            return
        self._presence.__enter__()
        if resume:
            self.resume_all()
        threading.Thread(
            target=_work, args=(weakref.ref(self), self._presence, self._wake, self._closed),
            name="contact-sheet-jobs", daemon=True).start()

    def close(self) -> None:
        """Take no further work; what runs now is left to end."""
        self._closed.set()
        self._wake.set()

    # --- what people do

    def submit(
        self,
        kind: str,
        title: str,
        total: int,
        settings: Mapping[str, Any],
        *,
        browser: str = "",
        asked_with: str = "",
        comparison_id: str | None = None,
        seconds: float | None = None,
        same: Any = None,
    ) -> Job:
        """Add work; a job that does the same and has not ended is given back instead, so that a
        double click is one. `same` tells what is the same, where the settings do not."""
        self.engine.run_log.database.check_writable()
        settings = json.loads(json.dumps(settings))
        text = json.dumps([kind, settings if same is None else same], sort_keys=True)
        row = JobRow(
            datetime_utc=utc_now(), kind=kind, title=title, settings=settings, total=total,
            key=hashlib.sha256(text.encode()).hexdigest(), browser=browser, asked_with=asked_with,
            comparison_id=comparison_id, seconds_left=seconds, owner=self._presence.owner)
        job_id = self.log.add(row)
        self._wake.set()
        return self.get(job_id) or Job(self, job_id, row)

    def wish(self, job_id: int, wish: str) -> None:
        """Pause or cancel a job: PAUSE and CANCEL_AFTER let the pictures that have begun come to
        their end, CANCEL stops after this step."""
        self.log.wish(job_id, wish)
        if (work := self.work) and work.id == job_id:
            work.obey(wish)

    def resume(self, job_id: int) -> None:
        self.log.resume(job_id, self._presence.owner)
        if (work := self.work) and work.id == job_id and work.wish == PAUSE:
            work.obey("")
        self._wake.set()

    def resume_all(self) -> list[Job]:
        """Let all go on that were interrupted."""
        jobs = [job for job in self.jobs() if job.status == INTERRUPTED]
        for job in jobs:
            self.resume(job.id)
        return jobs

    def move(self, job_id: int, by: int) -> None:
        """Let a waiting job change places with the one before it (-1) or after it (1) of the same
        browser."""
        rows = self.rows()
        if job_id in rows:
            mine = [row.id for row in fair_order(list(rows.values()))
                    if row.browser == rows[job_id].browser]
            if job_id in mine and 0 <= (place := mine.index(job_id) + by) < len(mine):
                self.log.swap(job_id, mine[place])

    # --- what people see

    def rows(self) -> dict[int, JobRow]:
        """The jobs by id, the oldest first; read again only after a write to the log."""
        version = self.engine.run_log.version()
        with self._lock:
            if version != self._version:
                self._rows = {row.id: row for row in self.log.rows()}
                self._version = version
            return self._rows

    def get(self, job_id: int) -> Job | None:
        row = self.rows().get(job_id)
        return Job(self, job_id, row) if row else None

    def jobs(self) -> list[Job]:
        """All that are listed, the oldest first."""
        return [Job(self, row.id, row) for row in self.rows().values()]

    def active(self) -> list[Job]:
        """Those that have not ended: what runs, what waits in the order in which it will begin,
        and what somebody must let go on."""
        rows = list(self.rows().values())
        order = [*(row for row in rows if row.status == RUNNING), *fair_order(rows),
                 *(row for row in rows if row.status in (PAUSED, INTERRUPTED))]
        return [Job(self, row.id, row) for row in order]

    def latest(self, kind: str, browser: str = "") -> Job | None:
        """The newest job of a kind that a browser asked for, running or not."""
        return next((job for job in reversed(self.jobs())
                     if job.kind == kind and job.row.browser == browser), None)

    def place(self, job_id: int) -> Place:
        before = []
        for job in self.active():
            if job.id == job_id:
                break
            before.append(job.eta_seconds())
        return Place(len(before), None if None in before else sum(before))

    # --- in the background

    def look_for_work(self) -> bool:
        """Do the next job, if there is one for this process."""
        for row in fair_order(list(self.rows().values())):
            there = is_there(self.engine.home, row.owner)  # else a sweep interrupts it
            if there and self.log.take(row.id, self._presence.owner):
                self._do(row)
                return True
        return False

    def _do(self, row: JobRow) -> None:
        """A job whose files or rows could not be written, as on a full disk, is interrupted: what
        it has is whole, and somebody may let it go on when there is room."""
        work = self.work = Work(row, self)
        not_stored: list[StorageError] = []

        def do() -> None:
            if row.damage:
                raise RequestError(row.damage)
            if row.kind not in self.kinds:
                raise RequestError(f"job {row.id}: received the kind {row.kind!r:.80}, accepted "
                                   f"{', '.join(self.kinds)}; it may be of another version")
            work.save()
            work.check()
            try:
                self.kinds[row.kind](work, row.settings)
            except StorageError as error:
                not_stored.append(error)
                raise
            work.check()

        try:
            status, error = outcome(row.title, do, self.engine.home)
            if status == "cancelled" and work.wish == PAUSE:
                status = PAUSED
            elif not_stored and status == "failed":
                status = INTERRUPTED
            columns = {"message": work.message, "total": work.total, "done": work.done,
                       "seconds_left": work.seconds_left()}
            while not self._closed.is_set():
                try:
                    self.log.end(row.id, status, error, KEPT, **columns)
                    break
                except StorageError:  # full or locked: as long as it lasts, the row says 'running'
                    logger.warning("the end of a job could not be written", exc_info=True)
                    if self._closed.wait(POLL_SECONDS * 4):
                        break
        finally:
            self.work = None
            work.finished.set()


def _work(
    queue: weakref.ref[JobQueue],
    presence: Presence,
    wake: threading.Event,
    closed: threading.Event,
) -> None:
    """Work until the queue is closed, or nobody has it any more."""
    swept = time.monotonic()
    while not closed.is_set() and (mine := queue()):
        worked = False
        try:
            wake.clear()
            worked = mine.look_for_work()
            if time.monotonic() - swept > SWEEP_SECONDS:
                swept = time.monotonic()
                mine.log.sweep()
        except StorageError:  # told by every page; it may be mended meanwhile
            logger.debug("no look for work", exc_info=True)
        except Exception as error:
            logger.exception("the queue: %s", one_line(error))
        del mine
        if not worked:
            wake.wait(POLL_SECONDS)
    presence.__exit__()


class Job:
    """A job as it is now, whichever process does it."""

    def __init__(self, queue: JobQueue, job_id: int, row: JobRow) -> None:
        self._queue, self.id, self._row = queue, job_id, row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def row(self) -> JobRow:
        """Its row; the last one that was seen, where it is forgotten."""
        self._row = self._queue.rows().get(self.id, self._row)
        return self._row

    @property
    def _work(self) -> Work | None:
        """The job as this process does it."""
        work = self._queue.work
        return work if work and work.id == self.id else None

    @property
    def kind(self) -> str:
        return self._row.kind

    @property
    def title(self) -> str:
        return self._row.title

    @property
    def comparison_id(self) -> str | None:
        return self._row.comparison_id

    @property
    def status(self) -> str:
        return self.row.status

    @property
    def error(self) -> str | None:
        return self.row.error

    @property
    def active(self) -> bool:
        """It has not ended."""
        return self.status in GO_ON

    @property
    def busy(self) -> bool:
        """It runs, or will without anybody's help."""
        return self.status in (WAITING, RUNNING)

    @property
    def stopping(self) -> str:
        """The wish of a running job that was told to stop, '' else."""
        row = self.row
        return row.wish if row.status == RUNNING else ""

    @property
    def done(self) -> int:
        return (self._work or self.row).done

    @property
    def total(self) -> int:
        return (self._work or self.row).total

    @property
    def message(self) -> str:
        return (self._work or self.row).message

    @property
    def waits_for(self) -> str:
        return (self._work or self.row).waits_for

    @property
    def preview(self) -> Image | None:
        """The newest one, where this process makes it."""
        return self._work.preview if self._work else None

    @property
    def fraction(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def began(self) -> bool:
        """Whether a step of it was done."""
        return self.done > 0

    def eta_seconds(self) -> float | None:
        """Time left, by its pace or by the runs of this machine; None where nobody can tell."""
        return work.seconds_left() if (work := self._work) else self.row.seconds_left

    @property
    def runs(self) -> list[Run]:
        """The pictures it has made until now."""
        if work := self._work:
            return list(work.runs)
        return list(self._queue.engine.run_log.runs_by_id(self.row.run_ids))

    def cancel(self) -> None:
        self._queue.wish(self.id, CANCEL)

    def cancel_after(self) -> None:
        """Stop when the pictures that have begun are done."""
        self._queue.wish(self.id, CANCEL_AFTER)

    def pause(self) -> None:
        """Put it aside when the pictures that have begun are done."""
        self._queue.wish(self.id, PAUSE)

    def resume(self) -> None:
        self._queue.resume(self.id)

    def wait(self, seconds: float) -> bool:
        """Whether it stopped working within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.busy and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self.busy
