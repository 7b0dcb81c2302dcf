"""One queue of long work in a background thread, seen by every page and browser."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.chain import next_request
from pipelines.comparison import Comparison
from pipelines.engine import Engine, new_comparison_id
from pipelines.errors import Cancelled, PipelineError, RequestError
from pipelines.painting.result import Step
from pipelines.request import RunRequest
from pipelines.schedulers import expected_evaluations

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.run_log import Run

logger = logging.getLogger(__name__)

ACTIVE = ("queued", "running")
KEPT = 50  # finished jobs that stay listed
PREVIEW_SECONDS = 0.4


@dataclass
class Job:
    """Work in the queue: `done` of `total` units, `result` when it ended well.

    `status`: queued, running, done, failed or cancelled; times are seconds of time.monotonic().
    """

    id: int
    kind: str
    title: str
    total: int
    work: Callable[[Job], Any]
    key: Hashable = None
    status: str = "queued"
    done: int = 0
    message: str = ""
    preview: Image | None = None
    result: Any = None
    error: str | None = None
    started: float | None = None
    first_step: float | None = None
    ended: float | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    _cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    @property
    def cancelling(self) -> bool:
        return self.active and self._cancel.is_set()

    def cancel(self) -> None:
        """Ask it to stop: at once where it waits, else before its next step."""
        self._cancel.set()
        if self.status == "queued":
            self.status = "cancelled"
            self.finished.set()

    def check(self) -> None:
        """Raise Cancelled where somebody asked for it; the work calls this between steps."""
        if self._cancel.is_set():
            raise Cancelled("stopped by the user")

    def advance(self, units: int = 1) -> None:
        self.check()
        self.first_step = self.first_step or time.monotonic()
        self.done = min(self.total, self.done + units)

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 0.0

    def eta_seconds(self) -> float | None:
        """Time left at the pace since the first step; None before there is one."""
        if self.first_step is None or self.done < 2:
            return None
        pace = (time.monotonic() - self.first_step) / (self.done - 1)
        return pace * (self.total - self.done)


class JobQueue:
    """Runs jobs one after the other in a daemon thread."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        threading.Thread(target=self._work, name="contact-sheet-jobs", daemon=True).start()

    def submit(
        self, kind: str, title: str, total: int, work: Callable[[Job], Any], key: Hashable = None
    ) -> Job:
        """Add work; a `key` that an active job has returns that job, so a double click is one."""
        with self._lock:
            if key is not None:
                for job in self._jobs.values():
                    if job.active and not job.cancelling and job.key == key:
                        return job
            job = Job(next(self._ids), kind, title, total, work, key)
            self._jobs[job.id] = job
            ended = [j for j in self._jobs.values() if not j.active]
            for old in ended[:-KEPT]:
                del self._jobs[old.id]
        self._waiting.put(job)
        return job

    def get(self, job_id: int) -> Job | None:
        return self._jobs.get(job_id)

    def jobs(self) -> list[Job]:
        """All that are listed, the oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def active(self) -> list[Job]:
        return [job for job in self.jobs() if job.active]

    def latest(self, kind: str) -> Job | None:
        """The newest job of a kind, running or not."""
        return next((job for job in reversed(self.jobs()) if job.kind == kind), None)

    def _work(self) -> None:
        while True:
            self._run(self._waiting.get())

    def _run(self, job: Job) -> None:
        job.started = time.monotonic()
        try:
            job.check()
            job.status = "running"
            job.check()  # a cancel may have come between the two
            job.result = job.work(job)
            job.status = "cancelled" if job._cancel.is_set() else "done"
        except Cancelled:
            job.status = "cancelled"
        except PipelineError as error:
            job.status, job.error = "failed", str(error)
        except Exception as error:
            logger.exception("job %s failed", job.title)
            job.status, job.error = "failed", f"{type(error).__name__}: {error}"
        job.preview = None
        job.ended = time.monotonic()
        job.finished.set()


def _watch(job: Job) -> Callable[[Step], None]:
    """Count steps, and decode a preview now and then."""
    last = 0.0

    def on_step(step: Step) -> None:
        nonlocal last
        job.advance()
        if time.monotonic() - last > PREVIEW_SECONDS and step.index < step.total:
            job.preview = step.preview() or job.preview
            last = time.monotonic()

    return on_step


def _evaluations(request: RunRequest, engine: Engine) -> int:
    with contextlib.suppress(PipelineError):  # an unknown model; the run will say so
        request = engine.registry.fill_in(request)
    return expected_evaluations(request.scheduler, engine.registry.steps_to_run(request))


def _chain_evaluations(
    request: RunRequest, stages: Sequence[Mapping[str, Any]], engine: Engine
) -> int:
    """Those of a picture and of its further stages; raises what a stage would raise."""
    total = _evaluations(request, engine)
    for stage in stages:
        request = next_request(request, "to come", stage, engine.stage_info(request, stage))
        total += _evaluations(request, engine)
    return total


def submit_generation(
    jobs: JobQueue,
    engine: Engine,
    requests: Sequence[RunRequest],
    stages: Sequence[Mapping[str, Any]] = (),
    kind: str = "generate",
    parent_id: int | None = None,
) -> Job:
    """Queue pictures, one run each, and the stages that follow each (`Engine.chain`); the job's
    result is the list of runs, growing as they end. `parent_id`: the run whose picture they start
    from."""
    requests = list(requests)
    costs = [_chain_evaluations(request, stages, engine) for request in requests]
    pictures = len(requests) * (1 + len(stages))

    def work(job: Job) -> list[Any]:
        job.result = []
        before = 0

        def tell() -> None:
            if pictures > 1:
                job.message = f"picture {min(len(job.result) + 1, pictures)} of {pictures}"

        def on_run(run: Run) -> None:
            job.result.append(run)
            tell()

        for number, request in enumerate(requests):
            tell()
            engine.chain(request, stages, _watch(job), on_run, parent_id)
            before += costs[number]
            job.done = before
            job.check()
        return job.result

    title = requests[0].prompt or requests[0].model_id
    key = (kind, repr(stages), *(request.model_dump_json() for request in requests))
    return jobs.submit(kind, title, sum(costs), work, key)


def submit_comparison(
    jobs: JobQueue,
    engine: Engine,
    comparison: Comparison,
    shared: bool = True,
    fresh: bool = False,
    resume: str | None = None,
) -> Job:
    """Queue a comparison; the job's result is its id in the run log. `resume`: the id of one that
    is gone on with."""
    cells = comparison.cells
    costs = [0 if cell.left_out else _evaluations(cell.request, engine) for cell in cells]
    count = sum(not cell.left_out for cell in cells)
    comparison_id = resume or new_comparison_id()

    def work(job: Job) -> str:
        watch = _watch(job)
        before, ended = 0, []

        def on_cell(number: int, _run: Run) -> None:
            nonlocal before
            ended.append(number)
            if job.first_step is None:  # taken from the log
                job.total -= costs[number]
            else:
                before += costs[number]
            job.done = max(job.done, before)
            job.message = f"{len(ended)} of {count} cells"

        def on_step(_number: int, step: Step | int) -> None:
            if isinstance(step, Step):
                watch(step)
            else:
                job.advance(step)

        engine.compare(comparison, on_step, on_cell, comparison_id, shared, fresh=fresh)
        return comparison_id

    title = comparison.base.prompt or "(no prompt)"
    key = ("compare", comparison.base.model_dump_json(), repr(comparison.axes), comparison.skip,
           shared, fresh, resume)
    job = jobs.submit("compare", title, sum(costs), work, key)
    job.result = job.result or comparison_id
    return job


def submit_measurement(
    jobs: JobQueue, engine: Engine, comparison_id: str, reference: str
) -> Job:
    """Queue the distances of a comparison's cells to a reference, which is logged with it."""
    comparison, runs = _of_log(engine, comparison_id)
    requests = engine.references_to_make(comparison, runs, reference)
    total = len(runs) + sum(_evaluations(request, engine) for request in requests)

    def work(job: Job) -> str:
        engine.run_log.set_reference(comparison_id, reference)
        engine.measure(comparison, runs, reference, _watch(job))
        job.done = job.total
        return comparison_id

    return _submit_for(jobs, "measure", comparison, comparison_id, total, work, reference)


def submit_timings(jobs: JobQueue, engine: Engine, comparison_id: str, repeats: int) -> Job:
    """Queue measured timings of a comparison's cells."""
    comparison, runs = _of_log(engine, comparison_id)
    made = {run.source_id: run for run in runs if run and run.status == "ok"}

    def work(job: Job) -> str:
        def on_done(done: int) -> None:
            job.advance()
            job.message = f"{done} of {job.total} runs"

        engine.measure_timings(runs, repeats, lambda _step: job.check(), on_done)
        return comparison_id

    total = repeats * len(made)
    return _submit_for(jobs, "timings", comparison, comparison_id, total, work, repeats)


def _of_log(engine: Engine, comparison_id: str) -> tuple[Comparison, list[Run | None]]:
    row = engine.run_log.comparison(comparison_id)
    if row is None:
        raise RequestError(f"comparison {comparison_id} is not in the log")
    comparison = Comparison.from_row(row)
    return comparison, comparison.match(engine.run_log.runs(comparison_id=comparison_id))


def _submit_for(
    jobs: JobQueue,
    kind: str,
    comparison: Comparison,
    comparison_id: str,
    total: int,
    work: Callable[[Job], Any],
    detail: Hashable,
) -> Job:
    title = comparison.base.prompt or "(no prompt)"
    job = jobs.submit(kind, title, total, work, (kind, comparison_id, detail))
    job.result = job.result or comparison_id
    return job
