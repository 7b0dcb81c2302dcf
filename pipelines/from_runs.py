"""A comparison made of runs that were chosen one by one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from pipelines.axes import OPTION, make_axis
from pipelines.comparison import Comparison
from pipelines.errors import RequestError
from pipelines.fields import AXIS_FIELDS
from pipelines.log_tables import Run
from pipelines.request import RunRequest, join_model_id
from pipelines.run_marks import differences


def comparison_of(runs: Sequence[Run]) -> Comparison:
    """The comparison whose cells are these runs: what differs between them makes its axes, one
    each where every combination is there, else a single axis of linked values. Raises RequestError
    where nothing differs, or something that no axis can hold."""
    requests = [run.valid_request() for run in runs]
    base = requests[0]
    columns: dict[str, list[Any]] = {}
    for name in differences(runs):
        if name in ("revision", "variant"):
            name = "model_id"
        if name == "scheduler_options":
            columns |= _options(requests)
        elif name not in AXIS_FIELDS:
            raise RequestError(f"these runs differ in {name}, which no comparison varies; "
                               "choose runs that agree in it")
        elif name == "model_id":
            columns[name] = [join_model_id(r.model_id, r.revision, r.variant) for r in requests]
        else:
            columns[name] = [getattr(request, name) for request in requests]
    if not columns:
        raise RequestError("these runs were asked for the same; choose runs that differ")
    if "model_id" in columns:
        base = base.changed(revision=None, variant=None)
    rows = _unique(list(zip(*columns.values(), strict=True)))
    values = [_unique(column) for column in columns.values()]
    every = list(itertools.product(*values))
    if len(columns) > 1 and (len(every) != len(rows) or any(row not in rows for row in every)):
        return Comparison(base, (make_axis("+".join(columns), rows, base),))
    return Comparison(base, tuple(make_axis(name, column, base)
                                  for name, column in zip(columns, values, strict=True)))


def _options(requests: Sequence[RunRequest]) -> dict[str, list[Any]]:
    """The options of the scheduler that differ; RequestError where only some have one."""
    options = [request.scheduler_options for request in requests]
    names = dict.fromkeys(name for given in options for name in given)
    if missing := [name for name in names if any(name not in given for given in options)]:
        raise RequestError(f"scheduler_options: only some of these runs set {missing[0]}, so it "
                           "makes no axis; choose runs that all set it, or none")
    return {OPTION + name: [given[name] for given in options] for name in names
            if any(given[name] != options[0][name] for given in options)}


def _unique(values: Sequence[Any]) -> list[Any]:
    """Without repeats, in order; values may be lists."""
    seen: list[Any] = []
    for value in values:
        if value not in seen:
            seen.append(value)
    return seen
