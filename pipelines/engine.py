"""The engine: runs requests and comparisons on shared models and logs every one of them."""

from __future__ import annotations

import contextlib
import functools
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.chain import next_request
from pipelines.clip import Clip, find_clip
from pipelines.comparison import Cell, Comparison, work_order
from pipelines.errors import Cancelled, PipelineError, RequestError, StorageError
from pipelines.fields import PICTURES
from pipelines.hardware import default_dtype, environment
from pipelines.inpainting.canvas import changed_unmasked_pixels
from pipelines.measurement import CONVERGED, converged_request, distance, reference_cells
from pipelines.models.identity import identity, lora_contents, model_content
from pipelines.models.info import ModelInfo
from pipelines.models.loaded import LoadedModel
from pipelines.models.placement import free_memory
from pipelines.models.registry import Registry
from pipelines.painting.execution import as_usual, check_execution
from pipelines.painting.generation import generate, generate_seeds, is_out_of_memory, takes_seeds
from pipelines.painting.previews import draw_strip
from pipelines.painting.resolve import fit, resolve
from pipelines.painting.result import OnStep, RunResult, Step
from pipelines.request import RunRequest
from pipelines.run_log import (
    ComparisonRow,
    Distance,
    Run,
    RunLog,
    Timing,
    TimingSummary,
    data_home,
    utc_now,
)
from pipelines.schedulers import make_scheduler
from pipelines.stores import LatentStore, PictureStore

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

# Pictures of one call that differ in their seed only; they appear together, so it is not to last.
MOST_SEEDS, SEEDS_SECONDS = 8, 10.0


@dataclass
class _Work:
    """A comparison that is being made; `runs` fills up."""

    comparison_id: str
    cells: list[Cell]
    runs: list[Run | None]
    on_step: Callable[[int, Any], None] | None
    on_cell: Callable[[int, Run], None] | None

    def missing(self, like: int | None = None) -> list[int]:
        """The cells to make, in the order of work; only those that differ in their seed at most
        from the cell `like`."""
        return [number for number in self._order if not self.runs[number]
                and (like is None or self._without_seed[number] == self._without_seed[like])]

    @functools.cached_property
    def _order(self) -> list[int]:
        return work_order(self.cells)

    @functools.cached_property
    def _without_seed(self) -> list[str]:
        return [cell.request.model_dump_json(exclude={"seed"}) for cell in self.cells]

    def watch(self, number: int) -> Callable[[Any], None] | None:
        return self.on_step and functools.partial(self.on_step, number)

    def ended(self, number: int, run: Run) -> None:
        self.runs[number] = run
        if self.on_cell:
            self.on_cell(number, run)


class Engine:
    """Registry, run log and picture store of one data folder."""

    def __init__(self, home: Path | None = None, device: str | None = None) -> None:
        self.home = home or data_home()
        self.run_log = RunLog(self.home)
        self.pictures = PictureStore(self.home / "pictures")
        self.latents = LatentStore(self.home / "latents")
        self.registry = Registry(device)

    def check(self, request: RunRequest) -> RunRequest:
        """The request as it would run, before it runs; raises what would make it fail."""
        info = self.registry.describe(request.model_id, request.revision, request.variant)
        request, config = resolve(request, info), info.original_scheduler_config
        check_execution(request, info, self.registry.device)
        if request.scheduler != "default":
            make_scheduler(request.scheduler, config, request.scheduler_options)
        return request

    def identity(self, request: RunRequest, known: dict[tuple, Any] | None = None) -> str:
        """The identity of a request, were it to run now; `known` remembers models between calls.

        Raises what would make the request fail.
        """
        info, content, loras = self._model(request, {} if known is None else known)
        device = self.registry.device
        dtype = request.torch_dtype or default_dtype(device)
        request = resolve(request, info, self._images(request).get("image"))
        return identity(request, content, loras, device, dtype)

    def _model(
        self, request: RunRequest, known: dict[tuple, Any]
    ) -> tuple[ModelInfo, str, tuple[str, ...]]:
        """A request's model and the contents of its files and adapters, read once per `known`."""
        key = tuple(request.weights.values())
        if key not in known:
            info = self.registry.describe(request.model_id, request.revision, request.variant)
            known[key] = info, model_content(info), lora_contents(request.loras)
        return known[key]

    def _images(self, request: RunRequest) -> dict[str, Image]:
        """The pictures that a request names, from the store; raises StorageError."""
        return {name: self.pictures.get(sha) for name in PICTURES
                if (sha := getattr(request, name))}

    def run(
        self,
        request: RunRequest,
        on_step: OnStep | None = None,
        comparison_id: str | None = None,
        axes: dict[str, Any] | None = None,
        parent_id: int | None = None,
        keep_latents: bool = False,
    ) -> Run:
        """Make one picture and log it; a failure or a cancel is a row too, and is returned.

        The final latents of a comparison's cells are kept. Only StorageError is raised: then there
        is no row to return.
        """
        outcome: RunResult | Exception
        model, steps = None, {}
        try:
            images = self._images(request)
            with self.registry.borrow(**request.weights) as (model, fresh):
                request = resolve(request, model.info, images.get("image"))
                images = fit(request, images)
                outcome = generate(model, request, images, on_step, model.load_ms * fresh)
                steps = self._draw_steps(model, outcome)
        except Exception as error:
            outcome = error
        return self._log(
            request, outcome, model, comparison_id, axes, steps, parent_id, keep_latents
        )

    def chain(
        self,
        first: RunRequest,
        stages: Sequence[Mapping[str, Any]],
        on_step: OnStep | None = None,
        on_run: Callable[[Run], None] | None = None,
        parent_id: int | None = None,
    ) -> list[Run]:
        """A picture and what further stages make of it, each a run that names its parent;
        `parent_id` is the first one's.

        `stages` hold what changes (`chain.next_request`). A stage that does not end well is the
        last. Raises RequestError, UnknownModelError or LoadError before the first stage.
        """
        for stage in stages:
            self.stage_info(first, stage)
        runs = [self.run(first, on_step, parent_id=parent_id)]
        for stage in stages:
            if on_run:
                on_run(runs[-1])
            if runs[-1].status != "ok":
                return runs
            before, image = RunRequest(**runs[-1].request), runs[-1].image_sha256
            request = next_request(before, image, stage, self.stage_info(before, stage))
            runs.append(self.run(request, on_step, parent_id=runs[-1].id))
        if on_run:
            on_run(runs[-1])
        return runs

    def stage_info(self, before: RunRequest, stage: Mapping[str, Any]) -> ModelInfo:
        """The model of a stage; raises RequestError where it takes no picture."""
        info = self.registry.describe(stage.get("model_id", before.model_id),
                                      stage.get("revision"), stage.get("variant"))
        if "image-to-image" not in info.tasks:
            raise RequestError(f"then: {info.model_id} ({info.pipeline_class}) takes no picture as "
                               f"its input; it does {', '.join(info.tasks)}")
        return info

    def _log(
        self,
        request: RunRequest,
        outcome: RunResult | Exception,
        model: LoadedModel | None,
        comparison_id: str | None,
        axes: dict[str, Any] | None,
        steps: dict[str, Any] | None = None,
        parent_id: int | None = None,
        keep_latents: bool = False,
    ) -> Run:
        """Write the row of a run that ended, however it ended."""
        status, error, measured = "ok", None, {}
        if model:
            measured = {"device": model.device, "dtype": model.dtype,
                        "environment": environment(model.device)}
        try:
            if isinstance(outcome, Exception):
                raise outcome
            asked, request = request, outcome.request
            measured |= self._measurements(outcome) | (steps or {})
            measured["identity"] = identity(
                asked, model.content, model.lora_contents, model.device, model.dtype
            )
            if (comparison_id or keep_latents) and outcome.latents is not None:
                measured["latents_sha256"] = self.latents.put(outcome.latents)
        except Cancelled:
            status = "cancelled"
        except PipelineError as problem:
            status, error = "failed", str(problem)
        except Exception as problem:
            logger.exception("a run failed: %s", request.model_dump_json())
            status, error = "failed", f"{type(problem).__name__}: {problem}"
        columns = ("model_id", "task", "prompt", "negative_prompt", "scheduler", "seed",
                   "num_inference_steps", "guidance_scale", "height", "width")
        run = Run(
            datetime_utc=utc_now(),
            status=status,
            error=error,
            comparison_id=comparison_id,
            axes=axes or {},
            parent_id=parent_id,
            request=request.model_dump(mode="json"),
            **({name: getattr(request, name) for name in columns} | measured),
        )
        self.run_log.add(run)
        return run

    def compare(
        self,
        comparison: Comparison,
        on_step: Callable[[int, Any], None] | None = None,
        on_cell: Callable[[int, Run], None] | None = None,
        comparison_id: str | None = None,
        shared: bool = False,
        reference: str | None = None,
        fresh: bool = False,
    ) -> list[Run | None]:
        """Make the cells; one result per cell, None where a rule leaves it out or a cancel came
        first.

        A cell that the log holds already, made of exactly the same, is taken from there unless
        `fresh` is asked for. A `comparison_id` of the log is gone on with where it stopped: what
        was made of the same is kept, failed cells are tried again. `on_step(cell_number, step)`
        may raise Cancelled: what is done stays. A failed cell does not stop the others. `shared`:
        cells share their UNet calls where the pipeline allows it, which is faster and gives the
        same pictures; their times are shares then, and `step` is the number of evaluations since
        the last call. `reference` is logged; measure() uses it.
        """
        if reference and reference != CONVERGED:
            reference_cells(comparison, reference)
        comparison_id = comparison_id or new_comparison_id()
        cells = comparison.cells
        own: list[Run | None] = [None] * len(cells)
        if self.run_log.comparison(comparison_id):
            self.run_log.begin_again(comparison_id)
            own = comparison.match(self.run_log.runs(comparison_id=comparison_id, status="ok"))
        else:
            self.run_log.add(
                ComparisonRow(
                    id=comparison_id,
                    datetime_utc=utc_now(),
                    base=comparison.base.model_dump(mode="json"),
                    axes=[axis.as_dict() for axis in comparison.axes],
                    skip=list(comparison.skip),
                    reference=reference,
                )
            )
        runs: list[Run | None] = [None] * len(cells)
        work = _Work(comparison_id, cells, runs, on_step, on_cell)
        status = "cancelled"
        try:
            for number, run in self._from_log(cells, own, fresh):
                if run is not own[number]:
                    run = run.copy_for(comparison_id, cells[number].axes)
                    self.run_log.add(run)
                work.ended(number, run)
            if shared:
                self._share(work)
            for number in work.missing():
                if runs[number]:  # came with another's seeds
                    continue
                cell = cells[number]
                run = self.run(cell.request, work.watch(number), comparison_id, cell.axes)
                if run.status == "cancelled":
                    return runs
                work.ended(number, run)
                if shared and run.status == "ok":
                    self._run_seeds(work, number)
            status = "done"
        except Cancelled:
            pass
        finally:
            self.run_log.finish_comparison(comparison_id, status)
        return runs

    def _from_log(
        self, cells: Sequence[Cell], own: Sequence[Run | None], fresh: bool = False
    ) -> Iterator[tuple[int, Run]]:
        """Cells that need not be made, with their runs: `own` where it was made of the same, else
        another run of the log unless `fresh`."""
        known: dict[tuple, Any] = {}
        wanted: dict[int, str] = {}
        for number, cell in enumerate(cells):
            if not cell.left_out:
                with contextlib.suppress(PipelineError):  # its run will say what is wrong
                    wanted[number] = self.identity(cell.request, known)
        logged = {} if fresh else self.run_log.of_identities(set(wanted.values()))
        for number, one in wanted.items():
            mine = own[number]
            if mine and mine.identity == one and self._complete(mine):
                yield number, mine
            elif run := next(filter(self._complete, logged.get(one, [])), None):
                yield number, run

    def in_log(self, comparison: Comparison) -> list[int]:
        """The numbers of the cells that compare() would take from the log."""
        cells = comparison.cells
        return [number for number, _ in self._from_log(cells, [None] * len(cells))]

    def measure(
        self,
        comparison: Comparison,
        runs: Sequence[Run | None],
        reference: str,
        on_step: OnStep | None = None,
    ) -> list[Distance | None]:
        """Each cell's distance to its reference, measured once and kept in the log.

        `reference` is 'converged' or a cell (see measurement.py). The converged pictures are runs
        of the log; those that are missing are made, and `on_step` may raise Cancelled. None for a
        cell, or a reference, that has no picture, and for a cell whose model has changed since.
        Raises RequestError for an unknown cell, or a model that runs no solver that converges.
        """
        known = self.distances(comparison, runs, reference)
        clip = find_clip(self.registry.device)
        missing = [number for number, one in enumerate(known)
                   if one is None or (clip and one.clip_model != clip.name)]
        if reference != CONVERGED:
            cells = reference_cells(comparison, reference)
            for number in missing:
                _tell(on_step, number, runs)
                found = self._distance(runs[number], runs[cells[number]], clip)
                known[number] = found or known[number]
            return known
        models: dict[tuple, Any] = {}
        floor = self._floor_pair(runs)
        for number, request in self._converged(missing, runs, models).items():
            made = self._make_once(request, models, on_step)
            _tell(on_step, number, runs)
            known[number] = self._distance(runs[number], made, clip) or known[number]
        if (floor and not self.floor(runs) and self._unchanged(floor[0], models)
                and self._solvable(floor[0], models)):
            half, whole = (self._make_once(request, models, on_step) for request in floor[1:])
            self._distance(half, whole)
        return known

    def distances(
        self, comparison: Comparison, runs: Sequence[Run | None], reference: str
    ) -> list[Distance | None]:
        """What measure() has found already; nothing is computed."""
        logged: dict[int, list[tuple[Distance, Run]]] = {}
        for found in self.run_log.distances({run.source_id for run in runs if run}):
            logged.setdefault(found[0].run_id, []).append(found)
        if reference == CONVERGED:
            return [_to_converged(run, logged.get(run.source_id, [])) if run else None
                    for run in runs]
        others = [runs[number] for number in reference_cells(comparison, reference)]
        return [next((distance for distance, made in logged.get(run.source_id, [])
                      if made.id == other.source_id), None) if run and other else None
                for run, other in zip(runs, others, strict=True)]

    def clip_scores(self, runs: Sequence[Run | None]) -> list[Distance | None]:
        """For each run a row with what CLIP said of it and its prompt, whatever it was measured
        against; None where it was not asked."""
        found = {one.run_id: one for one, _ in
                 self.run_log.distances({run.source_id for run in runs if run})
                 if one.clip_score is not None}
        return [found.get(run.source_id) if run else None for run in runs]

    def references_to_make(
        self, comparison: Comparison, runs: Sequence[Run | None], reference: str
    ) -> list[RunRequest]:
        """The converged pictures, and the one that tells their error, that measure() would make."""
        if reference != CONVERGED:
            return []
        models: dict[tuple, Any] = {}
        known = self.distances(comparison, runs, reference)
        missing = [number for number, one in enumerate(known) if one is None]
        wanted = list(self._converged(missing, runs, models).values())
        floor = self._floor_pair(runs)
        if (floor and not self.floor(runs) and self._unchanged(floor[0], models)
                and self._solvable(floor[0], models)):
            wanted += floor[1:]
        distinct = {request.model_dump_json(): request for request in wanted}
        return [request for request in distinct.values() if not self._logged(request, models)]

    def floor(self, runs: Sequence[Run | None]) -> float:
        """The converged picture's own error in latents (RMS), 0 where it was not measured: its
        distance to the same solver with half the steps, for the first cell."""
        pair = self._floor_pair(runs)
        if pair is None:
            return 0.0
        run, half, whole = pair
        for _, reference in self.run_log.distances([run.source_id]):
            if _made_of(reference, whole):
                for distance, made in self.run_log.distances_to(reference.id):
                    if _made_of(made, half):
                        return distance.rms_latents or 0.0
        return 0.0

    def _floor_pair(
        self, runs: Sequence[Run | None]
    ) -> tuple[Run, RunRequest, RunRequest] | None:
        """The first cell's run, its reference with half the steps, and with all of them."""
        run = next((run for run in runs if run and run.status == "ok"), None)
        if run is None:
            return None
        whole = converged_request(RunRequest(**run.request))
        return run, whole.changed(num_inference_steps=whole.num_inference_steps // 2), whole

    def _unchanged(self, run: Run | None, models: dict[tuple, Any]) -> bool:
        """Whether a run would make the same picture now."""
        if run is None or run.status != "ok":
            return False
        request = RunRequest(**run.request)
        own_size = request.changed(height=None, width=None)  # where only the pipeline knew it
        with contextlib.suppress(PipelineError):  # the model is gone
            return run.identity in (self.identity(request, models),
                                    self.identity(own_size, models))
        return False

    def _converged(
        self, numbers: Sequence[int], runs: Sequence[Run | None], models: dict[tuple, Any]
    ) -> dict[int, RunRequest]:
        """Cell numbers -> the requests of their converged pictures, without cells whose model has
        changed since. RequestError where no model of theirs runs the solver."""
        unchanged = [number for number in numbers if self._unchanged(runs[number], models)]
        found = {number: request for number in unchanged
                 if (request := self._solvable(runs[number], models))}
        if unchanged and not found:
            request = RunRequest(**runs[unchanged[0]].request)
            info = self._model(request, models)[0]
            own = ", ".join(one.key for one in info.schedulers) or "its own scheduler"
            raise RequestError(f"reference: received {CONVERGED!r}, but {info.model_id} "
                               f"({info.pipeline_class}) runs {own} only; accepted a cell")
        return found

    def _solvable(self, run: Run, models: dict[tuple, Any]) -> RunRequest | None:
        """The request of a run's converged picture; None where its model runs no such solver."""
        request = converged_request(RunRequest(**run.request))
        fitting = self._model(request, models)[0].schedulers
        return request if any(request.scheduler == one.key for one in fitting) else None

    def _make_once(
        self, request: RunRequest, models: dict[tuple, Any], on_step: OnStep | None
    ) -> Run:
        """A run with its latents, from the log or made now; raises Cancelled."""
        run = self._logged(request, models) or self.run(request, on_step, keep_latents=True)
        if run.status == "cancelled":
            raise Cancelled("stopped by the user")
        return run

    def _distance(
        self, run: Run | None, reference: Run | None, clip: Clip | None = None
    ) -> Distance | None:
        """Measured and logged; None where a picture is missing."""
        if not (run and reference and run.image_sha256 and reference.image_sha256):
            return None
        with contextlib.suppress(StorageError):  # a file is gone
            found = distance(run, reference, self.pictures, self.latents, clip)
            self.run_log.keep_distance(found)
            return found
        return None

    def _logged(self, request: RunRequest, models: dict[tuple, Any]) -> Run | None:
        """The newest run of the log that made just this and whose files are still there."""
        wanted = self.identity(request, models)
        logged = self.run_log.of_identities([wanted]).get(wanted, [])
        return next(filter(self._complete, logged), None)

    def _complete(self, run: Run) -> bool:
        """Whether picture and latents are there; some pipelines have no latents to keep."""
        latents = run.latents_sha256
        has_latents = self.latents.path(latents).exists() if latents else run.comparison_id
        return bool(has_latents) and self.pictures.path(run.image_sha256).exists()

    def measure_timings(
        self,
        runs: Sequence[Run | None],
        repeats: int,
        on_step: Callable[[Step], None] | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> None:
        """Make these runs again, each apart and `repeats` times, and log how long they took.

        Models one after the other; within a model in turns, each turn starting with another cell,
        so that a slow minute falls on all of them; after warm-up. `on_step` may raise Cancelled;
        `on_done(number of runs)` is called after each. Runs whose model has changed since are left
        out: their times would be another model's.
        """
        groups: dict[tuple, dict[int, Run]] = {}
        for run in runs:
            if run and run.status == "ok":
                weights = RunRequest(**run.request).weights
                groups.setdefault(tuple(weights.values()), {})[run.source_id] = run
        done, models = 0, {}
        for group in groups.values():
            members = list(group.values())
            requests = [RunRequest(**run.request) for run in members]
            same = [self._unchanged(run, models) for run in members]
            for turn in range(repeats):
                for place in range(len(members)):
                    place = (place + turn) % len(members)
                    if same[place]:
                        self._time(members[place].source_id, requests[place], on_step)
                    done += 1
                    if on_done:
                        on_done(done)

    def _time(
        self, run_id: int, request: RunRequest, on_step: Callable[[Step], None] | None
    ) -> None:
        images = self._images(request)
        with self.registry.borrow(**request.weights) as (model, _):
            request = resolve(request, model.info, images.get("image"))
            timings = generate(model, request, fit(request, images), on_step).timings
        names = ("text_encoding", "denoising", "decoding", "total")
        self.run_log.add(Timing(run_id=run_id, datetime_utc=utc_now(),
                                **{f"{name}_ms": getattr(timings, name) for name in names}))

    def timings(self, runs: Sequence[Run | None]) -> list[TimingSummary | None]:
        """What was measured of these runs; None where nothing was."""
        known = self.run_log.timings([run.source_id for run in runs if run])
        return [known.get(run.source_id) if run else None for run in runs]

    def _share(self, work: _Work) -> None:
        """Fill in the runs of cells that can share their UNet calls, group by group."""
        from pipelines.painting.shared import fits, generate_shared

        cells, groups = work.cells, {}
        for number in work.missing():
            r = cells[number].request
            key = (*r.weights.values(), r.task, r.height, r.width, as_usual(r))
            groups.setdefault(key, []).append(number)
        for numbers in groups.values():
            try:
                weights = cells[numbers[0]].request.weights
                with self.registry.borrow(**weights) as (model, fresh):
                    if len(numbers) < 2 or not fits(model, cells[numbers[0]].request):
                        continue
                    first = cells[numbers[0]].request
                    images = self._images(first)
                    requests = [resolve(cells[n].request, model.info, images.get("image"))
                                for n in numbers]
                    images = fit(requests[0], images)
                    results: list[tuple[Run, RunResult]] = []

                    def on_result(
                        place: int, outcome: RunResult | PipelineError, numbers=numbers,
                        requests=requests, model=model, results=results,
                    ) -> None:  # fmt: skip
                        number = numbers[place]
                        run = self._log(requests[place], outcome, model, work.comparison_id,
                                        cells[number].axes)
                        if isinstance(outcome, RunResult):
                            results.append((run, outcome))
                        work.ended(number, run)

                    watch = work.watch(numbers[0])
                    load_ms = model.load_ms * fresh
                    try:
                        generate_shared(model, requests, on_result, watch, load_ms,
                                        images=images)
                    finally:  # the pictures came first
                        self._add_steps(model, results, watch)
            except (Cancelled, StorageError):
                raise
            except Exception:
                # What is missing runs one by one, and each cell shows its own error.
                logger.info("cells could not share their UNet calls", exc_info=True)

    def _run_seeds(self, work: _Work, made: int) -> None:
        """Fill in the cells that differ from the one just made in their seed only, in calls of
        several pictures where the pipeline allows it; what fails is left to run alone."""
        cells, pending = work.cells, work.missing(like=made)
        if not pending:
            return
        base, at_once = cells[made].request, 1
        tell = work.watch(pending[0])
        watch = tell and (lambda _step: tell(at_once))
        try:
            images = self._images(base)
            with self.registry.borrow(**base.weights) as (model, _):
                requests = {n: resolve(cells[n].request, model.info, images.get("image"))
                            for n in pending}
                images = fit(requests[pending[0]], images)
                timely = int(SEEDS_SECONDS * 1000 / work.runs[made].total_ms)
                at_once = min(MOST_SEEDS, len(pending), timely)
                while pending and at_once > 1 and takes_seeds(model, requests[pending[0]]):
                    some = pending[:at_once]
                    try:
                        results = generate_seeds(model, [requests[n] for n in some], images, watch)
                    except Exception as error:
                        if not is_out_of_memory(error):
                            raise
                        free_memory(model.device)
                        at_once //= 2
                        continue
                    for number, result in zip(some, results, strict=True):
                        steps = self._draw_steps(model, result)
                        work.ended(number, self._log(
                            result.request, result, model, work.comparison_id, cells[number].axes,
                            steps))  # fmt: skip
                    del pending[: len(some)]
        except (Cancelled, StorageError):
            raise
        except Exception:
            logger.info("seeds could not share a call", exc_info=True)

    def _add_steps(
        self,
        model: LoadedModel,
        results: list[tuple[Run, RunResult]],
        watch: Callable[[int], None] | None,
    ) -> None:
        """Draw the steps of logged runs, the quick way once somebody cancelled."""
        quick = False
        for run, result in results:
            try:
                if watch:
                    watch(0)
            except Cancelled:
                quick = True
            self.run_log.update(run, **self._draw_steps(model, result, quick))

    def _draw_steps(
        self, model: LoadedModel, result: RunResult, quick: bool = False
    ) -> dict[str, Any]:
        """The steps as columns of the run log; stores their strip. Empty where there is none."""
        if result.steps is None:
            return {}
        try:
            pipe = model.view(result.request.task)
            strip = draw_strip(pipe, result.steps, result.image, result.timings, quick)
        except Exception:  # a picture is worth more than its previews
            logger.warning("the steps of a run could not be drawn", exc_info=True)
            return {}
        return {"steps_sha256": self.pictures.put(strip), "steps_shown": list(result.steps.numbers)}

    def picture_path(self, run: Run) -> Path | None:
        return self.pictures.path(run.image_sha256) if run.image_sha256 else None

    def _measurements(self, result: RunResult) -> dict[str, Any]:
        """A result as columns of the run log; stores the picture."""
        timings = result.timings.as_dict()
        sha256 = self.pictures.put(result.image)
        return {
            "image_sha256": sha256,
            "height": result.image.height,
            "width": result.image.width,
            **self._unmasked(result.request, sha256),
            "nfe": result.nfe,
            "denoiser_rows": result.denoiser_rows,
            "noise_sha256": result.noise_sha256,
            "peak_memory_bytes": result.peak_memory_bytes,
            "step_ms": timings.pop("steps"),
            "notes": list(result.notes),
            "shared": result.shared,
            **{f"{name}_ms": value for name, value in timings.items()},
        }

    def _unmasked(self, request: RunRequest, sha256: str) -> dict[str, int]:
        """What an in-painting left alone, measured on the stored pictures."""
        if request.task != "inpainting":
            return {}
        names = (request.image, request.mask_image, sha256)
        before, mask_image, after = map(self.pictures.get, names)
        changed, count = changed_unmasked_pixels(request, before, mask_image, after)
        return {"changed_unmasked_pixels": changed, "unmasked_pixels": count}


def _tell(on_step: OnStep | None, number: int, runs: Sequence[Run | None]) -> None:
    """A cell is measured next; may raise Cancelled."""
    if on_step:
        on_step(Step(number + 1, len(runs), lambda: None))


def _made_of(run: Run, request: RunRequest) -> bool:
    """A row may be older than some fields, and than the commits in them."""
    return RunRequest(**run.request).changed(revision=request.revision) == request


def _to_converged(run: Run, found: Sequence[tuple[Distance, Run]]) -> Distance | None:
    """The distance to the run's own converged picture, where it is among what was measured."""
    request = converged_request(RunRequest(**run.request))
    return next((distance for distance, made in found if _made_of(made, request)), None)


def new_comparison_id() -> str:
    return uuid.uuid4().hex[:12]
