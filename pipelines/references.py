"""What the cells of a comparison are measured against, as text: 'converged', each cell's own
converged picture; a cell such as 'scheduler=ddim,num_inference_steps=50'; or the converged picture
of a cell, 'converged:torch_dtype=float32', for cells whose own would move with what is tested."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.axes import checked_value, value_of
from pipelines.comparison import Comparison, axes_key
from pipelines.errors import RequestError
from pipelines.log_tables import Run
from pipelines.notation import named_values, shown, write_json

CONVERGED = "converged"
CONVERGED_OF = f"{CONVERGED}:"


def is_converged(text: str) -> bool:
    """Whether a reference is a converged picture."""
    return text == CONVERGED or text.startswith(CONVERGED_OF)


def reference_cells(comparison: Comparison, text: str) -> list[int]:
    """For each cell the number of its reference cell, from a text such as
    'scheduler=ddim,num_inference_steps=50', with 'converged:' before it or not; an axis that it
    leaves out keeps the cell's own value. `cell_texts` writes such texts.

    Raises RequestError where the text names no value of an axis.
    """
    wanted = _parse_cell(comparison, text.removeprefix(CONVERGED_OF))
    cells = comparison.cells
    places = {axes_key(cell.axes): number for number, cell in enumerate(cells)}
    return [places[axes_key({**cell.axes, **wanted})] for cell in cells]


def _parse_cell(comparison: Comparison, text: str) -> dict[str, Any]:
    """Values by axis. Prompts hold commas, so a value ends where the next axis's name begins."""
    axes = {axis.name: axis for axis in comparison.axes}
    names = "|".join(map(re.escape, sorted(axes, key=len, reverse=True)))
    parts = list(named_values(text, names)) if axes else []
    if not parts:
        raise RequestError(
            f"reference: received {shown(text)}, accepted {CONVERGED!r} or a cell of the axes "
            f"{', '.join(axes) or '(none)'}, such as {_example(comparison)}"
        )
    wanted = {}
    for part in parts:
        axis = axes[part.name]
        read = checked_value if part.exact else value_of
        value = read(axis.name, part.value, comparison.base)
        if value not in axis.values:
            raise RequestError(f"reference: {axis.name} has no {shown(part.value)}; it has "
                               f"{', '.join(map(str, axis.values))}")
        wanted[axis.name] = value
    return wanted


def cell_texts(comparison: Comparison) -> list[str]:
    """Each cell as `reference_cells` reads it: as JSON what plain text does not hold."""
    texts = {(axis.name, value): _value_text(comparison, axis.name, value)
             for axis in comparison.axes for value in axis.values}
    return [",".join(texts[pair] for pair in cell.axes.items()) for cell in comparison.cells]


def _value_text(comparison: Comparison, name: str, value: Any) -> str:
    plain = "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
    with contextlib.suppress(RequestError):
        if _parse_cell(comparison, f"{name}={plain}") == {name: value}:
            return f"{name}={plain}"
    return f"{name}:={write_json(value)}"


def _example(comparison: Comparison) -> str:
    return ",".join(f"{axis.name}={axis.values[-1]}" for axis in comparison.axes[:2])


def made_here(runs: Iterable[Run | None]) -> list[Run]:
    """The pictures that this program made: a provider's tell nothing of this machine's time, and
    nothing of a solver."""
    return [run for run in runs if run and run.status == "ok" and not run.hosted]


def some_made_here(runs: Sequence[Run | None], asked: str) -> list[Run]:
    """The same; RequestError where a provider made all that there are."""
    here = made_here(runs)
    if not here and any(run and run.hosted for run in runs):
        raise RequestError(f"{asked}: a provider made all these pictures, in its own time and from "
                           "noise that is unknown; accepted distances to a cell")
    return here
