"""What the run log can be written as: one list for the command line and the page Runs.

A new format is a line in LOG_FORMATS and the function that writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import RequestError, StorageError
from pipelines.exchange.archive import OnDone, write_archive
from pipelines.exchange.columns import write_parquet
from pipelines.exchange.mlflow import write_mlflow
from pipelines.files import writing
from pipelines.hub.plan import size_text
from pipelines.log_tables import Run
from pipelines.run_filter import RunFilter
from pipelines.sheet.cells import runs_csv, runs_json, spreadsheet_lines

if TYPE_CHECKING:
    from pipelines.engine import Engine


@dataclass(frozen=True)
class Written:
    """What an export came to, in a sentence, and lines on what is not in it."""

    summary: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogFormat:
    """A format: `write(engine, target, run_filter, on_done)` makes a file, or a folder where the
    suffix is empty."""

    label: str
    suffix: str
    help: str
    write: Callable[[Engine, Path, RunFilter, OnDone | None], Written]


class _Counted:
    """The runs of a filter, counted as they pass."""

    def __init__(
        self, engine: Engine, run_filter: RunFilter, on_done: OnDone | None, passes: int = 1
    ) -> None:
        self._log, self._filter, self._on_done = engine.run_log, run_filter, on_done
        self.total, self.seen = engine.run_log.exact_count(run_filter) * passes, 0

    def __iter__(self) -> Iterator[Run]:
        for run in self._log.stream_of(self._filter):
            yield run
            self.seen += 1
            if self._on_done and self.seen % 100 == 0:
                self._on_done(min(self.seen, self.total), self.total)


def _zip(engine: Engine, target: Path, run_filter: RunFilter, on_done: OnDone | None) -> Written:
    made = write_archive(engine, target, run_filter, on_done)
    needed = f" ({made.needed:,} of them because others need them)" if made.needed else ""
    return Written(f"{made.runs + made.needed:,} runs{needed} and {made.files:,} files, "
                   f"{size_text(made.size)}", made.left_out)


def _parquet(
    engine: Engine, target: Path, run_filter: RunFilter, on_done: OnDone | None
) -> Written:
    return Written(f"{write_parquet(_Counted(engine, run_filter, on_done), target):,} runs")


def _lines(
    lines: Callable[[_Counted], Iterable[str]], passes: int = 1
) -> Callable[[Engine, Path, RunFilter, OnDone | None], Written]:
    """A text file, line by line."""

    def write(
        engine: Engine, target: Path, run_filter: RunFilter, on_done: OnDone | None
    ) -> Written:
        runs = _Counted(engine, run_filter, on_done, passes)
        try:
            with writing(target) as file:
                for line in lines(runs):
                    file.write(line.encode(errors="backslashreplace"))
        except OSError as error:
            raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
        return Written(f"{runs.seen // passes:,} runs")

    return write


def _mlflow(
    engine: Engine, target: Path, run_filter: RunFilter, on_done: OnDone | None
) -> Written:
    runs = _Counted(engine, run_filter, None)
    written = write_mlflow(engine, runs, runs.total, target, on_done)
    return Written(f"{written:,} runs are new in {target}, {runs.seen - written:,} were there")


LOG_FORMATS = {
    "zip": LogFormat("With pictures (ZIP)", ".zip",
                     "Runs, pictures, latents, marks, measures, comparisons and studies: what "
                     "import takes.", _zip),
    "parquet": LogFormat("Parquet", ".parquet", "A row per run, every column in its type.",
                         _parquet),
    "csv": LogFormat("CSV for programs", ".csv", "A row per run, every column.", _lines(runs_csv)),
    "spreadsheet": LogFormat(
        "CSV for a spreadsheet", "-spreadsheet.csv",
        "What people read; no text in it becomes a formula.",
        _lines(lambda runs: spreadsheet_lines(lambda: (run.as_dict() for run in runs)), 2)),
    "json": LogFormat("JSON", ".json", "A list of runs, every column.", _lines(runs_json)),
    "mlflow": LogFormat("MLflow", "", "A folder of MLflow's, by the package mlflow or "
                        "mlflow-skinny where it is installed.", _mlflow),
}


def format_of(target: Path, name: str | None) -> str:
    """The format of a file by its name's end, unless it is given; raises RequestError."""
    if name:
        return name
    ends = {form.suffix: key for key, form in LOG_FORMATS.items() if form.suffix}
    for suffix in sorted(ends, key=len, reverse=True):
        if target.name.endswith(suffix):
            return ends[suffix]
    raise RequestError(f"export: {target} does not say its format; accepted a name that ends in "
                       f"{', '.join(ends)}, or --format {', '.join(LOG_FORMATS)}")
