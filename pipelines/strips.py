"""Strips of the steps of logged runs: drawn after the pictures, after a kill from what was kept.

What a strip is drawn from lies in a file from before its run is logged until the strip is. Whoever
goes on with the comparison, or takes its runs, draws those that are missing.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import Cancelled, NoFurther, PipelineError
from pipelines.files import write_file
from pipelines.log_tables import Run
from pipelines.painting.extras import Extras
from pipelines.painting.previews import StepLatents, draw_strip
from pipelines.painting.result import RunResult
from pipelines.painting.timing import Timings
from pipelines.run_log import RunLog
from pipelines.stores import PictureStore

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.models.loaded import LoadedModel
    from pipelines.models.registry import Registry

logger = logging.getLogger(__name__)

Undrawn = list[tuple[Run, RunResult]]


class Strips:
    """Draws and logs the steps of runs; `folder` holds the latents of steps that are not drawn."""

    def __init__(
        self, folder: Path, run_log: RunLog, pictures: PictureStore, registry: Registry
    ) -> None:
        self.folder, self.run_log = folder, run_log
        self.pictures, self.registry = pictures, registry

    def path(self, identity: str) -> Path:
        """Of the latents of a run's steps; runs of one identity have the same."""
        return self.folder / f"{identity}.safetensors"

    def keep(self, identity: str, steps: StepLatents) -> None:
        """Put the latents into a file, all of them or none."""
        import torch
        from safetensors.torch import save

        data = save({"x0": steps.x0.contiguous(), "numbers": torch.tensor(steps.numbers)})
        try:
            write_file(self.path(identity), data)
        except OSError:  # they are drawn all the same, if nobody kills the process before
            logger.warning("the steps of a run could not be kept", exc_info=True)

    def kept(self, identity: str) -> StepLatents | None:
        """What keep() put there; None where nothing is that can be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(self.path(identity).read_bytes())
            return StepLatents(tensors["x0"], tuple(tensors["numbers"].tolist()))
        except (OSError, SafetensorError, KeyError):
            return None

    def draw(
        self,
        model: LoadedModel,
        undrawn: Undrawn,
        check: Callable[[], None] | None = None,
        quick: bool = False,
    ) -> None:
        """Draw the steps of logged runs and forget them; the quick way once somebody cancelled."""
        for run, result in undrawn:
            try:
                if check:
                    check()
            except NoFurther:
                pass
            except Cancelled:
                quick = True
            strip, columns = self._drawn(model, run, result, quick)
            if columns:
                self.run_log.update(run, strip and functools.partial(self.pictures.put, strip),
                                    **columns)
            with contextlib.suppress(OSError):
                self.path(run.identity).unlink(missing_ok=True)
        undrawn.clear()

    def _drawn(
        self, model: LoadedModel, run: Run, result: RunResult, quick: bool
    ) -> tuple[Image | None, dict[str, Any]]:
        """The steps as a strip and as columns of the run log; stores the strip. Empty where there
        are none."""
        if result.steps is None:
            return None, {}
        extras = Extras()
        with extras.attempt("steps"):
            pipe = model.view(result.request.task)
            strip = draw_strip(pipe, result.steps, result.image, result.timings, quick)
            return strip, {"steps_sha256": self.pictures.put(strip),
                           "steps_shown": list(result.steps.numbers)}
        return None, {"notes": [*run.notes, *extras.notes]}

    def complete(
        self, runs: Sequence[Run | None], check: Callable[[], None] | None = None
    ) -> None:
        """Draw the steps of these runs that were not drawn when a process ended in the middle, and
        give copies the strips of the runs that they were taken from."""
        without = [run for run in runs if run and run.status == "ok" and not run.steps_sha256]
        sources = {run.id: run for run in
                   self.run_log.runs_by_id({run.source_id for run in without})}
        groups: dict[tuple, Undrawn] = {}
        for run in sources.values():
            if run.identity and not run.steps_sha256 and (steps := self.kept(run.identity)):
                with contextlib.suppress(PipelineError):  # its picture is gone
                    result = self._result(run, steps)
                    weights = tuple(result.request.weights.values())
                    groups.setdefault(weights, []).append((run, result))
        for undrawn in groups.values():
            try:
                with self.registry.borrow(**undrawn[0][1].request.weights) as (model, _):
                    self.draw(model, undrawn, check)
            except PipelineError:
                logger.warning("the steps of runs could not be drawn", exc_info=True)
        for run in without:
            source = sources.get(run.source_id)
            if source and source.steps_sha256:
                self.run_log.update(run, steps_sha256=source.steps_sha256,
                                    steps_shown=source.steps_shown)

    def _result(self, run: Run, steps: StepLatents) -> RunResult:
        """A logged run as it came from its pipeline, as far as drawing needs it."""
        timings = Timings(*(getattr(run, f"{name}_ms") or 0.0 for name in (
            "text_encoding", "denoising", "decoding", "total")))
        return RunResult(run.valid_request(), self.pictures.get(run.image_sha256), timings, run.nfe,
                         run.denoiser_rows or 0, run.noise_sha256, run.peak_memory_bytes or 0,
                         steps=steps)
