"""One queue of long work in a background thread, seen by every page and browser."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.chain import next_request
from pipelines.comparison import Comparison
from pipelines.engine import Engine
from pipelines.errors import PipelineError, RequestError
from pipelines.grid import new_comparison_id
from pipelines.measuring import measure, measure_timings, references_to_make
from pipelines.painting.result import Step
from pipelines.request import TO_COME, RunRequest
from pipelines.schedulers import expected_evaluations
from pipelines.tasks import Task, TaskList, outcome

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.log_tables import Run
    from pipelines.models.info import ModelInfo

KEPT = 50  # finished jobs that stay listed
PREVIEW_SECONDS = 0.4


@dataclass(eq=False)
class Job(Task):
    """Work in the queue, `result` when it ended well; times are seconds of time.monotonic()."""

    kind: str = ""
    work: Callable[[Job], Any] = lambda job: None
    key: Hashable = None
    preview: Image | None = None
    waits_for: str = ""  # what it waits for while it runs, '' for nothing
    result: Any = None
    started: float | None = None
    ended: float | None = None

    def cancel(self) -> None:
        """Ask it to stop: at once where it waits, else before its next network call."""
        self.stop.set()
        if self.status == "queued":
            self.status = "cancelled"
            self.finished.set()


class JobQueue:
    """Runs jobs one after the other in a daemon thread."""

    def __init__(self) -> None:
        self._jobs: TaskList[Job] = TaskList(KEPT)
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="contact-sheet-jobs", daemon=True).start()

    def submit(
        self, kind: str, title: str, total: int, work: Callable[[Job], Any], key: Hashable = None
    ) -> Job:
        """Add work; a `key` that an active job has returns that job, so a double click is one."""
        with self._jobs.lock:
            if key is not None:
                for job in self._jobs.active():
                    if not job.cancelling and job.key == key:
                        return job
            job = Job(self._jobs.next_id(), title, total, kind=kind, work=work, key=key)
            self._jobs.add(job)
        self._waiting.put(job)
        return job

    def get(self, job_id: int) -> Job | None:
        return self._jobs.get(job_id)

    def jobs(self) -> list[Job]:
        """All that are listed, the oldest first."""
        return self._jobs.all()

    def active(self) -> list[Job]:
        return self._jobs.active()

    def latest(self, kind: str) -> Job | None:
        """The newest job of a kind, running or not."""
        return self._jobs.newest(lambda job: job.kind == kind)

    def _work(self) -> None:
        while True:
            self._run(self._waiting.get())

    def _run(self, job: Job) -> None:
        job.started = time.monotonic()

        def work() -> None:
            job.check()
            job.status = "running"
            job.check()  # a cancel may have come between the two
            job.result = job.work(job)
            job.check()

        job.status, job.error = outcome(job.title, work)
        job.preview = None
        job.ended = time.monotonic()
        job.finished.set()


class _Progress:
    """Counts the steps of pictures that are made side by side; `costs` are their evaluations."""

    def __init__(self, job: Job, costs: Sequence[int]) -> None:
        self.job, self.costs = job, costs
        self._steps: dict[int, int] = {}
        self._ended = 0
        self._shown = 0.0

    def step(self, number: int, step: Step) -> None:
        """A picture's step; decodes a preview now and then. Raises Cancelled."""
        self.job.waits_for = ""
        self._steps[number] = min(self._steps.get(number, 0) + 1, self.costs[number])
        self._tell()
        if time.monotonic() - self._shown > PREVIEW_SECONDS and step.index < step.total:
            self.job.preview = step.preview() or self.job.preview
            self._shown = time.monotonic()

    def ended(self, number: int) -> None:
        """It is there: made now, or taken from the log, which costs nothing."""
        if self._steps.pop(number, None) is None:
            self.job.total -= self.costs[number]
            return
        self._ended += self.costs[number]
        self._tell()

    def _tell(self) -> None:
        self.job.advance(max(0, self._ended + sum(self._steps.values()) - self.job.done))


def _evaluations(request: RunRequest, describe: Callable[..., ModelInfo]) -> int:
    """Those of a run before it runs; `describe` is `Registry.describe`, or remembers it."""
    try:
        info = describe(request.model_id, request.revision, request.variant)
    except PipelineError:  # an unknown model; the run will say so
        return expected_evaluations(request.scheduler, request.steps_to_run)
    default = request.scheduler == "default"
    return expected_evaluations(info.default_scheduler if default else request.scheduler,
                                info.steps_to_run(request))


def _chain_evaluations(
    request: RunRequest, stages: Sequence[Mapping[str, Any]], engine: Engine
) -> int:
    """Those of a picture and of its further stages; raises what a stage would raise."""
    total = _evaluations(request, engine.registry.describe)
    for stage in stages:
        request = next_request(request, TO_COME, stage, engine.stage_info(request, stage))
        total += _evaluations(request, engine.registry.describe)
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
        progress = _Progress(job, costs)

        def on_run(run: Run) -> None:
            job.result.append(run)
            tell()

        def tell() -> None:
            if pictures > 1:
                job.message = f"{len(job.result)} of {pictures} pictures"

        tell()
        engine.chains(requests, stages, progress.step, on_run, parent_id, job.check)
        job.done = job.total
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
    describe = functools.cache(engine.registry.describe)
    costs = [0 if cell.left_out else _evaluations(cell.request, describe) for cell in cells]
    count = sum(not cell.left_out for cell in cells)
    comparison_id = resume or new_comparison_id()

    def work(job: Job) -> str:
        progress = _Progress(job, costs)
        ended: list[int] = []

        def on_cell(number: int, _run: Run) -> None:
            ended.append(number)
            progress.ended(number)
            job.message, job.waits_for = f"{len(ended)} of {count} cells", ""

        def on_wait(cells: int) -> None:
            job.waits_for = f"another process makes {cells} of them"

        engine.compare(comparison, progress.step, on_cell, comparison_id, shared, fresh=fresh,
                       check=job.check, on_wait=on_wait)
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
    requests = references_to_make(engine, comparison, runs, reference)
    describe = functools.cache(engine.registry.describe)
    total = len(runs) + sum(_evaluations(request, describe) for request in requests)

    def work(job: Job) -> str:
        engine.run_log.set_reference(comparison_id, reference)
        measure(engine, comparison, runs, reference, lambda _step: job.advance(), job.check)
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

        measure_timings(engine, runs, repeats, lambda _step: job.check(), on_done)
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
