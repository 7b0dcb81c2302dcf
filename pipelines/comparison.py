"""Comparisons: a base request, axes, and the cells they make."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import PipelineError, RequestError
from pipelines.request import RunRequest
from pipelines.run_log import ComparisonRow, Run, RunLog
from pipelines.schedulers import BY_KEY, expected_evaluations

if TYPE_CHECKING:
    from pipelines.registry import Registry

NOT_AN_AXIS = {"task", "image", "mask_image", "scheduler_options"}
AXIS_NAMES = tuple(name for name in RunRequest.model_fields if name not in NOT_AN_AXIS)
TEXT_AXES = {"prompt", "negative_prompt"}
MAX_CELLS = 1000


@dataclass(frozen=True)
class Axis:
    """A field of the request and the values it takes, in order."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """One combination: its value on each axis, and the request it makes."""

    axes: dict[str, Any]
    request: RunRequest


@dataclass(frozen=True)
class Comparison:
    """A base request and axes. The first axis makes the rows, the second the columns, each
    further one more sheets; a single axis makes columns. Raises RequestError."""

    base: RunRequest
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        if twice := {name for name in names if names.count(name) > 1}:
            raise RequestError(f"axis {', '.join(sorted(twice))} is given more than once")
        count = 1
        for axis in self.axes:
            count *= len(axis.values)
        if count > MAX_CELLS:
            raise RequestError(f"received {count} cells, accepted up to {MAX_CELLS}")

    @classmethod
    def parse(cls, base: RunRequest, axes: Sequence[str]) -> Comparison:
        """From texts such as 'guidance_scale=1,3,7'."""
        return cls(base, tuple(parse_axis(text, base) for text in axes))

    @classmethod
    def from_row(cls, row: ComparisonRow) -> Comparison:
        """As it stands in the run log."""
        axes = tuple(Axis(axis["name"], tuple(axis["values"])) for axis in row.axes)
        return cls(RunRequest(**row.base), axes)

    @property
    def rows(self) -> Axis | None:
        return self.axes[0] if len(self.axes) > 1 else None

    @property
    def columns(self) -> Axis | None:
        return self.axes[1] if len(self.axes) > 1 else self.axes[0] if self.axes else None

    @property
    def sheet_axes(self) -> tuple[Axis, ...]:
        return self.axes[2:]

    def cells(self) -> list[Cell]:
        """All combinations, sheet by sheet and row by row, each a valid request."""
        ordered = (*self.sheet_axes, *self.axes[:2])
        cells = []
        for values in itertools.product(*(axis.values for axis in ordered)):
            axes = {axis.name: value for axis, value in zip(ordered, values, strict=True)}
            cells.append(Cell(axes, self.base.changed(**axes)))
        return cells

    def match(self, runs: Sequence[Run]) -> list[Run | None]:
        """For each cell the newest of these runs that is its own."""
        by_axes = {_axes_key(run.axes): run for run in sorted(runs, key=lambda run: run.id)}
        return [by_axes.get(_axes_key(cell.axes)) for cell in self.cells()]


def _axes_key(axes: Mapping[str, Any]) -> tuple:
    return tuple(sorted(axes.items()))


def parse_axis(text: str, base: RunRequest | None = None) -> Axis:
    """'NAME=VALUE,VALUE': a field of the request and its values, checked one by one.

    Prompts hold commas, so theirs are separated by '||'. Raises RequestError.
    """
    name, equals, listed = text.partition("=")
    name = name.strip()
    if not equals:
        raise RequestError(f"axis: received {text!r}, accepted NAME=VALUE,VALUE,...")
    separator = "||" if name in TEXT_AXES else ","
    return make_axis(name, [value.strip() for value in listed.split(separator)], base)


def make_axis(name: str, values: Sequence[Any], base: RunRequest | None = None) -> Axis:
    """An axis whose values are valid for the request; numbers may come as text."""
    if name not in AXIS_NAMES:
        raise RequestError(f"axis: received {name!r}, accepted {', '.join(AXIS_NAMES)}")
    if not values or ("" in values and name not in TEXT_AXES):
        raise RequestError(f"axis {name}: a value is missing")
    base = base or RunRequest()
    checked = tuple(getattr(base.changed(**{name: value}), name) for value in values)
    if twice := [value for i, value in enumerate(checked) if value in checked[:i]]:
        raise RequestError(f"axis {name}: {twice[0]!r} is given more than once")
    return Axis(name, checked)


def label(name: str, value: Any) -> str:
    """How a value reads in a heading."""
    if name == "scheduler" and value in BY_KEY:
        return BY_KEY[value].label
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "(empty)"


@dataclass(frozen=True)
class Forecast:
    """What a comparison will cost: `seconds` is None where the log knows no such run, `based_on`
    counts the runs it was told from."""

    cells: int
    nfe: int
    seconds: float | None
    based_on: int


def forecast(requests: Sequence[RunRequest], run_log: RunLog, registry: Registry) -> Forecast:
    """Pictures, function evaluations and time, from what the log knows of this machine."""
    costs: dict[tuple, _Cost] = {}
    nfe, seconds, known = 0, 0.0, True
    for request in requests:
        with contextlib.suppress(PipelineError):  # the run will say what is wrong
            request = registry.fill_in(request)
        key = (request.model_id, request.height, request.width)
        if key not in costs:
            costs[key] = _Cost(run_log, *key)
        evaluations = expected_evaluations(request.scheduler, request.steps_to_run)
        nfe += evaluations
        cell_seconds = costs[key].seconds(evaluations, request.guidance_scale > 1)
        known = known and cell_seconds is not None
        seconds += cell_seconds or 0.0
    based_on = sum(cost.count for cost in costs.values())
    return Forecast(len(requests), nfe, seconds if known and requests else None, based_on)


class _Cost:
    """Medians over the last measured runs of one model and size, on the device used last."""

    def __init__(
        self, run_log: RunLog, model_id: str, height: int | None, width: int | None
    ) -> None:
        runs = [
            run for run in run_log.runs(model_id=model_id, status="ok", limit=200)
            if (run.height, run.width) == (height, width) and run.nfe and not run.shared
        ]
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
