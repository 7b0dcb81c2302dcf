"""The kinds of jobs: what asks for them, and what does them from their settings."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.chain import next_request
from pipelines.claims import waiting_text
from pipelines.comparison import Comparison, forecast
from pipelines.engine import Engine
from pipelines.errors import PipelineError, RequestError, first_line
from pipelines.exchange.work import do_export, do_import
from pipelines.grid import new_comparison_id
from pipelines.job_log import PAUSE, PAUSED
from pipelines.log_tables import ComparisonRow, Run
from pipelines.measuring import measure, measure_timings, references_to_make
from pipelines.painting.result import Step
from pipelines.queue import Job, JobQueue, Work
from pipelines.references import made_here, some_made_here
from pipelines.request import TO_COME, RunRequest
from pipelines.schedulers import expected_evaluations
from pipelines.study.conduct import conduct
from pipelines.study.design import Study, keep, logged_study
from pipelines.study.outlook import cost

if TYPE_CHECKING:
    from pipelines.models.info import ModelInfo

PREVIEW_SECONDS = 0.4


def open_queue(engine: Engine, resume: bool = False, work: bool = True) -> JobQueue:
    """The queue of an engine's data folder; `resume`: what was interrupted goes on; without `work`
    it is only looked at."""
    return JobQueue(engine, KINDS, resume, work)


class _Progress:
    """Counts the steps of pictures that are made side by side; `costs` are their evaluations."""

    def __init__(self, work: Work, costs: Sequence[int], before: int = 0) -> None:
        self.work, self.costs = work, costs
        self._steps: dict[int, int] = {}
        self._ended = before
        self._shown = 0.0

    def step(self, number: int, step: Step) -> None:
        """A picture's step; decodes a preview now and then. Raises Cancelled."""
        self.work.waits_for = ""
        self._steps[number] = min(self._steps.get(number, 0) + 1, self.costs[number])
        self._tell()
        if time.monotonic() - self._shown > PREVIEW_SECONDS and step.index < step.total:
            self.work.preview = step.preview() or self.work.preview
            self._shown = time.monotonic()

    def ended(self, number: int) -> None:
        """It is there: made now, or taken from the log, which costs nothing."""
        if self._steps.pop(number, None) is None:
            self.work.total -= self.costs[number]
            return
        self._ended += self.costs[number]
        self._tell()

    def _tell(self) -> None:
        self.work.advance(max(0, self._ended + sum(self._steps.values()) - self.work.done))


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


def _seconds(
    requests: Sequence[RunRequest], engine: Engine, shared: bool = True
) -> float | None:
    return forecast(requests, engine.run_log, engine.registry, shared).seconds


# --- pictures


def submit_generation(
    jobs: JobQueue,
    requests: Sequence[RunRequest],
    stages: Sequence[Mapping[str, Any]] = (),
    kind: str = "generate",
    parent_id: int | None = None,
    **asked: str,
) -> Job:
    """Queue pictures, one run each, and the stages that follow each (`Engine.chain`). `parent_id`:
    the run whose picture they start from; `asked`: who asks (`JobQueue.submit`)."""
    costs = [_chain_evaluations(request, stages, jobs.engine) for request in requests]
    settings = {"requests": [request.model_dump(mode="json") for request in requests],
                "stages": [dict(stage) for stage in stages], "parent_id": parent_id}
    return jobs.submit(kind, requests[0].prompt or requests[0].model_id, sum(costs), settings,
                       seconds=None if stages else _seconds(requests, jobs.engine), **asked)


def _generate(work: Work, settings: Mapping[str, Any]) -> None:
    """Make the pictures that the log has not got from an earlier try of this job."""
    engine = work.engine
    with _readable(work):
        requests = [RunRequest(**request) for request in settings["requests"]]
        stages, parent_id = [dict(stage) for stage in settings["stages"]], settings["parent_id"]
        work.total = sum(_chain_evaluations(request, stages, engine) for request in requests)
    pictures = len(requests) * (1 + len(stages))

    def tell() -> None:
        if pictures > 1:
            work.message = f"{len(work.runs)} of {pictures} pictures"

    def on_run(run: Run) -> None:
        work.made(run)
        tell()

    tell()
    # Where each chain goes on: stage -> the requests that are next there, with their parents.
    there = _made_before(work)
    left: dict[tuple[int, int | None], list[RunRequest]] = {}
    for request in requests:
        parent, stage = parent_id, 0
        while stage <= len(stages) and (run := _pop(engine, there, request, parent)):
            on_run(run)
            work.total -= _evaluations(request, engine.registry.describe)
            parent, stage = run.id, stage + 1
            if stage <= len(stages):
                request = engine.following(run, stages[stage - 1])
        if stage <= len(stages):
            left.setdefault((stage, parent), []).append(request)
    for (stage, parent), following in left.items():
        costs = [_chain_evaluations(request, stages[stage:], engine) for request in following]
        progress = _Progress(work, costs, work.done)
        engine.chains(following, stages[stage:], progress.step, on_run, parent, work.check_further)
    work.done = work.total


def _made_before(work: Work) -> dict[str, list[Run]]:
    """The pictures that were made since a job was asked for, by what they were made of."""
    there: dict[str, list[Run]] = {}
    for run in work.engine.run_log.made_after(work.row.after_run):
        if run.identity and work.engine.pictures.whole(run.image_sha256):
            there.setdefault(run.identity, []).append(run)
    return there


def _pop(
    engine: Engine, there: dict[str, list[Run]], request: RunRequest, parent_id: int | None
) -> Run | None:
    """The picture of a request and a parent, which is then no other's."""
    if not there:
        return None
    with contextlib.suppress(PipelineError):  # its run will say what is wrong
        runs = there.get(engine.identity(request), [])
        for run in runs:
            if run.parent_id == parent_id:
                runs.remove(run)
                return run
    return None


# --- comparisons


def submit_comparison(
    jobs: JobQueue,
    comparison: Comparison,
    shared: bool = True,
    fresh: bool = False,
    resume: str | None = None,
    **asked: str,
) -> Job:
    """Queue a comparison, whose id in the run log is the job's `comparison_id`. `resume`: the id of
    one that is gone on with; `asked`: who asks (`JobQueue.submit`)."""
    settings = {"base": comparison.base.model_dump(mode="json"),
                "axes": [axis.as_dict() for axis in comparison.axes],
                "skip": list(comparison.skip), "shared": shared, "fresh": fresh}
    costs = _cell_costs(comparison, jobs.engine)
    seconds = _seconds([cell.request for cell in comparison.cells if not cell.left_out],
                       jobs.engine, shared)
    comparison_id = resume or new_comparison_id()
    return jobs.submit("compare", comparison.base.prompt or "(no prompt)", sum(costs), settings,
                       comparison_id=comparison_id, seconds=seconds, same=[settings, resume],
                       **asked)


def _cell_costs(comparison: Comparison, engine: Engine) -> list[int]:
    describe = functools.cache(engine.registry.describe)
    return [0 if cell.left_out else _evaluations(cell.request, describe)
            for cell in comparison.cells]


def _compare(work: Work, settings: Mapping[str, Any]) -> None:
    """Make the cells that the comparison has not got."""
    engine, comparison_id = work.engine, work.row.comparison_id
    with _readable(work):
        row = ComparisonRow(id=comparison_id, datetime_utc="", base=settings["base"],
                            axes=settings["axes"], skip=settings["skip"])
        comparison = Comparison.from_row(row)
        shared, fresh = bool(settings["shared"]), bool(settings["fresh"])
    count = sum(not cell.left_out for cell in comparison.cells)
    costs = _cell_costs(comparison, engine)
    work.total = sum(costs)
    progress, ended = _Progress(work, costs), []

    def on_cell(number: int, _run: Run) -> None:
        ended.append(number)
        progress.ended(number)
        work.message, work.waits_for = f"{len(ended)} of {count} cells", ""

    def on_wait(cells: int) -> None:
        work.waits_for = waiting_text(cells)

    engine.compare(comparison, progress.step, on_cell, comparison_id, shared, fresh=fresh,
                   check=work.check_further, on_wait=on_wait)
    if len(ended) == count:
        work.done, work.wish = work.total, ""  # a wish that came too late
        return
    if work.wish == PAUSE:
        engine.run_log.set_status(comparison_id, PAUSED)
    work.check_further()


# --- studies


def submit_study(jobs: JobQueue, study: Study, **asked: str) -> Job:
    """Queue a study, or the rest of one; it is in the log from now on."""
    keep(jobs.engine.run_log, study)
    expected = cost(jobs.engine, study)[0]
    title = f"{len(study.methods)} methods, {len(study.prompts)} prompts"
    return jobs.submit("study", title, max(1, expected.nfe), {"study_id": study.id},
                       seconds=expected.seconds, **asked)


def _study(work: Work, settings: Mapping[str, Any]) -> None:
    engine = work.engine
    with _readable(work):
        study = logged_study(engine.run_log, str(settings["study_id"]))
        work.total = max(1, cost(engine, study)[0].nfe)
    count, ended = len(study.methods) * len(study.prompts) * len(study.seeds), []
    work.done = 0

    def on_cell(run: Run) -> None:
        ended.append(run.id)
        work.message, work.waits_for = f"{len(ended)} of {count} cells", ""

    def on_wait(cells: int) -> None:
        work.waits_for = waiting_text(cells)

    conduct(engine, study, lambda _step: work.advance(), on_cell, work.check_further, on_wait)
    work.check_further()
    work.done = work.total


# --- a network that a lesson trains


def submit_training(jobs: JobQueue, seed: int, steps: int, **asked: str) -> Job:
    """Queue a training of the lesson 'Train your own', or the rest of one that stopped."""
    return jobs.submit("train", f"a DDPM on points, seed {seed}", steps,
                       {"seed": seed, "steps": steps}, **asked)


def _train(work: Work, settings: Mapping[str, Any]) -> None:
    from pipelines.lessons.training import Training, checkpoint, train

    with _readable(work):
        seed, steps = int(settings["seed"]), int(settings["steps"])
    work.total = steps

    def on_steps(training: Training) -> None:
        work.message = f"{training.step} of {steps} steps"
        work.advance(training.step - work.done)
        work.check_further()

    train(checkpoint(work.engine.home, seed), seed, steps, on_steps)
    work.done = work.total


# --- what is measured of a comparison


def submit_measurement(
    jobs: JobQueue, comparison_id: str, reference: str, **asked: str
) -> Job:
    """Queue the distances of a comparison's cells to a reference, which is logged with it."""
    comparison, runs = _of_log(jobs.engine, comparison_id)
    requests = references_to_make(jobs.engine, comparison, runs, reference)
    return jobs.submit("measure", comparison.base.prompt or "(no prompt)",
                       _measure_units(jobs.engine, runs, requests), {"reference": reference},
                       comparison_id=comparison_id, same=[comparison_id, reference],
                       seconds=_seconds(requests, jobs.engine), **asked)


def _measure_units(
    engine: Engine, runs: Sequence[Run | None], requests: Sequence[RunRequest]
) -> int:
    """A cell's distance counts as one, a reference that must be made as its evaluations."""
    describe = functools.cache(engine.registry.describe)
    return len(runs) + sum(_evaluations(request, describe) for request in requests)


def _measure(work: Work, settings: Mapping[str, Any]) -> None:
    engine, comparison_id = work.engine, work.row.comparison_id
    with _readable(work):
        reference = str(settings["reference"])
        comparison, runs = _of_log(engine, comparison_id)
        work.total = _measure_units(
            engine, runs, references_to_make(engine, comparison, runs, reference))
    engine.run_log.set_reference(comparison_id, reference)
    measure(engine, comparison, runs, reference, lambda _step: work.advance(), work.check_further)
    work.done = work.total


def submit_timings(
    jobs: JobQueue, comparison_id: str, repeats: int, **asked: str
) -> Job:
    """Queue measured timings of a comparison's cells."""
    comparison, runs = _of_log(jobs.engine, comparison_id)
    requests = [run.valid_request() for run in some_made_here(runs, "measure: timings")]
    seconds = _seconds(requests, jobs.engine, False)
    return jobs.submit("timings", comparison.base.prompt or "(no prompt)",
                       repeats * _count_made(runs), {"repeats": repeats},
                       comparison_id=comparison_id, same=[comparison_id, repeats],
                       seconds=seconds and seconds * repeats, **asked)


def _count_made(runs: Sequence[Run | None]) -> int:
    return len({run.source_id for run in made_here(runs)})


def _time(work: Work, settings: Mapping[str, Any]) -> None:
    with _readable(work):
        repeats = int(settings["repeats"])
        _comparison, runs = _of_log(work.engine, work.row.comparison_id)
    work.total, work.done = repeats * _count_made(runs), work.row.done

    def on_done(done: int) -> None:
        work.done = done - 1
        work.message = f"{done} of {work.total} runs"
        work.advance()
        work.save()
        work.check_further()

    measure_timings(work.engine, runs, repeats, lambda _step: work.check(), on_done,
                    begin=work.row.done)


def _of_log(engine: Engine, comparison_id: str) -> tuple[Comparison, list[Run | None]]:
    row = engine.run_log.comparison(comparison_id)
    if row is None:
        raise RequestError(f"comparison {comparison_id} is not in the log")
    comparison = Comparison.from_row(row)
    return comparison, comparison.match(engine.run_log.runs(comparison_id=comparison_id))


@contextlib.contextmanager
def _readable(work: Work):
    """Settings are read within: what is wrong with them is a RequestError that names the job."""
    where = f"job {work.id} ({work.row.kind}) cannot be read by this version"
    try:
        yield
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from error
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise RequestError(f"{where}: its settings are not what it takes ({first_line(error)})"
                           ) from error


KINDS = {"generate": _generate, "inpaint": _generate, "compare": _compare, "measure": _measure,
         "timings": _time, "study": _study, "export": do_export, "import": do_import,
         "train": _train}
