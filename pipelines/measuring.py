"""How far the cells of a comparison lie from a reference, and how long each takes apart.

A reference is a cell, or the converged picture: the same request under a deterministic solver with
so many steps that it stands for the exact solution of the probability flow ODE.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.claims import make_once
from pipelines.clip import Clip, find_clip
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError, RequestError, StorageError
from pipelines.fields import SOLVER_FIELDS
from pipelines.log_tables import Distance, Run, Timing, utc_now
from pipelines.making import Wanted
from pipelines.painting.extras import Extras
from pipelines.painting.result import OnStep, Step
from pipelines.pixels import flat
from pipelines.references import (
    CONVERGED,
    is_converged,
    made_here,
    reference_cells,
    some_made_here,
)
from pipelines.request import DEFAULTS, RunRequest
from pipelines.run_log import TimingSummary
from pipelines.schedulers import EXACT, known_scheduler
from pipelines.stores import LatentStore, PictureStore
from pipelines.timer import timer

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from pipelines.engine import Engine

Runs = Sequence[Run | None]  # a run per cell, None where there is none
Models = dict[tuple, Any]  # what Engine.model_of remembers

# Scheduler, options, steps. Karras spacing reaches the last timestep whatever the checkpoint's
# timestep_spacing is. Where a picture is the start, only even spacing starts at its noise level.
CONVERGED_BY = ("dpmpp_2m_karras", {}, 200)
CONVERGED_FROM_IMAGE = ("dpmpp_2m", {"timestep_spacing": "linspace"}, 400)
CONVERGED_FLOW = ("flow_euler", {}, 500)
CONVERGED_EXACT = (EXACT.key, {}, 64)
SMALLEST_SSIM = 11  # pixels: the window of Wang et al. 2004


def converged_request(request: RunRequest, exact: bool = False) -> RunRequest:
    """The run that stands for the exact solution of a resolved request's probability flow ODE.

    Same latents, prompt, guidance and size; a deterministic solver with many steps. `exact`: for a
    model that is known in closed form, whose solution is exact to the last digits of float32.
    """
    known = known_scheduler(request.scheduler)
    solver = CONVERGED_FROM_IMAGE if request.image else CONVERGED_BY
    if known and known.flow_matching:
        solver = CONVERGED_FLOW
    scheduler, options, steps = CONVERGED_EXACT if exact else solver
    usual = {name: DEFAULTS[name] for name in SOLVER_FIELDS}
    return request.changed(**{**usual, "scheduler": scheduler, "scheduler_options": options,
                              "num_inference_steps": steps})


def distance(
    run: Run,
    reference: Run,
    pictures: PictureStore,
    latents: LatentStore,
    clip: Clip | None,
    extras: Extras,
) -> Distance:
    """A run's distance to its reference; a measure is None where it cannot be taken, with a note
    of `extras` where it failed.

    `rms_latents`: root of the mean square difference of the final latents, in their own unit;
    `psnr` in dB, of 8-bit RGB, None for equal pictures too (it is infinite there); `ssim` of Wang
    et al. 2004, 1 for equal pictures, None below 11 pixels; `flip` of Andersson et al. 2020, 0 for
    equal pictures to 1, as seen at 67 pixels per degree; `clip_distance` and `clip_score` as
    `clip` says (see clip.py), None without it, the score also without a prompt. Raises StorageError
    where a file is gone.
    """
    measured = Distance(run_id=run.source_id, reference_id=reference.source_id)
    if run.latents_sha256 and reference.latents_sha256:
        kept = [latents.get(r.latents_sha256) for r in (run, reference)]
        with extras.attempt("rms_latents"):
            measured.rms_latents = _rms(*kept)
    images = [flat(pictures.get(r.image_sha256)) for r in (run, reference)]
    with extras.attempt("psnr and ssim"):
        measured.psnr, measured.ssim = _psnr_and_ssim(*images)
    with extras.attempt("flip"):
        measured.flip = flip(*images)
    if clip:
        named = [(r.image_sha256, image) for r, image in zip((run, reference), images, strict=True)]
        with extras.attempt("clip_distance and clip_score"):
            measured.clip_distance = clip.distance(*named)
            measured.clip_score = clip.score(named[0], run.prompt) if run.prompt else None
            measured.clip_model = clip.name  # last: without it, another measurement tries again
    return measured


def _rms(one: torch.Tensor, other: torch.Tensor) -> float | None:
    if one.shape != other.shape:
        return None
    return (one.double() - other.double()).square().mean().sqrt().item()


def _psnr_and_ssim(one: Image, other: Image) -> tuple[float | None, float | None]:
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio

    if one.size != other.size:
        return None, None
    a, b = np.asarray(one), np.asarray(other)
    psnr = float(peak_signal_noise_ratio(a, b)) if (a != b).any() else None
    return psnr, ssim(one, other)


def ssim(one: Image, other: Image) -> float | None:
    """Structural similarity of two RGB pictures of one size; None below 11 pixels."""
    import numpy as np
    from skimage.metrics import structural_similarity

    if min(one.size) < SMALLEST_SSIM:
        return None
    return float(structural_similarity(
        np.asarray(one), np.asarray(other), channel_axis=2, data_range=255,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False))


def flip(one: Image, reference: Image) -> float | None:
    """The mean of FLIP's map of two RGB pictures of one size; its default viewing conditions."""
    import numpy as np
    from flip_evaluator import evaluate

    if one.size != reference.size:
        return None
    a, b = (np.asarray(image, np.float32) / 255 for image in (one, reference))
    return float(evaluate(b, a, "LDR", applyMagma=False)[1])


def measure(
    engine: Engine,
    comparison: Comparison,
    runs: Runs,
    reference: str,
    on_step: OnStep | None = None,
    check: Callable[[], None] | None = None,
) -> list[Distance | None]:
    """Each cell's distance to its reference, measured once and kept in the log.

    `reference` is 'converged', a cell, or a cell's converged picture (references.py). The converged
    pictures are runs of the log; those that are missing are made side by side, those that another
    process makes now are waited for; `on_step` and `check` (see `Engine.make`) may raise Cancelled.
    None for a cell, or a reference, that has no picture, and for one whose model has changed since.
    A measure that fails is left out, with a note in the run. Raises RequestError for an unknown
    cell, or a model that runs no solver that converges, LoadError where the CLIP that was named is
    not there.
    """
    known = distances(engine, comparison, runs, reference)
    clip = find_clip(engine.registry.device)
    missing = [number for number, distance in enumerate(known)
               if distance is None or distance.flip is None  # measured by an older version
               or (clip and distance.clip_model != clip.name)]
    sources = _sources(comparison, runs, reference)
    if not is_converged(reference):
        others = {number: sources[number] for number in missing}
    else:
        models: Models = {}
        requests = _converged(engine, missing, sources, models)
        floor_requests = _floor_to_measure(engine, runs, models)
        made = _make_once(engine, [*requests.values(), *floor_requests], models, on_step,
                          check)
        others = {number: made[_key(request)] for number, request in requests.items()}
        if floor_requests:
            half, whole = (made[_key(request)] for request in floor_requests)
            _distance(engine, half, whole)
    for number, other in others.items():
        if on_step:
            on_step(Step(number + 1, len(runs), lambda: None))
        known[number] = _distance(engine, runs[number], other, clip) or known[number]
    return known


def distances(
    engine: Engine, comparison: Comparison, runs: Runs, reference: str
) -> list[Distance | None]:
    """What measure() has measured already; nothing is computed."""
    logged: dict[int, list[tuple[Distance, Run]]] = {}
    for pair in engine.run_log.distances({run.source_id for run in runs if run}):
        logged.setdefault(pair[0].run_id, []).append(pair)
    others = _sources(comparison, runs, reference)
    if is_converged(reference):
        exact: dict[tuple, bool] = {}
        return [_to_converged(engine, source, logged.get(run.source_id, []), exact)
                if run and source else None for run, source in zip(runs, others, strict=True)]
    return [next((distance for distance, made in logged.get(run.source_id, [])
                  if made.id == other.source_id), None) if run and other else None
            for run, other in zip(runs, others, strict=True)]


def _sources(comparison: Comparison, runs: Runs, reference: str) -> Runs:
    """For each cell the run that is its reference, or whose converged picture is."""
    if reference == CONVERGED:
        return runs
    return [runs[number] for number in reference_cells(comparison, reference)]


def clip_scores(engine: Engine, runs: Runs) -> list[Distance | None]:
    """For each run a row with what CLIP said of it and its prompt, whatever it was measured
    against; None where it was not asked."""
    scored = {distance.run_id: distance for distance, _ in
              engine.run_log.distances({run.source_id for run in runs if run})
              if distance.clip_score is not None}
    return [scored.get(run.source_id) if run else None for run in runs]


def references_to_make(
    engine: Engine, comparison: Comparison, runs: Runs, reference: str
) -> list[RunRequest]:
    """The converged pictures, and the one that tells their error, that measure() would make."""
    if not is_converged(reference):
        return []
    models: Models = {}
    known = distances(engine, comparison, runs, reference)
    missing = [number for number, distance in enumerate(known) if distance is None]
    sources = _sources(comparison, runs, reference)
    wanted = [*_converged(engine, missing, sources, models).values(),
              *_floor_to_measure(engine, runs, models)]
    distinct = {_key(request): request for request in wanted}
    return [request for request in distinct.values() if not _logged(engine, request, models)]


def floor(engine: Engine, runs: Runs) -> float:
    """The converged picture's own error in latents (RMS), 0 where it was not measured: its
    distance to the same solver with half the steps, for the first cell."""
    run = _first_made(runs)
    if run is None:
        return 0.0
    half, whole = _floor_requests(engine, run)
    for _, reference in engine.run_log.distances([run.source_id]):
        if _made_of(reference, whole):
            for distance, made in engine.run_log.distances_to(reference.id):
                if _made_of(made, half):
                    return distance.rms_latents or 0.0
    return 0.0


def measure_timings(
    engine: Engine,
    runs: Runs,
    repeats: int,
    on_step: OnStep | None = None,
    on_done: Callable[[int], None] | None = None,
    begin: int = 0,
    mixed: bool = False,
) -> None:
    """Make these runs again, as far as they were `made_here`, each apart and `repeats` times, and
    log how long they took; the first `begin` of them are there already. All on one device, also
    where a cluster has several.

    Models one after the other, or `mixed`, in the order of the runs, which loads them again each
    time where memory does not hold them together; within a model in turns, each turn starting with
    another cell, so that a slow minute falls on all of them; after warm-up. `on_step` may raise
    Cancelled; `on_done(number of runs)` is called after each. Runs whose model has changed since
    are left out: their times would be another model's.
    """
    groups: dict[tuple, dict[int, Run]] = {}
    for run in some_made_here(runs, "measure: timings"):
        request = run.readable_request()
        weights = tuple(request.weights.values()) if request and not mixed else ()
        groups.setdefault(weights, {})[run.source_id] = run
    done, models = 0, {}
    before = engine.run_log.timing_nodes([run_id for group in groups.values() for run_id in group])
    with timer(engine, before) as timed:
        for group in groups.values():
            members = list(group.values())
            requests = [run.readable_request() for run in members]
            same = [_unchanged(engine, run, models) for run in members]
            for turn in range(repeats):
                for place in range(len(members)):
                    place = (place + turn) % len(members)
                    done += 1
                    if done <= begin:
                        continue
                    if same[place]:
                        engine.run_log.add(Timing(
                            run_id=members[place].source_id, datetime_utc=utc_now(),
                            **timed(requests[place], on_step)))
                    if on_done:
                        on_done(done)


def timings(engine: Engine, runs: Runs) -> list[TimingSummary | None]:
    """What was measured of these runs; None where nothing was."""
    known = engine.run_log.timings([run.source_id for run in runs if run])
    return [known.get(run.source_id) if run else None for run in runs]


def _first_made(runs: Runs) -> Run | None:
    return next((run for run in made_here(runs) if run.readable_request()), None)


def _is_exact(engine: Engine, request: RunRequest) -> bool:
    """Whether a request's model is known in closed form; False where it is gone."""
    with contextlib.suppress(PipelineError):
        info = engine.registry.describe(request.model_id, request.revision, request.variant)
        return EXACT in info.schedulers
    return False


def _floor_requests(engine: Engine, run: Run) -> tuple[RunRequest, RunRequest]:
    """A run's reference with half the steps, and with all of them."""
    request = run.valid_request()
    whole = converged_request(request, _is_exact(engine, request))
    return whole.changed(num_inference_steps=whole.num_inference_steps // 2), whole


def _floor_to_measure(engine: Engine, runs: Runs, models: Models) -> Sequence[RunRequest]:
    """The two pictures that tell the floor, none where it is known or cannot be told."""
    run = _first_made(runs)
    if run is None or floor(engine, runs):
        return ()
    solvable = _unchanged(engine, run, models) and _solvable(engine, run, models)
    return _floor_requests(engine, run) if solvable else ()


def _unchanged(engine: Engine, run: Run | None, models: Models) -> bool:
    """Whether a run would make the same picture now."""
    if not made_here([run]):
        return False
    with contextlib.suppress(PipelineError):  # the model is gone, or the request cannot be read
        request = run.valid_request()
        without_size = request.changed(height=None, width=None)  # where only the pipeline knew it
        return run.identity in (engine.identity(request, models),
                                engine.identity(without_size, models))
    return False


def _converged(
    engine: Engine, numbers: Iterable[int], runs: Runs, models: Models
) -> dict[int, RunRequest]:
    """Cell numbers -> the requests of their converged pictures, without cells whose model has
    changed since. RequestError where no model of theirs runs the solver."""
    some_made_here(runs, f"reference: received {CONVERGED!r}")
    unchanged = [number for number in numbers if _unchanged(engine, runs[number], models)]
    requests = {number: request for number in unchanged
                if (request := _solvable(engine, runs[number], models))}
    if unchanged and not requests:
        request = runs[unchanged[0]].valid_request()
        info = engine.model_of(request, models)[0]
        fitting = ", ".join(known.key for known in info.schedulers) or "its own scheduler"
        raise RequestError(f"reference: received {CONVERGED!r}, but {info.model_id} "
                           f"({info.pipeline_class}) runs {fitting} only; accepted a cell")
    return requests


def _solvable(engine: Engine, run: Run, models: Models) -> RunRequest | None:
    """The request of a run's converged picture; None where its model runs no such solver."""
    request = run.valid_request()
    fitting = engine.model_of(request, models)[0].schedulers
    request = converged_request(request, EXACT in fitting)
    return request if any(request.scheduler == known.key for known in fitting) else None


def _make_once(
    engine: Engine,
    requests: Iterable[RunRequest],
    models: Models,
    on_step: OnStep | None,
    check: Callable[[], None] | None,
) -> Mapping[str, Run]:
    """A run with its latents for each request, by `_key`, from the log or made now."""
    wanted = {_key(request): request for request in requests}
    identities = {key: engine.identity(request, models) for key, request in wanted.items()}
    made: dict[str, Run] = {}

    def look() -> list[str]:
        logged = engine.run_log.of_identities(set(identities.values()))
        for key, identity in identities.items():
            if run := next(filter(engine.complete, logged.get(identity, [])), None):
                made.setdefault(key, run)
        return [key for key in wanted if key not in made]

    def make(keys: list[str]) -> None:
        engine.make([Wanted(wanted[key], keep_latents=True) for key in keys],
                    on_step and (lambda _, step: on_step(step)),
                    lambda place, run: made.update({keys[place]: run}), check)

    make_once(engine.run_log, identities, look, make, check)
    return made


def _logged(engine: Engine, request: RunRequest, models: Models) -> Run | None:
    """The newest run of the log that made just this and whose files are still there."""
    wanted = engine.identity(request, models)
    logged = engine.run_log.of_identities([wanted]).get(wanted, [])
    return next(filter(engine.complete, logged), None)


def _distance(
    engine: Engine, run: Run | None, reference: Run | None, clip: Clip | None = None
) -> Distance | None:
    """Measured and logged; None where a picture is missing."""
    if not (run and reference and run.image_sha256 and reference.image_sha256):
        return None
    extras = Extras()
    try:
        measured = distance(run, reference, engine.pictures, engine.latents, clip, extras)
    except StorageError:  # a file is gone
        return None
    engine.run_log.keep_distance(measured)
    if notes := [note for note in extras.notes if note not in run.notes]:
        engine.run_log.update(run, notes=[*run.notes, *notes])
    return measured


def _key(request: RunRequest) -> str:
    return request.model_dump_json()


def _made_of(run: Run, request: RunRequest) -> bool:
    """A row may be older than some fields, and than the commits in them."""
    made_by = run.readable_request()
    return bool(made_by) and made_by.changed(revision=request.revision) == request


def _to_converged(
    engine: Engine, run: Run, measured: Sequence[tuple[Distance, Run]], exact: dict[tuple, bool]
) -> Distance | None:
    """The distance to a run's converged picture, where it is among what was measured; `exact`
    remembers what the models are."""
    if not measured or not (made_by := run.readable_request()):
        return None
    model = tuple(made_by.weights.values())
    if model not in exact:
        exact[model] = _is_exact(engine, made_by)
    request = converged_request(made_by, exact[model])
    return next((distance for distance, made in measured if _made_of(made, request)), None)
