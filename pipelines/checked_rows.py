"""Rows of the log, each checked against its table as it is read.

A damaged disk, another program or a newer version may have put anything into a column. A row that
holds it says so, and what stands in it does not reach the lists, pages and exports that it is in.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ConfigDict, ValidationError, create_model
from sqlalchemy import event
from sqlalchemy.orm import Mapped
from sqlalchemy.orm.attributes import set_committed_value

Table = TypeVar("Table", bound=type)

SHOULD = "Input should be "  # what pydantic's reasons begin with
STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def checked(table: Table) -> Table:
    """A table whose rows are checked as they are read: what does not fit its column's annotation is
    replaced by None, or by the empty value of its type, and `damage` says so; a run with damage is
    a failed one. `contradictions()` of the table adds what no single column shows;
    `column_problems(values)` tells of values before they are a row."""
    hints = {name: get_args(hint)[0]
             for name, hint in inspect.get_annotations(table, eval_str=True).items()
             if get_origin(hint) is Mapped}
    model = create_model(table.__name__, __config__=STRICT,
                         **{name: (hint, ...) for name, hint in hints.items()})

    def column_problems(values: dict[str, Any]) -> dict[str, str]:
        """What does not fit its column, by its name: what was received and what is accepted."""
        problems = {}
        try:
            model.model_validate({name: values.get(name) for name in hints})
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                name = problem["loc"][0]
                received, accepted = _shown(values.get(name)), problem["msg"].removeprefix(SHOULD)
                problems[name] = f"{name}: received {received}, accepted {accepted}"
        return problems

    table.column_problems = staticmethod(column_problems)

    @event.listens_for(table, "load")
    def check(row: Any, _context: Any) -> None:
        problems = column_problems(row.__dict__)
        for name in problems:
            nullable = type(None) in get_args(hints[name])
            empty = None if nullable else (get_origin(hints[name]) or hints[name])()
            set_committed_value(row, name, empty)
        reasons = [*problems.values(), *row.contradictions()]
        if reasons:
            row.damage = f"this row of the log is damaged: {'; '.join(reasons)}"
            if "error" in hints:
                set_committed_value(row, "status", "failed")
                set_committed_value(row, "error", row.damage)

    return table


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
