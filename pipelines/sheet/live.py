"""A comparison of the log as it grows, for pages that look at it again and again.

A look costs what changed since the last: nothing is read while nobody wrote to the log, and a cell
whose run, distance and timing are the same keeps its record, the same object, so that whoever draws
it can tell by `is`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines import measuring
from pipelines.comparison import Comparison, axes_key, work_order
from pipelines.log_tables import ComparisonRow, Distance, Run
from pipelines.measuring import CONVERGED
from pipelines.run_log import TimingSummary
from pipelines.sheet.cells import cell_record

if TYPE_CHECKING:
    from pipelines.engine import Engine


@dataclass(frozen=True)
class Look:
    """What the log held of a comparison: a run, a distance to the reference, a timing and a record
    for each cell, None for what is not there."""

    row: ComparisonRow
    comparison: Comparison
    runs: Sequence[Run | None]
    distances: Sequence[Distance | None]
    timings: Sequence[TimingSummary | None]
    records: Sequence[dict[str, Any]]
    results: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """make(), once for this look: what is worked out of it and does not change before it."""
        if key not in self.results:
            self.results[key] = make()
        return self.results[key]


class LiveComparison:
    """Looks at one comparison of an engine's log; safe for threads."""

    def __init__(self, engine: Engine, comparison_id: str) -> None:
        self._engine, self._id = engine, comparison_id
        self._lock = threading.Lock()
        self._version: int | None = None
        self._look: Look | None = None
        self._numbers: dict[tuple, int] = {}  # a cell's values -> its number
        self._steps: dict[int, str | None] = {}  # run id -> the picture of its steps
        self._measured: dict[int, list[tuple]] = {}  # run id -> its distances, to any reference

    def look(self) -> Look | None:
        """The comparison as it is now, the same object while the log is the same; None where the
        log has no such comparison."""
        with self._lock:
            version = self._engine.run_log.version()
            if self._look is None or version != self._version:
                self._look, self._version = self._read(), version
            return self._look

    @functools.cached_property
    def order(self) -> list[int]:
        """The numbers of the cells in the order of work."""
        look = self.look()
        return work_order(look.comparison.cells) if look else []

    def _read(self) -> Look | None:
        log, before = self._engine.run_log, self._look
        row = log.comparison(self._id)
        if row is None:
            return None
        steps = log.steps_of(self._id)
        if before is None or not self._steps.keys() <= steps.keys():
            before, self._steps, self._measured = None, {}, {}
        comparison = before.comparison if before else Comparison.from_row(row)
        count = len(comparison.cells)
        if before is None:
            self._numbers = {axes_key(cell.axes): n for n, cell in enumerate(comparison.cells)}

        runs = list(before.runs) if before else [None] * count
        new = [run_id for run_id, sha256 in steps.items()
               if self._steps.get(run_id, ...) != sha256]
        for run in log.runs_by_id(new):  # the newest of a cell is its own
            number = self._numbers.get(axes_key(run.axes))
            if number is not None and (runs[number] is None or runs[number].id <= run.id):
                runs[number] = run
        changed = {n for n in range(count) if before is None or runs[n] is not before.runs[n]}
        self._steps = steps

        distances = self._distances(row, comparison, runs, before, changed)
        timings = measuring.timings(self._engine, runs)
        records = list(before.records) if before else [None] * count
        for number, cell in enumerate(comparison.cells):
            if number in changed or (distances[number] is not before.distances[number]
                                     or timings[number] != before.timings[number]):
                records[number] = cell_record(cell.axes, runs[number], self._engine.pictures,
                                              distances[number], timings[number])
        return Look(row, comparison, runs, distances, timings, records)

    def _distances(
        self,
        row: ComparisonRow,
        comparison: Comparison,
        runs: Sequence[Run | None],
        before: Look | None,
        changed: set[int],
    ) -> list[Distance | None]:
        """Those to the comparison's reference, worked out anew for cells where one was measured
        since."""
        measured = self._engine.run_log.measured({run.source_id for run in runs if run})
        stale = {n for n, run in enumerate(runs) if run
                 and (n in changed or measured.get(run.source_id)
                      != self._measured.get(run.source_id))}
        self._measured = measured
        if not row.reference:
            return [None] * len(runs)
        if before is None or before.row.reference != row.reference or (
            stale and row.reference != CONVERGED  # then each depends on another cell's run
        ):
            return measuring.distances(self._engine, comparison, runs, row.reference)
        asked = [run if n in stale and run.source_id in measured else None
                 for n, run in enumerate(runs)]
        again = (measuring.distances(self._engine, comparison, asked, row.reference) if any(asked)
                 else [None] * len(runs))
        return [again[n] if n in stale else before.distances[n] for n in range(len(runs))]
