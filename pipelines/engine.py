"""The engine of one data folder: runs requests on shared models and logs every one of them.

What makes a comparison is in grid.py, what measures one in measuring.py, how pictures are made on a
loaded model in making.py.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.chain import next_request
from pipelines.comparison import Comparison
from pipelines.error_log import record
from pipelines.errors import Cancelled, NoFurther, PipelineError, RequestError
from pipelines.fields import PICTURES
from pipelines.grid import Grid, cell_identities, cells_in_log
from pipelines.hardware import HOSTED_DEVICE, environment
from pipelines.log_tables import Run, utc_now
from pipelines.making import Wanted, make_pictures
from pipelines.models.identity import identity, lora_contents, model_content
from pipelines.models.info import ModelInfo
from pipelines.models.loaded import LoadedModel
from pipelines.models.registry import Registry
from pipelines.names import is_hosted
from pipelines.painting.cost import check_cost
from pipelines.painting.execution import check_execution
from pipelines.painting.extras import Extras
from pipelines.painting.resolve import resolve
from pipelines.painting.result import OnStep, RunResult, Step
from pipelines.request import RunRequest
from pipelines.run_columns import measurements, unmasked
from pipelines.run_log import RunLog, data_home
from pipelines.schedulers import make_scheduler
from pipelines.stores import LatentStore, PictureStore
from pipelines.strips import Strips
from pipelines.thumbnails import Thumbnails

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.cluster.driver import Cluster
    from pipelines.hosted.pictures import Provided

logger = logging.getLogger(__name__)

STRIPS_WAITING = 24  # runs whose steps are drawn later: the pictures come first


class Engine:
    """Registry, run log and picture store of one data folder; a `cluster` makes the pictures."""

    def __init__(
        self, home: Path | None = None, device: str | None = None, cluster: Cluster | None = None
    ) -> None:
        self.home = home or data_home()
        self.run_log = RunLog(self.home)
        self.pictures = PictureStore(self.home / "pictures")
        self.latents = LatentStore(self.home / "latents")
        self.thumbnails = Thumbnails(self.pictures)
        self.registry = Registry(device)
        self.cluster = cluster

    @property
    def device(self) -> str:
        """What makes the pictures: 'cuda', 'cpu', ...; raises ClusterError."""
        return self.cluster.device if self.cluster else self.registry.device

    @property
    def strips(self) -> Strips:
        """The steps of the logged runs."""
        return Strips(self.home / "steps", self.run_log, self.pictures, self.registry)

    def check(self, request: RunRequest) -> RunRequest:
        """The request as it would run, before it runs; raises what would make it fail."""
        self.registry.check(request)
        info = self.registry.describe(request.model_id, request.revision, request.variant)
        request, config = resolve(request, info), info.original_scheduler_config
        if info.hosted:
            return request
        if not self.cluster:  # its devices look for themselves
            check_execution(request, info, self.registry.device)
            check_cost(request, info, self.registry.device)
        if request.scheduler != "default":
            make_scheduler(request.scheduler, config, request.scheduler_options)
        return request

    def identity(self, request: RunRequest, known: dict[tuple, Any] | None = None) -> str:
        """The identity of a request, were it to run now; `known` remembers models between calls.

        Raises what would make the request fail.
        """
        info, content, loras = self.model_of(request, {} if known is None else known)
        request = resolve(request, info, self.image_size(request))
        if info.hosted:
            return identity(request, content, (), HOSTED_DEVICE, "unknown")
        dtype = self.registry.dtype(request, self.device)
        machine = self.cluster.machine if self.cluster else None
        return identity(request, content, loras, self.device, dtype, machine)

    def model_of(
        self, request: RunRequest, known: dict[tuple, Any]
    ) -> tuple[ModelInfo, str, tuple[str, ...]]:
        """A request's model and the contents of its files and adapters, read once per `known`."""
        key = tuple(request.weights.values())
        if key not in known:
            info = self.registry.describe(request.model_id, request.revision, request.variant)
            known[key] = info, model_content(info), lora_contents(request.loras)
        return known[key]

    def images(self, request: RunRequest) -> dict[str, Image]:
        """The pictures that a request names, from the store; raises StorageError."""
        return {name: self.pictures.get(sha) for name in PICTURES
                if (sha := getattr(request, name))}

    def image_size(self, request: RunRequest) -> tuple[int, int] | None:
        """Width and height of the picture that a request starts from, without decoding it; raises
        StorageError where one of its pictures is missing."""
        sizes = {name: self.pictures.size(sha) for name in PICTURES
                 if (sha := getattr(request, name))}
        return sizes.get("image")

    def run(
        self,
        request: RunRequest,
        on_step: OnStep | None = None,
        comparison_id: str | None = None,
        axes: dict[str, Any] | None = None,
        parent_id: int | None = None,
        keep_latents: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Run:
        """Make one picture and log it; a failure or a cancel is a row too, and is returned.

        Only StorageError is raised: then there is no row to return.
        """
        wanted = Wanted(request, comparison_id, axes or {}, parent_id, keep_latents)
        runs: list[Run] = []
        try:
            self.make([wanted], on_step and (lambda _, step: on_step(step)),
                      lambda _, run: runs.append(run), check)
        except Cancelled as stopped:
            if not runs:
                runs.append(self._log(wanted, request, stopped, None))
        return runs[0]

    def make(
        self,
        wanted: Sequence[Wanted],
        on_step: Callable[[int, Step], None] | None = None,
        on_run: Callable[[int, Run], None] | None = None,
        check: Callable[[], None] | None = None,
        apart: bool = False,
    ) -> None:
        """Make pictures and log them, those of one model side by side (see making.py); `apart`: one
        at a time on each device of a cluster.

        `on_run(number, run)` is called for each as it is done, failed ones too; `on_step(number,
        step)` after each step of each. It and `check`, which is called before each network call,
        may raise Cancelled: that goes on to the caller, and there is no row of what was under way.
        Raises StorageError where the log can only be read, ClusterError where no device is left.
        """
        self.run_log.database.check_writable()
        there = [number for number, picture in enumerate(wanted)
                 if self.cluster and not is_hosted(picture.request.model_id)]
        if there:
            self.cluster.make(self, [wanted[number] for number in there],
                              on_step and (lambda place, step: on_step(there[place], step)),
                              on_run and (lambda place, run: on_run(there[place], run)),
                              check, apart)
        groups: dict[tuple, list[int]] = {}
        for number in sorted({*range(len(wanted))} - {*there}):
            weights = wanted[number].request.weights
            groups.setdefault(tuple(weights.values()), []).append(number)
        for numbers in groups.values():
            self._make_group({number: wanted[number] for number in numbers}, on_step, on_run,
                             check)

    def _make_group(
        self,
        wanted: Mapping[int, Wanted],
        on_step: Callable[[int, Step], None] | None,
        on_run: Callable[[int, Run], None] | None,
        check: Callable[[], None] | None,
    ) -> None:
        """Pictures of one model, loaded here or asked of its provider."""
        undrawn: list[tuple[Run, RunResult]] = []
        resolved: dict[int, RunRequest] = {}

        def ended(
            number: int, outcome: RunResult | Exception, model: LoadedModel | Provided | None
        ) -> None:
            request = resolved.get(number, wanted[number].request)
            run = self._log(wanted[number], request, outcome, model)
            if on_run:
                on_run(number, run)
            if isinstance(outcome, RunResult):
                undrawn.append((run, outcome))
            if len(undrawn) >= STRIPS_WAITING:
                self.strips.draw(model, undrawn, check)

        weights = next(iter(wanted.values())).request.weights
        with contextlib.ExitStack() as stack:
            try:
                model, make = stack.enter_context(self._maker(weights))
            except Exception as error:  # it cannot be opened, each of them says why
                for number in wanted:
                    ended(number, error, None)
                return
            for number, picture in wanted.items():
                try:
                    resolved[number] = resolve(picture.request, model.info,
                                               self.image_size(picture.request))
                except PipelineError as error:
                    ended(number, error, model)
            numbers = list(resolved)
            try:
                make(model, [resolved[number] for number in numbers], self.images,
                     lambda place, outcome: ended(numbers[place], outcome, model),
                     on_step and (lambda place, step: on_step(numbers[place], step)),
                     check=check)
            except Cancelled as stop:
                self.strips.draw(model, undrawn, quick=not isinstance(stop, NoFurther))
                raise
            self.strips.draw(model, undrawn, check)

    @contextlib.contextmanager
    def _maker(self, weights: Mapping[str, Any]) -> Iterator[tuple[Any, Callable[..., None]]]:
        """A model, loaded here or a provider's, and what makes its pictures."""
        if is_hosted(weights["model_id"]):
            from pipelines.hosted.pictures import Provided, make_hosted_pictures

            info = self.registry.describe(weights["model_id"], weights["revision"],
                                          weights["variant"])
            yield Provided.of(info), make_hosted_pictures
            return
        with self.registry.borrow(**weights) as (model, fresh):
            yield model, functools.partial(make_pictures, load_ms=model.load_ms * fresh)

    def failed(self, wanted: Wanted, error: PipelineError) -> Run:
        """Log a picture that could not be made."""
        return self._log(wanted, wanted.request, error, None)

    def chain(
        self,
        first: RunRequest,
        stages: Sequence[Mapping[str, Any]],
        on_step: OnStep | None = None,
        on_run: Callable[[Run], None] | None = None,
        parent_id: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> list[Run]:
        """A picture and what further stages make of it (`chains`); a cancel is a row too."""
        runs: list[Run] = []

        def ended(run: Run) -> None:
            runs.append(run)
            if on_run:
                on_run(run)

        with contextlib.suppress(Cancelled):
            self.chains([first], stages, on_step and (lambda _, step: on_step(step)), ended,
                        parent_id, check)
        return runs

    def chains(
        self,
        firsts: Sequence[RunRequest],
        stages: Sequence[Mapping[str, Any]] = (),
        on_step: Callable[[int, Step], None] | None = None,
        on_run: Callable[[Run], None] | None = None,
        parent_id: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Pictures, and what further stages make of each, stage by stage; each a run that names its
        parent, `parent_id` is the first ones'.

        `stages` hold what changes (`chain.next_request`). A stage that does not end well is its
        chain's last. `on_step(number of the first, step)` may raise Cancelled, which goes on to the
        caller; the pictures that were under way then are rows too. Raises RequestError,
        UnknownModelError or LoadError before the first stage.
        """
        for stage in stages:
            for request in firsts:
                self.stage_info(request, stage)
        wanted = {number: Wanted(request, parent_id=parent_id)
                  for number, request in enumerate(firsts)}
        for following in (*stages, None):
            numbers, done = list(wanted), dict[int, Run]()

            def ended(place: int, run: Run, numbers=numbers, done=done) -> None:
                done[numbers[place]] = run
                if on_run:
                    on_run(run)

            try:
                self.make(list(wanted.values()),
                          on_step and (lambda place, step, numbers=numbers:
                                       on_step(numbers[place], step)), ended, check)
            except Cancelled as stopped:
                begun = not isinstance(stopped, NoFurther)
                for number in wanted.keys() - done.keys() if begun else ():
                    run = self._log(wanted[number], wanted[number].request, stopped, None)
                    if on_run:
                        on_run(run)
                raise
            if following is None:
                return
            wanted = {number: Wanted(self.following(run, following), parent_id=run.id)
                      for number, run in done.items() if run.status == "ok"}

    def following(self, run: Run, stage: Mapping[str, Any]) -> RunRequest:
        """The request of the stage that follows a run of a chain."""
        before = run.valid_request()
        return next_request(before, run.image_sha256, stage, self.stage_info(before, stage))

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
        wanted: Wanted,
        request: RunRequest,
        outcome: RunResult | Exception,
        model: LoadedModel | Provided | None,
    ) -> Run:
        """Write the row of a run that ended, however it ended; `request` is the resolved one."""
        status, error, measured, extras = "ok", None, {}, Extras()
        if model:
            measured = {"device": model.device, "dtype": model.dtype}
            with extras.attempt("environment"):
                measured["environment"] = environment(model.device) | {"contents": {
                    "model": model.content, "loras": list(model.lora_contents)}}
        try:
            if isinstance(outcome, Exception):
                raise outcome
            asked, request = request, outcome.request
            measured |= measurements(self.pictures, outcome)
            if outcome.told:
                measured["environment"] |= {"provider": dict(outcome.told)}
            measured["identity"] = identity(
                asked, model.content, model.lora_contents, model.device, model.dtype
            )
            keeps = wanted.comparison_id or wanted.keep_latents
            if keeps and outcome.latents is not None:
                with extras.attempt("latents"):
                    measured["latents_sha256"] = self.latents.put(outcome.latents)
            if wanted.comparison_id and outcome.steps is not None:
                self.strips.keep(measured["identity"], outcome.steps)
            with extras.attempt("changed pixels outside the mask"):
                measured |= unmasked(self.pictures, request, measured["image_sha256"])
            measured["notes"] += extras.notes
        except Cancelled:
            status = "cancelled"
        except PipelineError as problem:
            status, error = "failed", str(problem)
        except Exception as problem:
            logger.exception("a run failed: %s", request.model_dump_json())
            record(problem, self.home)
            status, error = "failed", f"{type(problem).__name__}: {problem}"
        if status != "ok":
            with contextlib.suppress(PipelineError):  # where it failed before it was resolved
                info = self.registry.describe(request.model_id, request.revision, request.variant)
                request = info.fill_in(request)
        names = ("model_id", "task", "prompt", "negative_prompt", "scheduler", "seed",
                 "num_inference_steps", "guidance_scale", "height", "width")
        columns = {name: getattr(request, name) for name in names}
        for name in ("num_inference_steps", "guidance_scale"):  # a model that cannot be read
            columns[name] = columns[name] or 0
        run = Run(
            datetime_utc=utc_now(),
            status=status,
            error=error,
            comparison_id=wanted.comparison_id,
            axes=dict(wanted.axes),
            parent_id=wanted.parent_id,
            request=request.model_dump(mode="json"),
            **(columns | measured),
        )
        self.run_log.add(run, lambda: self._keep_files(run, outcome))
        return run

    def _keep_files(self, run: Run, outcome: RunResult | Exception) -> None:
        """Store the files of a run once more where they were removed since."""
        if isinstance(outcome, RunResult):
            if run.image_sha256 and not self.pictures.whole(run.image_sha256):
                self.pictures.put(outcome.image)
            if run.latents_sha256 and not self.latents.whole(run.latents_sha256):
                self.latents.put(outcome.latents)

    def compare(
        self,
        comparison: Comparison,
        on_step: Callable[[int, Step], None] | None = None,
        on_cell: Callable[[int, Run], None] | None = None,
        comparison_id: str | None = None,
        shared: bool = False,
        reference: str | None = None,
        fresh: bool = False,
        check: Callable[[], None] | None = None,
        on_wait: Callable[[int], None] | None = None,
        only: Collection[int] | None = None,
    ) -> list[Run | None]:
        """Make the cells; one result per cell, None where a rule leaves it out or a cancel came
        first.

        A cell that the log holds already, made of exactly the same, is taken from there unless
        `fresh` is asked for. A `comparison_id` of the log resumes where it stopped: what was made
        of the same is kept, failed cells are tried again. `on_step(cell_number, step)`
        may raise Cancelled: what is done stays. A failed cell does not stop the others. `shared`:
        cells share their network calls where the model allows it, which is faster and gives the
        same pictures; their times are shares then. `reference` is logged; measure() uses it.
        Cells that another process makes now are waited for, and taken from the log; `on_wait(their
        number)` tells of it. `check` is called meanwhile and before each network call, and may
        raise Cancelled. `only`: the numbers of the cells to make now; the others have no result.
        """
        grid = Grid(self, comparison, comparison_id, reference)
        return grid.make(shared, fresh, on_step, on_cell, check, on_wait, only)

    def in_log(self, comparison: Comparison) -> list[int]:
        """The numbers of the cells that compare() would take from the log."""
        return [number for number, _ in cells_in_log(self, cell_identities(self, comparison.cells))]

    def complete(self, run: Run) -> bool:
        """Whether picture and latents are there, and whole; some pipelines have no latents to
        keep, and providers send none."""
        latents = run.latents_sha256
        has_latents = (self.latents.whole(latents) if latents
                       else run.comparison_id or run.hosted)
        return bool(has_latents) and self.pictures.whole(run.image_sha256)

    def picture_path(self, run: Run) -> Path | None:
        """The file of a run's picture; None where there is none that is whole."""
        whole = self.pictures.whole(run.image_sha256)
        return self.pictures.path(run.image_sha256) if whole else None
