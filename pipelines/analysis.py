"""What a comparison teaches: convergence, quality against time, guidance, and what looks wrong."""

from __future__ import annotations

import functools
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.axes import OPTION, label
from pipelines.comparison import Cell, Comparison
from pipelines.request import RunRequest
from pipelines.run_log import Distance, Run, TimingSummary
from pipelines.schedulers import BY_KEY
from pipelines.stores import PictureStore

if TYPE_CHECKING:
    from pathlib import Path

# Fields that say how a picture is computed. The others say what is asked for: they decide the
# exact solution, and methods are averaged over them.
HOW = {"scheduler", "num_inference_steps", "eta", "torch_dtype", "memory_policy", "quantization",
       "attention_backend", "cache", "compile"}  # fmt: skip
# Of those, the ones that are meant to change the cost and not the picture.
COST_ONLY = {"memory_policy", "attention_backend", "compile"}
STOCHASTIC_TYPES = {"sde-dpmsolver", "sde-dpmsolver++"}
GOOD_PSNR = 40.0  # dB; differences below it can be seen
FIT_AT_LEAST = 3  # points of a line
DARK, PURE = 40, 0.8  # of 255; saturation in HSV
SATURATED, TIMES = 0.03, 3.0  # a share of the pixels, on top of so many times the share at the
# lowest guidance
BLANK = 2.0  # of 255: a picture whose pixels differ by less is empty


@dataclass(frozen=True)
class Method:
    """One way to compute, over all that was asked of it: the mean of its cells.

    `rms_latents` and `psnr` are means over the cells that have them (geometric for rms); `ms` is
    the median of measured times, None where a cell has none. `cells` are their numbers.
    """

    name: str
    line: str
    scheduler: str
    stochastic: bool
    order: int | None
    num_inference_steps: int
    nfe: float
    rms_latents: float | None
    psnr: float | None
    ssim: float | None
    clip_distance: float | None
    ms: float | None
    ms_low: float | None
    ms_high: float | None
    cells: tuple[int, ...]
    run_id: int


def is_stochastic(request: RunRequest) -> bool:
    """Whether fresh noise is drawn on the way, so that no ODE is solved."""
    info = BY_KEY.get(request.scheduler)
    if info is None:
        return False
    if {**info.options, **request.scheduler_options}.get("algorithm_type") in STOCHASTIC_TYPES:
        return True
    draws_by_eta = request.scheduler in ("ddim", "tcd") and request.eta > 0
    return draws_by_eta or (info.stochastic and "algorithm_type" not in info.options)


def nominal_order(request: RunRequest) -> int | None:
    """The order of accuracy that the literature gives a deterministic solver."""
    info = BY_KEY.get(request.scheduler)
    if info is None or is_stochastic(request):
        return None
    return int(request.scheduler_options.get("solver_order", info.order))


def methods(
    comparison: Comparison,
    runs: Sequence[Run | None],
    distances: Sequence[Distance | None] = (),
    timings: Sequence[TimingSummary | None] = (),
) -> list[Method]:
    """The comparison's ways to compute, in the order of its cells."""
    cells = comparison.cells
    groups: dict[tuple, list[int]] = {}
    for number, (cell, run) in enumerate(zip(cells, runs, strict=True)):
        if run and run.status == "ok" and not cell.left_out:
            groups.setdefault(_how(comparison, cell), []).append(number)
    distances = distances or [None] * len(cells)
    timings = timings or [None] * len(cells)
    return [
        _method(comparison, cells, runs, distances, timings, numbers)
        for numbers in groups.values()
    ]


def _how(comparison: Comparison, cell: Cell, without: Iterable[str] = ()) -> tuple:
    """A cell's values on the axes that say how it is computed."""
    return tuple((axis.name, cell.axes[axis.name]) for axis in comparison.axes
                 if any(part in HOW or part.startswith(OPTION) for part in axis.parts)
                 and axis.name not in without)


def _method(
    comparison: Comparison,
    cells: Sequence[Cell],
    runs: Sequence[Run | None],
    distances: Sequence[Distance | None],
    timings: Sequence[TimingSummary | None],
    numbers: Sequence[int],
) -> Method:
    first = cells[numbers[0]]
    request = RunRequest(**runs[numbers[0]].request)
    how = _how(comparison, first)
    line = [label(name, value) for name, value in
            _how(comparison, first, without=("num_inference_steps",))]
    name = [f"{value} steps" if axis == "num_inference_steps" else label(axis, value)
            for axis, value in how]
    own = label("scheduler", request.scheduler)
    found = [distances[n] for n in numbers if distances[n]]
    times = [timings[n] for n in numbers]
    complete = all(times)
    return Method(
        name=" ".join(name) or own,
        line=" ".join(line) or own,
        scheduler=request.scheduler,
        stochastic=is_stochastic(request),
        order=nominal_order(request),
        num_inference_steps=request.num_inference_steps,
        nfe=statistics.mean(runs[n].nfe for n in numbers),
        rms_latents=_mean([d.rms_latents for d in found], geometric=True),
        psnr=_mean([d.psnr for d in found]),
        ssim=_mean([d.ssim for d in found]),
        clip_distance=_mean([d.clip_distance for d in found]),
        ms=statistics.mean(t.median_ms for t in times) if complete else None,
        ms_low=statistics.mean(t.low_ms for t in times) if complete else None,
        ms_high=statistics.mean(t.high_ms for t in times) if complete else None,
        cells=tuple(numbers),
        run_id=runs[numbers[0]].id,
    )


def _mean(values: Sequence[float | None], geometric: bool = False) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if not geometric:
        return statistics.mean(known)
    return statistics.geometric_mean(known) if min(known) > 0 else 0.0


@dataclass(frozen=True)
class Line:
    """One solver over its step counts; `fitted` is None where it cannot be told, `why` says why."""

    name: str
    stochastic: bool
    nominal: int | None
    points: tuple[Method, ...]
    fitted: float | None = None
    why: str = ""


def convergence(found: Sequence[Method], floor: float = 0.0) -> list[Line]:
    """Distance to the reference against function evaluations, with the order that it shows.

    The order is minus the slope of the least-squares line through log rms against log nfe, over
    the points above twice the `floor`, the reference's own error. A stochastic sampler has none.
    """
    lines: dict[str, list[Method]] = {}
    for method in found:
        if method.rms_latents:
            lines.setdefault(method.line, []).append(method)
    return [_line(name, sorted(points, key=lambda m: m.nfe), floor)
            for name, points in lines.items()]


def _line(name: str, points: Sequence[Method], floor: float) -> Line:
    first = points[0]
    used = [m for m in points if m.rms_latents > 2 * floor]
    fitted, why = None, ""
    if first.stochastic:
        why = "stochastic: it draws fresh noise, and does not converge to this picture"
    elif len({m.nfe for m in used}) < FIT_AT_LEAST:
        why = f"fewer than {FIT_AT_LEAST} step counts above the reference's own error"
    else:
        x, y = ([math.log(value) for value in values]
                for values in zip(*((m.nfe, m.rms_latents) for m in used), strict=True))
        fitted = -statistics.linear_regression(x, y).slope
    return Line(name, first.stochastic, first.order, tuple(points), fitted, why)


def pareto_front(found: Sequence[Method]) -> list[Method]:
    """The methods that no other beats in both measured time and distance, the fastest first."""
    known = [m for m in found if m.ms is not None and m.rms_latents is not None]
    front: list[Method] = []
    for method in sorted(known, key=lambda m: (m.ms, m.rms_latents)):
        if not front or method.rms_latents < front[-1].rms_latents:
            front.append(method)
    return front


def verdict(found: Sequence[Method], reference: str) -> str:
    """Quality against time in one or two sentences, '' where no times were measured."""
    front = pareto_front([m for m in found if m.rms_latents])
    if len(front) < 2:
        return ""
    closest = front[-1]
    good = [m for m in front if m.psnr is not None and m.psnr >= GOOD_PSNR]
    chosen = good[0] if good else closest
    where = "the converged picture" if reference == "converged" else "the reference cell"
    within = f"within {chosen.rms_latents:.3g} of {where} (RMS of latents"
    within += f", {chosen.psnr:.1f} dB)" if chosen.psnr is not None else ")"
    if chosen is closest:
        reason = ("No faster one reaches" if good else "None reaches")
        return (f"{chosen.name} comes closest: {within}, in {_ms(chosen.ms)}. {reason} "
                f"{GOOD_PSNR:.0f} dB, below which differences can be seen.")
    return (f"{chosen.name} is {within} in {_ms(chosen.ms)}: {_share(chosen.ms / closest.ms)} of "
            f"the time of {closest.name}, the closest ({closest.rms_latents:.3g}).")


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def _share(value: float) -> str:
    """0.2 as 'a fifth'; a percentage where no plain fraction is near."""
    words = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth", 8: "an eighth",
             10: "a tenth"}  # fmt: skip
    near = min(words, key=lambda n: abs(value - 1 / n))
    return words[near] if abs(value * near - 1) < 0.06 else f"{value:.0%}"


@dataclass(frozen=True)
class PictureFacts:
    """`spread`: standard deviation of the pixels, of 255; `saturated`: share of the pixels that are
    not dark whose colour is nearly pure (saturation above 0.8 in HSV), or clipped to white."""

    spread: float
    saturated: float


@functools.lru_cache(4096)
def picture_facts(path: Path) -> PictureFacts:
    """Read from a file that never changes: it is named by its hash. Raises OSError."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    most, least = pixels.max(-1).astype(float), pixels.min(-1).astype(float)
    pure = (most > DARK) & (most - least > PURE * most)
    return PictureFacts(float(pixels.std()), float((pure | (least >= 254)).mean()))


@dataclass(frozen=True)
class Flag:
    """Something that a person should look at: a sentence, and the numbers of its cells."""

    kind: str
    text: str
    cells: tuple[int, ...]


def flags(
    comparison: Comparison, runs: Sequence[Run | None], pictures: PictureStore
) -> list[Flag]:
    """Equal pictures where an axis says that they differ, empty pictures, saturated ones."""
    return [*_without_effect(comparison, runs), *_empty(runs, pictures),
            *_saturated(comparison, runs, pictures)]


def _without_effect(comparison: Comparison, runs: Sequence[Run | None]) -> list[Flag]:
    """For each axis the values that make the same picture in every place that has both."""
    cells = comparison.cells
    found = []
    for axis in comparison.axes:
        if set(axis.parts) <= COST_ONLY:
            continue
        rest = [other.name for other in comparison.axes if other is not axis]
        groups: dict[tuple, dict[str, list[int]]] = {}
        for number, (cell, run) in enumerate(zip(cells, runs, strict=True)):
            if run and run.image_sha256:
                place = tuple(cell.axes[name] for name in rest)
                groups.setdefault(place, {}).setdefault(run.image_sha256, []).append(number)
        same = [numbers for group in groups.values() for numbers in group.values()
                if len(numbers) > 1]
        by_values: dict[tuple, list[list[int]]] = {}
        for numbers in same:
            values = tuple(label(axis.name, cells[n].axes[axis.name]) for n in numbers)
            by_values.setdefault(values, []).append(numbers)
        for values, places in by_values.items():
            where = f" in {len(places)} of {len(groups)} places" if len(groups) > 1 else ""
            found.append(Flag(
                "no effect", f"{axis.name}: {' and '.join(values)} make the same picture{where}.",
                tuple(n for numbers in places for n in numbers)))
    return found


def _empty(runs: Sequence[Run | None], pictures: PictureStore) -> list[Flag]:
    diverged = tuple(n for n, run in enumerate(runs)
                     if run and run.status == "failed" and "not finite" in (run.error or ""))
    blank = tuple(n for n, facts in _facts(runs, pictures) if facts.spread < BLANK)
    found = []
    if diverged:
        found.append(Flag("not finite", f"{_cells(diverged)} diverged: values that are not finite.",
                          diverged))
    if blank:
        found.append(Flag("empty", f"{_cells(blank)} black or of one colour.", blank))
    return found


def _saturated(
    comparison: Comparison, runs: Sequence[Run | None], pictures: PictureStore
) -> list[Flag]:
    """Cells with many saturated pixels, where the lowest guidance in the same place has few."""
    if "guidance_scale" not in {axis.name for axis in comparison.axes}:
        return []
    cells, facts = comparison.cells, dict(_facts(runs, pictures))
    places: dict[tuple, list[int]] = {}
    for number in facts:
        place = tuple(value for name, value in cells[number].axes.items()
                      if name != "guidance_scale")
        places.setdefault(place, []).append(number)
    found = []
    for numbers in places.values():
        numbers.sort(key=lambda n: cells[n].axes["guidance_scale"])
        least = facts[numbers[0]].saturated
        found += [n for n in numbers[1:] if facts[n].saturated > SATURATED + TIMES * least]
    if not found:
        return []
    scales = sorted({cells[n].axes["guidance_scale"] for n in found})
    return [Flag("saturated", f"{_cells(found)} saturated, at guidance_scale "
                 f"{', '.join(f'{scale:g}' for scale in scales)}: many pixels of pure colour or "
                 "plain white.", tuple(found))]  # fmt: skip


def _facts(runs: Sequence[Run | None], pictures: PictureStore) -> list[tuple[int, PictureFacts]]:
    found = []
    for number, run in enumerate(runs):
        if run and run.image_sha256:
            try:
                found.append((number, picture_facts(pictures.path(run.image_sha256))))
            except OSError:  # the picture is gone; the sheet says so
                continue
    return found


def _cells(numbers: Sequence[int]) -> str:
    return f"{len(numbers)} cell is" if len(numbers) == 1 else f"{len(numbers)} cells are"


@dataclass(frozen=True)
class GuidancePoint:
    """`accuracy`: share of pictures, 0 to 1, that show all that their prompt names, as the judge
    sees them, None where it cannot judge; `diversity`: mean of 1 - SSIM over pairs of pictures of
    one prompt with different seeds, None without such pairs; `clip_score`: mean over `scored`
    pictures, None where none was measured."""

    guidance_scale: float
    accuracy: float | None
    judged: int
    diversity: float | None
    pairs: int
    clip_score: float | None
    scored: int
    cells: tuple[int, ...]


def guidance(
    comparison: Comparison,
    runs: Sequence[Run | None],
    pictures: PictureStore,
    scores: Sequence[Distance | None] = (),
) -> list[GuidancePoint]:
    """Prompt accuracy, CLIP score (`Engine.clip_scores`) and diversity by guidance_scale; [] where
    it is on no axis."""
    if not any("guidance_scale" in axis.parts for axis in comparison.axes):
        return []
    groups: dict[float, list[int]] = {}
    for number, run in enumerate(runs):
        if run and run.image_sha256 and pictures.path(run.image_sha256).exists():
            groups.setdefault(run.guidance_scale, []).append(number)
    scores = scores or [None] * len(runs)
    return [_guidance_point(scale, numbers, comparison, runs, pictures, scores)
            for scale, numbers in sorted(groups.items())]


def _guidance_point(
    scale: float,
    numbers: Sequence[int],
    comparison: Comparison,
    runs: Sequence[Run | None],
    pictures: PictureStore,
    scores: Sequence[Distance | None],
) -> GuidancePoint:
    judged = [_follows_prompt(pictures.path(runs[n].image_sha256), runs[n].prompt)
              for n in numbers if runs[n].model_id == "postcards"]
    judged = [follows for follows in judged if follows is not None]
    cells = comparison.cells
    families: dict[tuple, list[int]] = {}
    for n in numbers:
        rest = tuple((name, value) for name, value in cells[n].axes.items() if name != "seed")
        families.setdefault(rest, []).append(n)
    unlike = [
        1 - _ssim(*sorted(pictures.path(runs[n].image_sha256) for n in (one, other)))
        for members in families.values()
        for at, one in enumerate(members) for other in members[:at]
    ]  # fmt: skip
    scored = [scores[n].clip_score for n in numbers if scores[n]]
    return GuidancePoint(
        guidance_scale=scale,
        accuracy=statistics.mean(judged) if judged else None,
        judged=len(judged),
        diversity=statistics.mean(unlike) if unlike else None,
        pairs=len(unlike),
        clip_score=_mean(scored),
        scored=len(scored),
        cells=tuple(numbers),
    )


@functools.lru_cache(4096)
def _ssim(one: Path, other: Path) -> float:
    from PIL import Image

    from pipelines.measurement import ssim

    with Image.open(one) as a, Image.open(other) as b:
        return ssim(a.convert("RGB"), b.convert("RGB"))


@functools.lru_cache(4096)
def _follows_prompt(path: Path, prompt: str) -> bool | None:
    """Whether the judge sees all that a prompt names; None where it names nothing it knows."""
    from PIL import Image

    wanted = named_in(prompt)
    if not wanted:
        return None
    judge = _classifier()
    from pipelines.postcards.classifier import classify

    with Image.open(path) as image:
        seen = classify(judge, [image])[0]
    return all(seen[name] == value for name, value in wanted.items())


@functools.cache
def _classifier() -> Any:
    from pipelines.models.opening import warm_libraries

    warm_libraries()  # another thread may be half through importing them
    from pipelines.postcards.classifier import load_classifier

    return load_classifier()


def named_in(prompt: str) -> dict[str, str]:
    """What a prompt of the bundled model names of subject, colour, place and time of day."""
    from pipelines.postcards import vocabulary

    text = " ".join(re.findall(r"[a-z]+", prompt.lower()))
    named = {}
    for kind, phrases in (("scene", vocabulary.PLACE_PHRASES), ("time", vocabulary.TIME_PHRASES)):
        for value, options in phrases.items():
            if any(f" {phrase} " in f" {text} " for phrase in options):
                named[kind] = value
    subjects = []
    for subject, options in vocabulary.SUBJECT_WORDS.items():
        for word in sorted(set(options), key=len, reverse=True):
            if found := re.search(rf"(?:(\w+) )?\b{word}(?:s|es)?\b", text):
                subjects.append((found.start(), subject, found[1]))
                break
    if subjects:
        _, named["subject"], before = min(subjects)
        if before in vocabulary.COLOURS:
            named["colour"] = before
    return named
