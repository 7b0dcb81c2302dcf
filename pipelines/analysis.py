"""What the methods of a comparison teach: convergence, and quality against time."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.axes import label
from pipelines.comparison import Cell, Comparison
from pipelines.errors import RequestError
from pipelines.fields import METHOD_FIELDS
from pipelines.log_tables import Distance, Run
from pipelines.request import RunRequest
from pipelines.run_log import TimingSummary
from pipelines.schedulers import BY_KEY

STOCHASTIC_TYPES = {"sde-dpmsolver", "sde-dpmsolver++"}
GOOD_PSNR = 40.0  # dB; differences below it can be seen
FIT_AT_LEAST = 3  # points of a line


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
    if info.noise_by_eta and request.eta > 0:
        return True
    return info.stochastic and "algorithm_type" not in info.options


def nominal_order(request: RunRequest) -> int | None:
    """The order of accuracy that the literature gives a deterministic solver."""
    info = BY_KEY.get(request.scheduler)
    if info is None or is_stochastic(request):
        return None
    order = request.scheduler_options.get("solver_order", info.order)
    return int(order) if isinstance(order, int | float) else None


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
    all_methods = (_method(comparison, cells, runs, distances, timings, numbers)
                   for numbers in groups.values())
    return [method for method in all_methods if method]


def _how(comparison: Comparison, cell: Cell, without: Iterable[str] = ()) -> tuple:
    """A cell's values on the axes that say how it is computed. The others say what is asked for:
    they decide the exact solution, and methods are averaged over them."""
    return tuple((axis.name, cell.axes[axis.name]) for axis in comparison.axes
                 if any(part.partition(".")[0] in METHOD_FIELDS for part in axis.parts)
                 and axis.name not in without)


def _method(
    comparison: Comparison,
    cells: Sequence[Cell],
    runs: Sequence[Run | None],
    distances: Sequence[Distance | None],
    timings: Sequence[TimingSummary | None],
    numbers: Sequence[int],
) -> Method | None:
    """None where this version can read the request of none of its runs."""
    first, request = cells[numbers[0]], None
    for number in numbers:
        with contextlib.suppress(RequestError):
            request = runs[number].valid_request()
            break
    if request is None:
        return None
    how = _how(comparison, first)
    line = [label(name, value) for name, value in
            _how(comparison, first, without=("num_inference_steps",))]
    name = [f"{value} steps" if axis == "num_inference_steps" else label(axis, value)
            for axis, value in how]
    scheduler = label("scheduler", request.scheduler)
    measured = [distances[n] for n in numbers if distances[n]]
    times = [timings[n] for n in numbers]
    complete = all(times)
    return Method(
        name=" ".join(name) or scheduler,
        line=" ".join(line) or scheduler,
        scheduler=request.scheduler,
        stochastic=is_stochastic(request),
        order=nominal_order(request),
        num_inference_steps=request.num_inference_steps,
        nfe=statistics.mean(runs[n].nfe for n in numbers),
        rms_latents=_mean([d.rms_latents for d in measured], geometric=True),
        psnr=_mean([d.psnr for d in measured]),
        ssim=_mean([d.ssim for d in measured]),
        clip_distance=_mean([d.clip_distance for d in measured]),
        ms=statistics.mean(t.median_ms for t in times) if complete else None,
        ms_low=statistics.mean(t.low_ms for t in times) if complete else None,
        ms_high=statistics.mean(t.high_ms for t in times) if complete else None,
        cells=tuple(numbers),
        run_id=runs[numbers[0]].id,
    )


def _mean(values: Sequence[float | None], geometric: bool = False) -> float | None:
    present = [value for value in values if value is not None]
    if not present:
        return None
    if not geometric:
        return statistics.mean(present)
    return statistics.geometric_mean(present) if min(present) > 0 else 0.0


@dataclass(frozen=True)
class Line:
    """One solver over its step counts; `fitted` is None where it cannot be told, `why` says why."""

    name: str
    stochastic: bool
    nominal: int | None
    points: tuple[Method, ...]
    fitted: float | None = None
    why: str = ""


def convergence(all_methods: Sequence[Method], floor: float = 0.0) -> list[Line]:
    """Distance to the reference against function evaluations, with the order that it shows.

    The order is minus the slope of the least-squares line through log rms against log nfe, over
    the points above twice the `floor`, the reference's own error. A stochastic sampler has none.
    """
    lines: dict[str, list[Method]] = {}
    for method in all_methods:
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


def pareto_front(all_methods: Sequence[Method]) -> list[Method]:
    """The methods that no other beats in both measured time and distance, the fastest first."""
    measured = [m for m in all_methods if m.ms is not None and m.rms_latents is not None]
    front: list[Method] = []
    for method in sorted(measured, key=lambda m: (m.ms, m.rms_latents)):
        if not front or method.rms_latents < front[-1].rms_latents:
            front.append(method)
    return front


def verdict(all_methods: Sequence[Method], reference: str) -> str:
    """Quality against time in one or two sentences, '' where no times were measured."""
    front = pareto_front([m for m in all_methods if m.rms_latents])
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
             10: "a tenth"}
    near = min(words, key=lambda n: abs(value - 1 / n))
    return words[near] if abs(value * near - 1) < 0.06 else f"{value:.0%}"
