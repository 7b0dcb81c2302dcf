"""A comparison being made: its cells from the log, and the rest from the engine."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.claims import make_once
from pipelines.comparison import Cell, Comparison, work_order
from pipelines.errors import Cancelled, PipelineError
from pipelines.log_tables import ComparisonRow, Run, utc_now
from pipelines.making import Wanted
from pipelines.measuring import CONVERGED, reference_cells
from pipelines.painting.result import Step
from pipelines.presence import Presence

if TYPE_CHECKING:
    from pipelines.engine import Engine


def new_comparison_id() -> str:
    return uuid.uuid4().hex[:12]


class Grid:
    """One comparison in work; `runs` has a run per cell, None where there is none yet."""

    def __init__(
        self,
        engine: Engine,
        comparison: Comparison,
        comparison_id: str | None = None,
        reference: str | None = None,
    ) -> None:
        """A new comparison, or one of the log; raises RequestError where the reference is no cell
        of it."""
        if reference and reference != CONVERGED:
            reference_cells(comparison, reference)
        self.engine, self.comparison, self.cells = engine, comparison, comparison.cells
        self.comparison_id = comparison_id or new_comparison_id()
        self.reference = reference
        self.runs: list[Run | None] = [None] * len(self.cells)

    def _begin(self, owner: str) -> None:
        """Say in the log that it is being made."""
        run_log, comparison = self.engine.run_log, self.comparison
        if run_log.comparison(self.comparison_id):
            run_log.set_status(self.comparison_id, "running", owner)
            return
        run_log.add(ComparisonRow(
            id=self.comparison_id,
            datetime_utc=utc_now(),
            base=comparison.base.model_dump(mode="json"),
            axes=[axis.as_dict() for axis in comparison.axes],
            skip=list(comparison.skip),
            reference=self.reference,
            owner=owner,
        ))

    def make(
        self,
        shared: bool,
        fresh: bool,
        on_step: Callable[[int, Step], None] | None,
        on_cell: Callable[[int, Run], None] | None,
        check: Callable[[], None] | None = None,
        on_wait: Callable[[int], None] | None = None,
        only: Collection[int] | None = None,
    ) -> list[Run | None]:
        """The arguments of `Engine.compare`."""
        run_log, status = self.engine.run_log, "cancelled"
        run_log.database.check_writable()
        with Presence(self.engine.home) as presence:
            self._begin(presence.owner)
            try:
                self._make(presence, shared, fresh, on_step, on_cell, check, on_wait, only)
                status = "done"
            except Cancelled:
                pass
            finally:
                run_log.set_status(self.comparison_id, status)
        return self.runs

    def _make(
        self,
        presence: Presence,
        shared: bool,
        fresh: bool,
        on_step: Callable[[int, Step], None] | None,
        on_cell: Callable[[int, Run], None] | None,
        check: Callable[[], None] | None,
        on_wait: Callable[[int], None] | None,
        only: Collection[int] | None,
    ) -> None:
        order = [number for number in work_order(self.cells) if only is None or number in only]
        identities = cell_identities(self.engine, self.cells, order)

        def look() -> list[int]:
            self._take_from_log(identities, fresh, on_cell)
            return [number for number in order if not self.runs[number]]

        def make(numbers: list[int]) -> None:
            if shared or self.engine.cluster:
                self._make_side_by_side(numbers, on_step, on_cell, check, not shared)
            else:
                self._make_one_by_one(numbers, on_step, on_cell, check)

        make_once(self.engine.run_log, identities, look, make, check, on_wait, not fresh, presence)
        self.engine.strips.complete(self.runs, check)

    def _take_from_log(
        self,
        identities: Mapping[int, str],
        fresh: bool,
        on_cell: Callable[[int, Run], None] | None,
    ) -> None:
        logged = self.engine.run_log.runs(comparison_id=self.comparison_id, status="ok")
        before = self.comparison.match(logged)
        missing = {number: identity for number, identity in identities.items()
                   if not self.runs[number]}
        for number, run in cells_in_log(self.engine, missing, before, fresh):
            if run is not before[number]:
                run = self.engine.run_log.add_copy(run, self.comparison_id,
                                                   self.cells[number].axes, self.engine.complete)
            if run:
                self._ended(number, run, on_cell)

    def _make_one_by_one(
        self,
        numbers: Sequence[int],
        on_step: Callable[[int, Step], None] | None,
        on_cell: Callable[[int, Run], None] | None,
        check: Callable[[], None] | None,
    ) -> None:
        for number in numbers:
            if check:
                check()
            run = self.engine.run(self.cells[number].request,
                                  on_step and functools.partial(on_step, number),
                                  self.comparison_id, self.cells[number].axes, check=check)
            if run.status == "cancelled":
                raise Cancelled("stopped by the user")
            self._ended(number, run, on_cell)

    def _make_side_by_side(
        self,
        numbers: Sequence[int],
        on_step: Callable[[int, Step], None] | None,
        on_cell: Callable[[int, Run], None] | None,
        check: Callable[[], None] | None,
        apart: bool,
    ) -> None:
        self.engine.make(
            [Wanted(self.cells[number].request, self.comparison_id, self.cells[number].axes)
             for number in numbers],
            on_step and (lambda place, step: on_step(numbers[place], step)),
            lambda place, run: self._ended(numbers[place], run, on_cell), check, apart)

    def _ended(
        self, number: int, run: Run, on_cell: Callable[[int, Run], None] | None
    ) -> None:
        self.runs[number] = run
        if on_cell:
            on_cell(number, run)


def cell_identities(
    engine: Engine, cells: Sequence[Cell], numbers: Iterable[int] | None = None
) -> dict[int, str]:
    """Cell numbers -> what decides their pictures; without those left out and those that fail."""
    known: dict[tuple, Any] = {}
    identities = {}
    for number in range(len(cells)) if numbers is None else sorted(numbers):
        if not cells[number].left_out:
            with contextlib.suppress(PipelineError):  # its run will say what is wrong
                identities[number] = engine.identity(cells[number].request, known)
    return identities


def cells_in_log(
    engine: Engine,
    identities: Mapping[int, str],
    before: Sequence[Run | None] = (),
    fresh: bool = False,
) -> Iterator[tuple[int, Run]]:
    """Cells that need not be made, with their runs: the cell's own of `before` where it was made of
    the same, else another run of the log unless `fresh`."""
    logged = {} if fresh else engine.run_log.of_identities(set(identities.values()))
    for number, identity in identities.items():
        mine = before[number] if before else None
        if mine and not mine.damage and mine.identity == identity and engine.complete(mine):
            yield number, mine
        elif run := next(filter(engine.complete, logged.get(identity, [])), None):
            yield number, run
