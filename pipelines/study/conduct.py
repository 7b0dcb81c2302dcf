"""A study being made: block by block of prompts, measured as it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines import measuring
from pipelines.errors import Cancelled
from pipelines.log_tables import Run
from pipelines.painting.result import Step
from pipelines.study.design import Study, keep
from pipelines.study.findings import Findings, WatchedStudy
from pipelines.study.measures import MEASURES
from pipelines.study.rows import set_status
from pipelines.study.user_measures import measure_runs

if TYPE_CHECKING:
    from pipelines.engine import Engine


def conduct(
    engine: Engine,
    study: Study,
    on_step: Callable[[Step], None] | None = None,
    on_cell: Callable[[Run], None] | None = None,
    check: Callable[[], None] | None = None,
    on_wait: Callable[[int], None] | None = None,
) -> Findings:
    """Make what the log does not hold of a study, measure it, and say what it shows.

    `on_step(step)` and `check` may raise Cancelled: what is done stays, and the same study goes on
    where it stopped. With `stop_when_decided` no further block is begun once all methods are told
    apart in the first measure. Raises what measuring raises.
    """
    keep(engine.run_log, study)
    set_status(engine.run_log, study.id, "running")
    watched, status = WatchedStudy(engine, study), "cancelled"
    try:
        status = _make(engine, study, watched, on_step, on_cell, check, on_wait)
        if "time" in study.measures:
            _time(engine, watched.look(), on_step, check)
    except Cancelled:
        status = "cancelled"
    finally:
        set_status(engine.run_log, study.id, status)
    return watched.look()


def _make(
    engine: Engine,
    study: Study,
    watched: WatchedStudy,
    on_step: Callable[[Step], None] | None,
    on_cell: Callable[[Run], None] | None,
    check: Callable[[], None] | None,
    on_wait: Callable[[int], None] | None,
) -> str:
    """The status that the study ends with."""
    measured = any(MEASURES[name].to_reference for name in study.measures)
    for number, cells in study.blocks():
        comparison = study.comparisons[number]
        ended: list[Run] = []

        def noted(_number: int, run: Run, ended: list[Run] = ended) -> None:
            ended.append(run)
            if on_cell:
                on_cell(run)

        runs = engine.compare(
            comparison, on_step and (lambda _, step: on_step(step)), noted,
            study.comparison_ids[number], shared=True, reference=study.reference, check=check,
            on_wait=on_wait, only=cells)
        if len(ended) < len(cells):  # compare() keeps a cancel to itself
            return "cancelled"
        if measured:
            measuring.measure(engine, comparison, runs, study.reference, on_step, check)
        if any(MEASURES[name].function for name in study.measures):
            distances = measuring.distances(engine, comparison, runs, study.reference) \
                if measured else [None] * len(runs)
            measure_runs(engine.run_log, engine.pictures, study.measures, runs, distances, check)
        if study.stop_when_decided and watched.look().decided:
            return "decided"
    return "done"


def _time(
    engine: Engine,
    findings: Findings,
    on_step: Callable[[Step], None] | None,
    check: Callable[[], None] | None,
) -> None:
    """Time the first seed of each prompt, each picture apart: all methods of a prompt one after the
    other, another one first for each, so that a slow minute falls on all of them."""
    values, methods = findings.values, len(findings.study.methods)
    table, runs = values.tables["time"], []
    for prompt in range(len(findings.study.prompts)):
        for turn in range(methods):
            place = ((turn + prompt) % methods, prompt, 0)
            if place in values.runs and not table[place] > 0:
                runs.append(values.runs[place])

    def checked(step: Step) -> None:
        if check:
            check()
        if on_step:
            on_step(step)

    measuring.measure_timings(engine, runs, 1, checked, mixed=True)
