"""A gate being made: its study, and the verdict on what that measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.gate.design import Gate
from pipelines.gate.verdict import Verdict, judge, speed_up
from pipelines.log_tables import Run
from pipelines.painting.result import Step
from pipelines.study import conduct as study_conduct
from pipelines.study.findings import Findings

if TYPE_CHECKING:
    from pipelines.engine import Engine


def conduct(
    engine: Engine,
    gate: Gate,
    on_step: Callable[[Step], None] | None = None,
    on_cell: Callable[[Run], None] | None = None,
    check: Callable[[], None] | None = None,
    on_wait: Callable[[int], None] | None = None,
) -> tuple[Verdict, Findings]:
    """The verdict of a gate, and what its study found; pictures, distances and times that the log
    has are taken from it. The callbacks and errors are those of a study's conduct()."""
    findings = study_conduct.conduct(engine, gate.study, on_step, on_cell, check, on_wait)
    return verdict_of(gate, findings), findings


def verdict_of(gate: Gate, findings: Findings) -> Verdict:
    """What a gate says of what its study found."""
    values = findings.values
    tables, complete = values.tables, values.complete and not values.failed
    notes = [note for note in findings.notes if not note.startswith("Intervals are")]
    baseline, candidate = gate.names
    return Verdict(
        baseline, candidate, judge(tables, gate.margins, complete),
        speed_up(tables["time"]) if "time" in tables else None, tuple(notes), gate.study.id)
