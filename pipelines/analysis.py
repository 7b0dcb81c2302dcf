"""What the methods of a comparison teach: convergence, and quality against time."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.axes import label
from pipelines.comparison import Cell, Comparison, axes_key
from pipelines.errors import RequestError
from pipelines.fields import METHOD_FIELDS
from pipelines.log_tables import Distance, Run
from pipelines.request import RunRequest
from pipelines.run_log import TimingSummary
from pipelines.schedulers import known_scheduler
from pipelines.study.statistics import ALPHA, FEWEST_PROMPTS, compare, holm, told_apart

STOCHASTIC_TYPES = {"sde-dpmsolver", "sde-dpmsolver++"}
MOST_NAMED = 8  # methods in a sentence
FIT_AT_LEAST = 3  # points of a line


@dataclass(frozen=True)
class Method:
    """One way to compute, over all that was asked of it: the mean of its cells.

    `rms_latents` and `psnr` are means over the cells that have them (geometric for rms); `ms` is
    the median of measured times, None where a cell has none, `ms_low` and `ms_high` the shortest
    and longest of `repeats`. `cells` are their numbers. `by_prompt`: prompt -> what else is asked
    for -> rms_latents. `rms_low` and `rms_high`: the 95 % interval of the mean over prompts, None
    for fewer than FEWEST_PROMPTS.
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
    repeats: int = 0
    by_prompt: Mapping[str, Mapping[Any, float]] = field(default_factory=dict)
    rms_low: float | None = None
    rms_high: float | None = None


def is_stochastic(request: RunRequest) -> bool:
    """Whether fresh noise is drawn on the way, so that no ODE is solved."""
    info = known_scheduler(request.scheduler)
    if info is None:
        return False
    if {**info.options, **request.scheduler_options}.get("algorithm_type") in STOCHASTIC_TYPES:
        return True
    if info.noise_by_eta and request.eta > 0:
        return True
    return info.stochastic and "algorithm_type" not in info.options


def nominal_order(request: RunRequest) -> int | None:
    """The order of accuracy that the literature gives a deterministic solver."""
    info = known_scheduler(request.scheduler)
    if info is None or is_stochastic(request):
        return None
    order = request.scheduler_options.get("solver_order", info.order)
    return int(order) if isinstance(order, int | float) and order else None


def methods(
    comparison: Comparison,
    runs: Sequence[Run | None],
    distances: Sequence[Distance | None] = (),
    timings: Sequence[TimingSummary | None] = (),
) -> list[Method]:
    """The comparison's ways to compute, in the order of its cells; how a provider computes is not
    known."""
    cells = comparison.cells
    groups: dict[tuple, list[int]] = {}
    for number, (cell, run) in enumerate(zip(cells, runs, strict=True)):
        if run and run.status == "ok" and not cell.left_out and not run.hosted:
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
    asked = {axis.name for axis in comparison.axes} - {axis for axis, _ in how}
    by_prompt: dict[str, dict[Any, float]] = {}
    for n in numbers:
        if distances[n] and distances[n].rms_latents:
            rest = axes_key({name: cells[n].axes[name] for name in asked})
            by_prompt.setdefault(runs[n].prompt, {})[rest] = distances[n].rms_latents
    low, high = _interval(by_prompt)
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
        repeats=min(t.repeats for t in times) if complete else 0,
        by_prompt=by_prompt,
        rms_low=low,
        rms_high=high,
    )


def _interval(by_prompt: Mapping[str, Mapping[Any, float]]) -> tuple[float | None, float | None]:
    """Of the geometric mean, resampled over prompts."""
    if len(by_prompt) < FEWEST_PROMPTS:
        return None, None
    estimate = compare([_table([{rest: math.log(rms) for rest, rms in values.items()}
                                for values in by_prompt.values()])])[0]
    return math.exp(estimate.low), math.exp(estimate.high)


def _table(rows: Sequence[Mapping[Any, float]]) -> list[list[float]]:
    """Rows of equal length, NaN where one has no value."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [[row.get(name, math.nan) for name in columns] for row in rows]


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
    """The timed methods for which no other can be told to be both faster and closer."""
    timed = [m for m in all_methods if m.ms is not None and m.rms_latents]
    closer, faster = _closer(timed), _faster(timed)
    return [m for place, m in enumerate(timed)
            if not any((other, place) in closer & faster for other in range(len(timed)))]


def verdict(all_methods: Sequence[Method], reference: str) -> str:
    """Quality against time in a few sentences, '' where fewer than two methods were timed. A method
    is called closer only over many prompts, and faster only where the repeats lie apart."""
    timed = sorted((m for m in all_methods if m.ms is not None and m.rms_latents),
                   key=lambda m: m.ms)
    if len(timed) < 2:
        return ""
    where = "the converged picture" if reference == "converged" else "the reference cell"
    return f"{_in_distance(timed, where)} {_in_time(timed)}"


def _in_distance(timed: Sequence[Method], where: str) -> str:
    prompts = max(1, len(_common_prompts(timed)))
    if prompts < FEWEST_PROMPTS:
        return (f"{_number(prompts, 'prompt')} cannot tell which method is closer to {where}: "
                "another prompt or seed may turn the order.")
    closer = _closer(timed)
    nearest = min(range(len(timed)), key=lambda n: timed[n].rms_latents)
    alike = [m.name for n, m in enumerate(timed) if n != nearest and (nearest, n) not in closer]
    text = (f"Over {prompts} prompts {timed[nearest].name} comes closest to {where}: "
            f"{_with_interval(timed[nearest])} (RMS of latents)")
    return f"{text}; {_listed(alike)} cannot be told apart from it." if alike else f"{text}."


def _in_time(timed: Sequence[Method]) -> str:
    """The methods in groups, each faster than the next."""
    faster = _faster(timed)
    groups: list[list[int]] = []
    for place in range(len(timed)):
        # A group ends where all before it are faster than all behind it.
        if all((a, b) in faster for a in range(place) for b in range(place, len(timed))):
            groups.append([])
        groups[-1].append(place)
    told = [f"{_listed([timed[n].name for n in group])} ({_ms(timed[group[0]].ms)}"
            + (f" to {_ms(timed[group[-1]].ms)})" if len(group) > 1 else ")") for group in groups]
    if len(groups) == 1:
        return f"In time {told[0]} cannot be told apart: the ranges of their repeats overlap."
    text = f"In time {', faster than '.join(told)}."
    alike = any(len(group) > 1 for group in groups)
    return f"{text} Methods named together cannot be told apart." if alike else text


def _closer(timed: Sequence[Method]) -> set[tuple[int, int]]:
    """The pairs (a, b) of which a is closer than b over the prompts that all have, adjusted over
    all pairs; none for few prompts."""
    prompts = _common_prompts(timed)
    if len(prompts) < FEWEST_PROMPTS or len(timed) < 2:
        return set()
    pairs = list(itertools.combinations(range(len(timed)), 2))
    tables = []
    for a, b in pairs:
        one, other = timed[a].by_prompt, timed[b].by_prompt
        tables.append(_table([{rest: math.log(one[prompt][rest] / other[prompt][rest])
                               for rest in one[prompt].keys() & other[prompt].keys()}
                              for prompt in prompts]))
    width = max(len(row) for table in tables for row in table)
    padded = [[row + [math.nan] * (width - len(row)) for row in table] for table in tables]
    estimates = compare(padded)
    adjusted = holm([estimate.p if estimate else 1.0 for estimate in estimates])
    return {(a, b) if estimate.difference < 0 else (b, a)
            for (a, b), estimate, p in zip(pairs, estimates, adjusted, strict=True)
            if estimate and told_apart(estimate, p)}


def _common_prompts(timed: Sequence[Method]) -> list[str]:
    return [prompt for prompt in timed[0].by_prompt
            if all(prompt in method.by_prompt for method in timed[1:])]


def _faster(timed: Sequence[Method]) -> set[tuple[int, int]]:
    """The pairs (a, b) of which every repeat of a took less than every one of b, where that is
    unlikely by chance for any of all pairs: with n repeats each, 2 of C(2n, n) orders do so."""
    pairs = math.comb(len(timed), 2)
    return {(a, b) for a, b in itertools.permutations(range(len(timed)), 2)
            if timed[a].ms_high < timed[b].ms_low
            and pairs * 2 / math.comb(timed[a].repeats + timed[b].repeats, timed[a].repeats)
            <= ALPHA}


def _with_interval(method: Method) -> str:
    interval = "" if method.rms_low is None else f" ({method.rms_low:.3g} to {method.rms_high:.3g})"
    return f"{method.rms_latents:.3g}{interval}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}s" if count > 1 else f"One {noun}"


def _listed(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMED:
        names = [*names[:MOST_NAMED - 1], f"{len(names) - MOST_NAMED + 1} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"
