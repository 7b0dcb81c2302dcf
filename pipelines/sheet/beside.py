"""Two comparisons of the log beside each other, cell by cell.

Cells stand in one row where what was asked of them is the same on every axis of either: where one
comparison varies what the other keeps, the other's own value counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.axes import OPTION, field_of, flat_values, label, replaces
from pipelines.comparison import Cell, Comparison, axes_key, logged_comparison
from pipelines.log_tables import MEASURES, Distance, Run
from pipelines.notation import shown
from pipelines.provenance.record import HARDWARE, VERSIONS
from pipelines.request import RunRequest
from pipelines.run_log import TimingSummary
from pipelines.sheet.cells import Results

if TYPE_CHECKING:
    from pipelines.engine import Engine

Pair = tuple[Any, Any]
COMPARED = ("nfe", "total_ms", "timed_apart_ms", "peak_memory_mib", *MEASURES)  # of a cell


@dataclass(frozen=True)
class Side:
    """A cell of one of the two: its run, and what was measured of it."""

    run: Run | None
    distance: Distance | None
    timing: TimingSummary | None

    @property
    def measures(self) -> dict[str, Any]:
        """What there is of COMPARED, by its name; a time shared with other cells is no measure."""
        if self.run is None or self.run.status != "ok":
            return {}
        memory = self.run.peak_memory_bytes
        values = {"nfe": self.run.nfe, "total_ms": None if self.run.shared else self.run.total_ms,
                  "timed_apart_ms": self.timing and self.timing.median_ms,
                  "peak_memory_mib": memory and round(memory / 2**20, 1),
                  **(self.distance.as_dict() if self.distance else {})}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def state(self) -> str:
        """'' for a picture, else why there is none."""
        if self.run is None:
            return "not made"
        return "" if self.run.status == "ok" else self.run.error or self.run.status


@dataclass(frozen=True)
class Row:
    """Cells of equal coordinates; None where only the other comparison has one."""

    coordinates: dict[str, Any]
    left: Side | None
    right: Side | None

    @property
    def name(self) -> str:
        return " · ".join(f"{name} {label(name, value)}" for name, value in
                          self.coordinates.items()) or "the only cell"

    @property
    def same_picture(self) -> bool:
        """Whether both have a picture, bit for bit the same."""
        runs = [side.run for side in (self.left, self.right) if side and side.run]
        return len(runs) == 2 and runs[0].image_sha256 is not None and (
            runs[0].image_sha256 == runs[1].image_sha256)


@dataclass(frozen=True)
class Beside:
    """Two comparisons: `differences` of what all of their cells share (base request, reference,
    models, versions, hardware) by name, and their cells in `rows`."""

    ids: tuple[str, str]
    comparisons: tuple[Comparison, Comparison]
    differences: dict[str, Pair]
    rows: Sequence[Row]

    @property
    def only(self) -> tuple[list[Row], list[Row]]:
        """The rows that only the first has, and only the second."""
        return ([row for row in self.rows if row.right is None],
                [row for row in self.rows if row.left is None])

    @property
    def records(self) -> list[dict[str, Any]]:
        """A flat record for each row: coordinates, and each measure of both."""
        records = []
        for row in self.rows:
            record: dict[str, Any] = {**row.coordinates, "same_picture": row.same_picture}
            for place, side in zip(("a", "b"), (row.left, row.right), strict=True):
                record[f"run_{place}"] = side.run.id if side and side.run else None
                record[f"state_{place}"] = side.state or "ok" if side else "no such cell"
            for name in COMPARED:
                for place, side in zip(("a", "b"), (row.left, row.right), strict=True):
                    record[f"{name}_{place}"] = side.measures.get(name) if side else None
            records.append(record)
        return records


def beside(engine: Engine, first: str, second: str) -> Beside:
    """Two comparisons of the log; RequestError where there is none of that id, or one cannot be
    read."""
    rows, results = [], []
    for comparison_id in (first, second):
        row, comparison, runs = logged_comparison(engine.run_log, comparison_id)
        rows.append(row)
        results.append(Results.gather(engine, comparison, runs, row.reference))
    names = _coordinates(*(result.comparison for result in results))
    sides = [_sides(result, names) for result in results]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    return Beside(
        (first, second), (results[0].comparison, results[1].comparison),
        _differences([row.reference for row in rows], results, names),
        [Row((sides[0].get(key) or sides[1][key])[0],
             *(side[key][1] if key in side else None for side in sides)) for key in keys])


def _coordinates(*comparisons: Comparison) -> list[str]:
    """What either varies, linked axes taken apart."""
    return list(dict.fromkeys(part for comparison in comparisons for axis in comparison.axes
                              for part in axis.parts))


def _sides(results: Results, names: Sequence[str]) -> dict[tuple, tuple[dict[str, Any], Side]]:
    """The cells by their coordinates."""
    sides = {}
    for cell, run, distance, timing in zip(
        results.comparison.cells, results.runs, results.distances, results.timings, strict=True
    ):
        if not cell.left_out:
            place = _place(results.comparison, cell, names)
            sides[axes_key(place)] = place, Side(run, distance, timing)
    return sides


def _place(comparison: Comparison, cell: Cell, names: Sequence[str]) -> dict[str, Any]:
    varied = flat_values(comparison.axes, cell.axes)
    return {name: varied[name] if name in varied else _value(cell.request, name)
            for name in names}


def _value(request: RunRequest, name: str) -> Any:
    """What a request has where it is not varied; None for words that were not replaced."""
    if replaces(name):
        return None
    if name.startswith(OPTION):
        return request.scheduler_options.get(name.removeprefix(OPTION))
    return getattr(request, field_of(name))


def _differences(
    references: Sequence[str | None], results: Sequence[Results], names: Sequence[str]
) -> dict[str, Pair]:
    """What all cells share and the two do not, by name: of the base request, then of what they ran
    with."""
    varied = {field_of(name) for name in names}
    told: list[dict[str, Any]] = []
    for reference, result in zip(references, results, strict=True):
        base = result.comparison.base.model_dump(mode="json")
        told.append({**{name: value for name, value in base.items() if name not in varied},
                     "reference": reference, **_ran_with(result.runs)})
    every = dict.fromkeys([*told[0], *told[1]])
    pairs = {name: (told[0].get(name), told[1].get(name)) for name in every}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _ran_with(runs: Sequence[Run | None]) -> dict[str, str]:
    """Versions, hardware and the contents of the models, as the runs noted them."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        if run is None or run.status != "ok":
            continue
        for name in (*VERSIONS, *HARDWARE):
            if name in run.environment:
                found.setdefault(name, {})[str(run.environment[name])] = None
        contents = run.environment.get("contents")
        content = contents.get("model") if isinstance(contents, dict) else None
        found.setdefault(f"files of {run.model_id}", {})[str(content or "not noted")[:16]] = None
    return {name: ", ".join(values) for name, values in found.items()}


def in_words(value: Any) -> str:
    """A value of `differences` as people read it."""
    return "–" if value in (None, "", [], {}) else value if isinstance(value, str) else shown(value)
