"""A comparison's cells for machines: one record each. The command line, the page, the exported page
and JSON give it as it is, CSV flat and with every column of the log."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipelines import measuring
from pipelines.axes import label
from pipelines.comparison import Comparison, logged_comparison
from pipelines.log_tables import MEASURES, STAGES, Distance, Run
from pipelines.provenance.record import made_with
from pipelines.run_log import TimingSummary
from pipelines.stores import PictureStore

if TYPE_CHECKING:
    from pipelines.engine import Engine


# What people read in a spreadsheet: its heading -> the column of a row.
READABLE = {
    "Run": "id", "Made (UTC)": "datetime_utc", "Status": "status", "Error": "error",
    "Model": "model_id", "Task": "task", "Prompt": "prompt", "Negative prompt": "negative_prompt",
    "Scheduler": "scheduler", "Steps": "num_inference_steps", "Guidance": "guidance_scale",
    "Seed": "seed", "Width (px)": "width", "Height (px)": "height", "Time (ms)": "total_ms",
    "Timed apart, median (ms)": "measured_median_ms", "Function evaluations": "nfe",
    **{name: name for name in MEASURES}, "Notes": "notes", "Picture": "image",
}  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # also their wide forms
EXACT = 10**15  # a spreadsheet keeps 15 digits of a number


@dataclass(frozen=True)
class Results:
    """What came of a comparison, a value for each of its cells: the run, its distance to the
    reference, and how long it takes when it is timed apart. `with_paths`: whether records name the
    files of this machine; `made_with`: gives models and versions for the recipe; `truthful`:
    whether pictures carry how they were made."""

    comparison: Comparison
    runs: Sequence[Run | None]
    pictures: PictureStore
    distances: Sequence[Distance | None]
    timings: Sequence[TimingSummary | None]
    with_paths: bool = True
    made_with: Callable[[], dict[str, Any]] | None = None
    truthful: bool = True

    @classmethod
    def gather(
        cls,
        engine: Engine,
        comparison: Comparison,
        runs: Sequence[Run | None],
        reference: str | None = None,
    ) -> Results:
        """With what the log holds of distances and timings; nothing is computed."""
        distances = (measuring.distances(engine, comparison, runs, reference) if reference
                     else [None] * len(runs))
        return cls(comparison, runs, engine.pictures, distances, measuring.timings(engine, runs),
                   made_with=functools.partial(made_with, engine, runs))

    @classmethod
    def of_log(cls, engine: Engine, comparison_id: str) -> Results:
        """Those of a comparison in the log; RequestError where there is none."""
        row, comparison, runs = logged_comparison(engine.run_log, comparison_id)
        return cls.gather(engine, comparison, runs, row.reference)

    @functools.cached_property
    def every_record(self) -> list[dict[str, Any]]:
        """A record for each place, also of those that a rule leaves out."""
        pictures = self.pictures if self.with_paths else None
        return [cell_record(cell.axes, run, pictures, distance, timing)
                for cell, run, distance, timing in zip(
                    self.comparison.cells, self.runs, self.distances, self.timings, strict=True)]

    @property
    def records(self) -> list[dict[str, Any]]:
        """A record for each cell that is not left out."""
        return [record for cell, record in zip(
            self.comparison.cells, self.every_record, strict=True) if not cell.left_out]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The records flat, each with the run's columns of the log behind it; of a cell without a
        run, those that its request has."""
        rows = []
        for cell, run, record in zip(
            self.comparison.cells, self.runs, self.every_record, strict=True
        ):
            if cell.left_out:
                continue
            measured = record["measured"] or {}
            row = {**cell.axes, **{name: record[name] for name in MEASURES},
                   **{f"measured_{name}": measured.get(name)
                      for name in ("repeats", "median_ms", "low_ms", "high_ms")},
                   "status": record["status"], "error": record["error"]}
            columns = [column.name for column in Run.__table__.columns
                       if column.name not in (*row, "axes", "request")]
            row |= {name: getattr(run or cell.request, name, None) for name in columns}
            rows.append(row | {"image": record["image"]})
        return rows


def cell_record(
    axes: dict[str, Any],
    run: Run | None,
    pictures: PictureStore | None,
    distance: Distance | None = None,
    timing: TimingSummary | None = None,
) -> dict[str, Any]:
    """What a cell is, how it went, what it cost, where its picture lies (None without `pictures`),
    how far it is from the comparison's reference, and how long it takes when timed apart."""

    def of_run(name: str, otherwise: Any = None) -> Any:
        return getattr(run, name, otherwise)

    sha256 = of_run("image_sha256")
    return {
        "run_id": of_run("id"),
        "parent_id": of_run("parent_id"),
        "axes": axes,
        "status": of_run("status", "cancelled"),
        "error": of_run("error"),
        "nfe": of_run("nfe"),
        "noise_sha256": of_run("noise_sha256"),
        "notes": of_run("notes", []),
        "shared": of_run("shared", False),
        "reused": of_run("reused_from") is not None,
        "unmasked_pixels": of_run("unmasked_pixels"),
        "changed_unmasked_pixels": of_run("changed_unmasked_pixels"),
        "timings_ms": {name: of_run(f"{name}_ms") for name in (*STAGES, "load", "warm_up")},
        "image": str(pictures.path(sha256)) if pictures and sha256 else None,
        **(distance.as_dict() if distance else dict.fromkeys(MEASURES)),
        "measured": asdict(timing) if timing else None,
    }


def notes_of_runs(runs: Sequence[Run | None]) -> list[str]:
    """Each note of some runs once, with the number of runs that have it where not all do."""
    made = [run for run in runs if run]
    counts = Counter(note for run in made for note in dict.fromkeys(run.notes))
    return [note if count == len(made) else f"{note} ({count} of {len(made)})"
            for note, count in counts.items()]


class _Lines(io.StringIO):
    """Lines that end in a line feed. The writer of CSV ends them otherwise, since it quotes a value
    with a carriage return only where that is part of a line's end."""

    def write(self, line: str) -> int:
        ending = "\r\n" if line.endswith("\r\n") else "\n"
        return super().write(line.removesuffix(ending) + "\n")

    def taken(self) -> str:
        """What was written since the last time."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def to_csv(records: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """Records as CSV; lists and objects as JSON. `columns` come first, also where nothing is."""
    names = dict.fromkeys([*columns, *(name for record in records for name in record)])
    return "".join(_csv_lines(records, list(names)))


def _csv_lines(records: Iterable[dict[str, Any]], names: Sequence[str]) -> Iterator[str]:
    line = _Lines()
    writer = csv.DictWriter(line, names)
    writer.writeheader()
    yield line.taken()
    nested = dict | list | tuple
    for record in records:
        writer.writerow({name: json.dumps(value) if isinstance(value, nested) else value
                         for name, value in record.items()})
        yield line.taken()


def runs_csv(runs: Iterable[Run]) -> Iterator[str]:
    """Runs with every column of the log, as the lines of a CSV file, each made when it is asked
    for."""
    return _csv_lines((run.as_dict() for run in runs), Run.__table__.columns.keys())


def runs_json(runs: Iterable[Run]) -> Iterator[str]:
    """Runs with every column as the lines of a JSON list, each made when it is asked for."""
    sign = "["
    for run in runs:
        yield f"{sign}\n{json.dumps(run.as_dict(), ensure_ascii=False)}"
        sign = ","
    yield "[]\n" if sign == "[" else "\n]\n"


def spreadsheet(rows: Sequence[dict[str, Any]], axes: Sequence[str] = ()) -> str:
    """Rows as CSV for people; see `spreadsheet_lines`."""
    return "".join(spreadsheet_lines(lambda: rows, axes))


def spreadsheet_lines(
    rows: Callable[[], Iterable[dict[str, Any]]], axes: Sequence[str] = ()
) -> Iterator[str]:
    """Rows as the lines of CSV for people: `axes` and READABLE, as far as something stands there,
    with a mark by which a spreadsheet knows UTF-8. Text stays text, and an integer keeps its
    digits: an apostrophe stands before what would be taken for a formula or rounded.

    `rows` gives the rows each time it is called: once to see which columns hold something."""
    columns = {name: name for name in axes if name not in READABLE.values()} | READABLE
    empty, any_row = dict(columns), False
    for row in rows():
        any_row = True
        empty = {heading: name for heading, name in empty.items()
                 if row.get(name) in (None, "", [])}
    if any_row:
        columns = {heading: name for heading, name in columns.items() if heading not in empty}
    line = _Lines()
    writer = csv.writer(line, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(columns)
    yield "\ufeff" + line.taken()
    for row in rows():
        writer.writerow([_for_people(name, row.get(name)) for name in columns.values()])
        yield line.taken()


def _for_people(name: str, value: Any) -> str | int | float:
    """A value as a spreadsheet shows it."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < EXACT:
        return round(value, 1) if name.endswith("_ms") else value
    if value in (None, ""):
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"'{value}"
    text = "; ".join(map(str, value)) if isinstance(value, list | tuple) else label(name, value)
    if name == "datetime_utc":
        text = text[:19].replace("T", " ")
    harmful = text.lstrip().startswith(FORMULA) or text.startswith(("\t", "\r", "\n"))
    return f"'{text}" if harmful else text


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
