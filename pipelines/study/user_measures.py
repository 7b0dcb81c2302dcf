"""A user's own function as a measure: 'my_module:function'.

Two pictures and it is a distance to the reference, less is better; one picture and its prompt, and
it is a score, more is better. Which it is follows from the function's parameters:

    def distance(picture: Image, reference: Image) -> float: ...
    def score(picture: Image, prompt: str) -> float: ...

Pictures are PIL's, 8-bit RGB. `function.more_is_better = True` (or False) says otherwise. The code
runs with all the rights of this program, so a name is only ever taken from the command line or from
CONTACT_SHEET_MEASURES of its own machine, never from a page, a file or the log.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from pipelines.errors import RequestError, StorageError, first_line
from pipelines.log_tables import Distance, Run, UserMeasure
from pipelines.pixels import flat
from pipelines.run_log import RunLog
from pipelines.stores import PictureStore
from pipelines.study.measures import CLOSER, MEASURES, Measure

if TYPE_CHECKING:
    from PIL.Image import Image

SETTING = "CONTACT_SHEET_MEASURES"


def register(name: str) -> None:
    """Import a function 'my_module:function', from the working directory too, and make it a measure
    of that name. Raises RequestError where that fails."""
    if name in MEASURES:
        return
    module_name, _, function_name = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # the user's code may raise anything
        raise RequestError(f"measure: {name} cannot be imported: {type(error).__name__}: "
                           f"{first_line(error)}") from error
    MEASURES[name] = _measure(name, function)


def register_setting() -> None:
    """Register what CONTACT_SHEET_MEASURES names, separated by commas. Raises RequestError."""
    register_all(filter(None, map(str.strip, os.environ.get(SETTING, "").split(","))))


def register_all(names: Iterable[str]) -> None:
    """Register those of some names of measures that are a user's."""
    for name in names:
        if ":" in name:
            register(name)


def _measure(name: str, function: Any) -> Measure:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise RequestError(f"measure: {name} is a {type(function).__name__}, accepted a function "
                           "of two pictures, or of a picture and its prompt") from error
    needed = [p for p in parameters if p.default is p.empty
              and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) != 2:
        raise RequestError(f"measure: {name} takes {len(needed)} arguments, accepted two pictures, "
                           "or a picture and its prompt (named prompt, or annotated str)")
    of_prompt = needed[1].name == "prompt" or needed[1].annotation in (str, "str")
    sign = 1 if getattr(function, "more_is_better", of_prompt) else -1
    if of_prompt:
        wins = f"has {'more' if sign > 0 else 'less'} of {name} than"
    else:
        wins = CLOSER if sign < 0 else f"has more of {name} than"
    return Measure(name, sign, wins, to_reference=not of_prompt, function=function)


def measure_runs(
    log: RunLog,
    pictures: PictureStore,
    names: Sequence[str],
    runs: Sequence[Run | None],
    distances: Sequence[Distance | None],
    on_picture: Callable[[], None] | None = None,
) -> None:
    """Ask the user's functions among `names` of each run that they were not asked of, and keep what
    they say in the log; what one raises is kept too. `on_picture` may raise Cancelled."""
    for name in names:
        known = MEASURES[name]
        if not known.function:
            continue
        done = {(row.run_id, row.reference_id) for row in rows(log, name)}
        for run, distance in zip(runs, distances, strict=True):
            reference_id = (distance.reference_id if distance else None) \
                if known.to_reference else 0
            if run is None or run.status != "ok" or reference_id is None \
                    or (run.source_id, reference_id) in done:
                continue
            if on_picture:
                on_picture()
            done.add((run.source_id, reference_id))
            row = UserMeasure(run_id=run.source_id, name=name, reference_id=reference_id)
            try:
                row.value = _value(known.function, log, pictures, run, reference_id)
            except StorageError as error:
                row.problem = str(error)
            except Exception as error:  # the user's code may raise anything
                row.problem = f"{type(error).__name__}: {first_line(error)}"
            log.add(row)


def _value(
    function: Callable[..., Any], log: RunLog, pictures: PictureStore, run: Run, reference_id: int
) -> float:
    picture = _picture(pictures, run)
    second: Any = run.prompt
    if reference_id:
        (reference,) = log.runs_by_id([reference_id])
        second = _picture(pictures, reference)
    value = float(function(picture, second))
    if not math.isfinite(value):
        raise ValueError(f"it returned {value}, accepted a finite number")
    return value


def _picture(pictures: PictureStore, run: Run) -> Image:
    if not run.image_sha256:
        raise StorageError(f"run {run.id} has no picture")
    return flat(pictures.get(run.image_sha256))


def rows(log: RunLog, name: str) -> Sequence[UserMeasure]:
    """All that the log holds of one function."""
    with log.database.session() as session:
        return session.scalars(select(UserMeasure).where(UserMeasure.name == name)).all()
