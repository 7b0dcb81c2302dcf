"""The best schedule of N steps for a model: searched for on training prompts, judged on others.

Levels are moved one after the other, up and down in log(sigma), and a move is kept where the
latents come closer to the converged ones; the first level stays, since the noise to start from has
it. Pictures of the search go into a log of its own that is thrown away; those on the held-out
prompts are a study of the user's log.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.axes import make_axis
from pipelines.comparison import MAX_CELLS, Comparison
from pipelines.engine import Engine
from pipelines.errors import PipelineError, RequestError
from pipelines.measuring import converged_request
from pipelines.notation import number_text
from pipelines.request import RunRequest
from pipelines.schedulers import EXACT
from pipelines.sigma_schedules import DEFAULT, KINDS, request_sigmas
from pipelines.study.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor

NAMED = tuple(kind for kind in KINDS if kind != DEFAULT)
FIRST_MOVE, LEAST_MOVE = 0.5, 0.1  # shares of the way to a neighbour
DIGITS = 5


@dataclass(frozen=True)
class Candidate:
    """A schedule as a request has it, and its error: the mean over training prompts and seeds of
    the root mean square distance of the final latents to the converged ones."""

    schedule: str
    error: float


@dataclass(frozen=True)
class SearchResult:
    """`named`: the scheduler's own schedule and the usual ones, by error; `best` of all `tried`
    candidates, as a list of sigmas."""

    named: tuple[Candidate, ...]
    best: Candidate
    tried: int


def search(
    engine: Engine,
    base: RunRequest,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    budget: int,
    on_candidate: Callable[[Candidate, Candidate], None] | None = None,
    check: Callable[[], None] | None = None,
) -> SearchResult:
    """Look for levels of `base.num_inference_steps` steps; at most about `budget` candidates.

    `on_candidate(candidate, best so far)` hears of each; `check` may raise Cancelled. Raises
    RequestError where the scheduler takes no levels from outside.
    """
    with tempfile.TemporaryDirectory(prefix="contact-sheet-search-") as folder:
        scratch = Engine(Path(folder), device=engine.registry.device)
        scratch.registry = engine.registry
        return _Search(scratch, base, prompts, seeds, budget, on_candidate, check).run()


class _Search:
    def __init__(self, engine: Engine, base: RunRequest, prompts: Sequence[Prompt],
                 seeds: Sequence[int], budget: int,
                 on_candidate: Callable[[Candidate, Candidate], None] | None,
                 check: Callable[[], None] | None) -> None:
        self.engine, self.budget = engine, budget
        self.on_candidate, self.check = on_candidate, check
        self.info = engine.registry.describe(base.model_id, base.revision, base.variant)
        self.base = engine.check(base.changed(sigma_schedule=DEFAULT, prompt=prompts[0].text))
        self.axes = (make_axis("prompt", [prompt.text for prompt in prompts], base),
                     make_axis("seed", seeds, base))
        self.tried = 0
        self.best: Candidate | None = None
        if 2 * len(prompts) * len(seeds) > MAX_CELLS:
            raise RequestError(f"prompts: received {len(prompts)} to train on with {len(seeds)} "
                               f"seeds, accepted up to {MAX_CELLS // 2} pictures")
        self.ends = self._latents(Comparison(
            converged_request(self.base, EXACT in self.info.schedulers), self.axes))

    def run(self) -> SearchResult:
        levels = request_sigmas(self.base, self.info.original_scheduler_config)
        if len(levels) != self.base.num_inference_steps:
            raise RequestError(f"scheduler: {self.base.scheduler} evaluates the network at "
                               f"{len(levels)} levels in {self.base.num_inference_steps} steps; "
                               "accepted one that takes a level a step, such as euler or dpmpp_2m")
        named = self._named()
        if named[0].schedule != DEFAULT:
            levels = request_sigmas(self.base.changed(sigma_schedule=named[0].schedule),
                                    self.info.original_scheduler_config)
        best = self._errors([_text(levels)])[0]
        levels, move = list(levels), FIRST_MOVE
        while move >= LEAST_MOVE and self.tried < self.budget:
            moved = False
            for place in range(1, len(levels)):
                if self.tried >= self.budget:
                    break
                texts = [text for text in (_text(_moved(levels, place, share))
                                           for share in (move, -move)) if text != best.schedule]
                for candidate in self._errors(texts):
                    if candidate.error < best.error:
                        best, moved = candidate, True
                levels = list(_numbers(best.schedule))
            move = move if moved else move / 2
        return SearchResult(tuple(named), best, self.tried)

    def _named(self) -> list[Candidate]:
        """The scheduler's own schedule and those of a name that it takes, the best first."""
        texts = []
        for kind in (DEFAULT, *NAMED):
            try:
                self.engine.check(self.base.changed(sigma_schedule=kind))
            except PipelineError:
                if kind == DEFAULT:
                    raise
                continue
            texts.append(kind)
        if len(texts) == 1:  # says why a list is refused, too
            self.engine.check(self.base.changed(sigma_schedule=_text(request_sigmas(
                self.base, self.info.original_scheduler_config))))
        return sorted(self._errors(texts), key=lambda candidate: candidate.error)

    def _errors(self, texts: Sequence[str]) -> list[Candidate]:
        """Those of the schedules that the scheduler takes, with their errors."""
        taken = []
        for text in texts:
            try:
                self.engine.check(self.base.changed(sigma_schedule=text))
            except PipelineError:  # two levels become one timestep, or leave the model's range
                self.tried += 1
            else:
                taken.append(text)
        if not taken:
            return []
        candidates = []
        each = len(self.ends)
        for start in range(0, len(taken), max(1, MAX_CELLS // each)):
            part = taken[start : start + max(1, MAX_CELLS // each)]
            latents = self._latents(Comparison(self.base, (
                *self.axes, make_axis("sigma_schedule", part, self.base))))
            for number, text in enumerate(part):
                own = latents[number * each : (number + 1) * each]
                error = sum((a - b).square().mean().sqrt().item()
                            for a, b in zip(own, self.ends, strict=True)) / each
                candidate = Candidate(text, error)
                self.tried += 1
                if self.best is None or error < self.best.error:
                    self.best = candidate
                candidates.append(candidate)
                if self.on_candidate:
                    self.on_candidate(candidate, self.best)
        return candidates

    def _latents(self, comparison: Comparison) -> list[Tensor]:
        """The final latents of every cell; raises PipelineError where one has none."""
        runs = self.engine.compare(comparison, shared=True, check=self.check)
        if self.check:
            self.check()
        failed = next((run for run in runs if run is None or run.error), None)
        if failed is not None or None in runs:
            raise PipelineError(failed.error if failed else "stopped")
        return [self.engine.latents.get(run.latents_sha256).double() for run in runs]


def _text(levels: Sequence[float]) -> str:
    return "sigmas:" + " ".join(number_text(float(f"{level:.{DIGITS}g}")) for level in levels)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.removeprefix("sigmas:").split()]


def _moved(levels: Sequence[float], place: int, share: float) -> list[float]:
    """One level moved towards the one before it (share above 0) or after it, in log(sigma); the
    last one has as much room below as above."""
    logs = [math.log(level) for level in levels]
    above = logs[place - 1] - logs[place]
    below = logs[place] - logs[place + 1] if place + 1 < len(logs) else above
    moved = list(levels)
    moved[place] = math.exp(logs[place] + share * (above if share > 0 else below))
    return moved
