"""Comparisons: a base request, axes, and the cells they make."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.axes import (
    Axis,
    Rule,
    field_of,
    flat_values,
    parse_axis,
    parse_rule,
    replaces,
    request_with,
)
from pipelines.errors import PipelineError, RequestError, first_line
from pipelines.fields import setup_levels
from pipelines.log_tables import ComparisonRow, Run
from pipelines.request import RunRequest
from pipelines.run_log import RunLog
from pipelines.schedulers import expected_evaluations

if TYPE_CHECKING:
    from pipelines.models.info import ModelInfo
    from pipelines.models.registry import Registry

MAX_CELLS = 1000


@dataclass(frozen=True)
class Cell:
    """One combination: its value on each axis, and the request it makes. `left_out` by a rule: it
    keeps its place, and is never made."""

    axes: dict[str, Any]
    request: RunRequest
    left_out: bool = False


@dataclass(frozen=True)
class Comparison:
    """A base request and axes. The first axis makes the rows, the second the columns, each
    further one more sheets; a single axis makes columns. `skip` are rules that leave cells out,
    such as 'scheduler=heun,num_inference_steps>20'. A second prompt_replace is named
    prompt_replace_2. Raises RequestError."""

    base: RunRequest
    axes: tuple[Axis, ...]
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", _told_apart(self.axes))
        names = [part for axis in self.axes for part in axis.parts]
        if twice := {name for name in names if names.count(name) > 1}:
            raise RequestError(f"axis {', '.join(sorted(twice))} is given more than once")
        count = math.prod(len(axis.values) for axis in self.axes)
        if count > MAX_CELLS:
            raise RequestError(f"received {count} cells, accepted up to {MAX_CELLS}")
        if not count:
            raise RequestError("an axis has no values")
        if self.skip and all(
            self._left_out(dict(zip(self._names, values, strict=True)))
            for values in itertools.product(*(axis.values for axis in self._ordered))
        ):
            raise RequestError(f"skip: {', '.join(self.skip)} leaves no cell")

    @classmethod
    def parse(
        cls, base: RunRequest, axes: Sequence[str], skip: Sequence[str] = ()
    ) -> Comparison:
        """From texts such as 'guidance_scale=1,3,7' and rules such as 'seed>2'."""
        return cls(base, tuple(parse_axis(text, base) for text in axes), tuple(skip))

    @classmethod
    def from_row(cls, row: ComparisonRow) -> Comparison:
        """As it stands in the run log; RequestError where its row is damaged, or of a version that
        knew other fields or values."""
        if row.damage:
            raise RequestError(f"comparison {row.id}: {row.damage}")
        where = f"comparison {row.id}: " if row.id else ""
        try:
            axes = tuple(Axis.from_dict(axis) for axis in row.axes)
            comparison = cls(RunRequest(**row.base), axes, tuple(row.skip))
            len(comparison.cells)  # builds them: what is wrong in one is said now
        except RequestError as error:
            raise RequestError(f"{where}{error}") from error
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise RequestError(f"{where}its base, axes and rules make no cells: "
                               f"{first_line(error)}") from error
        return comparison

    @property
    def rows(self) -> Axis | None:
        return self.axes[0] if len(self.axes) > 1 else None

    @property
    def columns(self) -> Axis | None:
        return self.axes[1] if len(self.axes) > 1 else self.axes[0] if self.axes else None

    @property
    def sheet_axes(self) -> tuple[Axis, ...]:
        return self.axes[2:]

    @property
    def varied(self) -> set[str]:
        """The fields of the request that differ between cells."""
        parts = {part for axis in self.axes for part in axis.parts}
        return set(map(field_of, parts))

    @functools.cached_property
    def _ordered(self) -> tuple[Axis, ...]:
        return (*self.sheet_axes, *self.axes[:2])

    @functools.cached_property
    def _names(self) -> list[str]:
        return [axis.name for axis in self._ordered]

    @functools.cached_property
    def _rules(self) -> list[Rule]:
        return [parse_rule(text, self.axes, self.base) for text in self.skip]

    def _left_out(self, values: Mapping[str, Any]) -> bool:
        if not self.skip:
            return False
        flat = flat_values(self.axes, values)
        return any(rule.holds(flat) for rule in self._rules)

    @functools.cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All combinations, sheet by sheet and row by row, each a valid request; those that a rule
        leaves out among them, so that a cell's number is its place."""
        cells = []
        for values in itertools.product(*(axis.values for axis in self._ordered)):
            axes = dict(zip(self._names, values, strict=True))
            left_out = self._left_out(axes)
            request = self.base if left_out else request_with(self.base, self._ordered, values)
            cells.append(Cell(axes, request, left_out))
        return tuple(cells)

    def match(self, runs: Sequence[Run]) -> list[Run | None]:
        """For each cell the newest of these runs that is its own."""
        by_axes = {axes_key(run.axes): run for run in sorted(runs, key=lambda run: run.id)}
        return [by_axes.get(axes_key(cell.axes)) for cell in self.cells]


def _told_apart(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """The axes, those that replace words numbered where another has their name: it is the key of a
    cell's value."""
    taken: set[str] = set()
    result = []
    for axis in axes:
        parts = []
        for part in axis.parts:
            further = (f"{part}_{number}" for number in itertools.count(2))
            names = itertools.chain([part], further if replaces(part) else ())
            parts.append(next((name for name in names if name not in taken), part))
            taken.add(parts[-1])
        name = "+".join(parts)
        result.append(axis if name == axis.name else replace(axis, name=name))
    return tuple(result)


def logged_comparison(
    run_log: RunLog, comparison_id: str
) -> tuple[ComparisonRow, Comparison, list[Run | None]]:
    """A comparison of the log: its row, itself, and for each cell its run or None; RequestError."""
    row = run_log.comparison(comparison_id)
    if row is None:
        newest = ", ".join(row.id for row in run_log.comparisons(3)) or "none yet"
        raise RequestError(f"comparison {comparison_id} is not in the log of this machine, which "
                           f"holds {newest}")
    comparison = Comparison.from_row(row)
    return row, comparison, comparison.match(run_log.runs(comparison_id=comparison_id))


def work_order(cells: Sequence[Cell]) -> list[int]:
    """The numbers of the cells to make, in the order of work: what is dear to set
    up changes least often, and what is left goes in the order of the sheet."""
    seen: dict[tuple, int] = {}
    ranks = []
    for cell in cells:
        ranks.append([seen.setdefault(level, len(seen)) for level in setup_levels(cell.request)])
    return sorted((n for n, cell in enumerate(cells) if not cell.left_out),
                  key=lambda n: (ranks[n], n))


def axes_key(axes: Mapping[str, Any]) -> tuple:
    """A cell's values as a key, equal before and after a trip through JSON."""
    return tuple(sorted((name, _hashable(value)) for name, value in axes.items()))


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return axes_key(value)
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Forecast:
    """What a comparison will cost: `seconds` is None where the log knows no such run, `based_on`
    counts the runs it was told from. `hosted` cells are a provider's: what they take is not in the
    other figures."""

    cells: int
    nfe: int
    seconds: float | None
    based_on: int
    hosted: int = 0


def forecast(
    requests: Sequence[RunRequest], run_log: RunLog, registry: Registry, shared: bool = False
) -> Forecast:
    """Pictures, function evaluations and time, from what the log knows of this machine; `shared`:
    for cells that share their UNet calls."""
    infos: dict[tuple, ModelInfo | None] = {}
    logged: dict[str, Sequence[Any]] = {}
    costs: dict[tuple, _Cost] = {}
    nfe, seconds, all_known, hosted = 0, 0.0, True, 0
    for request in requests:
        model = (request.model_id, request.revision, request.variant)
        if model not in infos:
            infos[model] = None
            with contextlib.suppress(PipelineError):  # the run will say what is wrong
                infos[model] = registry.describe(*model)
        info = infos[model]
        if info and info.hosted:
            hosted += 1
            continue
        size, scheduler = (request.height, request.width), request.scheduler
        if info:
            size = (request.height or info.height, request.width or info.width)
            scheduler = info.default_scheduler if scheduler == "default" else scheduler
        if request.model_id not in logged:
            logged[request.model_id] = run_log.costs(request.model_id)
        key = (request.model_id, size)
        if key not in costs:
            costs[key] = _Cost(logged[request.model_id], shared, size)
        steps = info.steps_to_run(request) if info else request.steps_to_run
        evaluations = expected_evaluations(scheduler, steps)
        nfe += evaluations
        guidance = request.guidance_scale
        if guidance is None and info:
            guidance = info.guidance_scale
        cell_seconds = costs[key].seconds(evaluations, (guidance or 0) > 1)
        all_known = all_known and cell_seconds is not None
        seconds += cell_seconds or 0.0
    based_on = sum(cost.count for cost in costs.values())
    known = all_known and len(requests) > hosted
    return Forecast(len(requests), nfe, seconds if known else None, based_on, hosted)


class _Cost:
    """Medians over the last runs of one model and size, on the device used last: of those that
    shared their calls or of those that did not, of the others where there are none."""

    def __init__(
        self, runs: Sequence[Any], shared: bool, size: tuple[int | None, int | None]
    ) -> None:
        runs = [run for run in runs if (run.height, run.width) == size and run.nfe]
        runs = [run for run in runs if run.shared == shared] or runs
        runs = [run for run in runs if run.device == runs[0].device]
        self.count = len(runs)
        self._rest = statistics.median(r.total_ms - r.denoising_ms for r in runs) if runs else 0
        self._per_call = {}
        for rows in (1, 2):
            times = [r.denoising_ms / r.nfe for r in runs if r.denoiser_rows == rows * r.nfe]
            if times:
                self._per_call[rows] = statistics.median(times)

    def seconds(self, evaluations: int, guided: bool) -> float | None:
        if not self._per_call:
            return None
        rows = 2 if guided else 1
        other = self._per_call.get(3 - rows, 0) * (2 if guided else 0.5)
        return (evaluations * self._per_call.get(rows, other) + self._rest) / 1000
