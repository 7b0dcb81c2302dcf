"""What a study or a comparison has to vote on: pictures of one prompt and seed by several methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.axes import field_of
from pipelines.errors import RequestError
from pipelines.fields import PICTURES
from pipelines.log_tables import Distance, Run
from pipelines.sheet.live import LiveComparison
from pipelines.study.design import logged_study, name_part
from pipelines.study.measures import MEASURES
from pipelines.study.values import LiveStudy
from pipelines.votes.rows import STUDY

if TYPE_CHECKING:
    from pipelines.engine import Engine

# Fields that say what is painted, not how: pictures that differ in them are not compared.
SCENE_FIELDS = {"prompt", "seed", *PICTURES}


@dataclass(frozen=True)
class Scene:
    """One prompt and seed, and the run of each method; None where none went well."""

    prompt: str
    seed: int
    runs: tuple[Run | None, ...]


@dataclass(frozen=True)
class Source:
    """`measured`: by measure and id of a run, its value, where it has one that compares pictures.
    """

    methods: tuple[str, ...]
    scenes: tuple[Scene, ...]
    measured: dict[str, dict[int, float]]


def source_of(engine: Engine, source: str, source_id: str) -> Source:
    """Read a study or a comparison of the log; RequestError where there is none."""
    return _study(engine, source_id) if source == STUDY else _comparison(engine, source_id)


def _study(engine: Engine, study_id: str) -> Source:
    values = LiveStudy(engine, logged_study(engine.run_log, study_id)).look()
    study, runs = values.study, values.runs
    methods = range(len(study.methods))
    scenes = tuple(
        Scene(prompt.text, seed, tuple(runs.get((method, p, s)) for method in methods))
        for p, prompt in enumerate(study.prompts) for s, seed in enumerate(study.seeds))
    measured = {
        measure: {run.id: float(table[place]) for place, run in runs.items()
                  if table[place] == table[place]}  # not NaN
        for measure, table in values.tables.items() if measure != "time"}
    return Source(study.methods, scenes, measured)


def _comparison(engine: Engine, comparison_id: str) -> Source:
    look = LiveComparison(engine, comparison_id).look()
    if look is None:
        raise RequestError(f"comparison {comparison_id} is not in the log of this machine")
    axes = {axis.name: axis for axis in look.comparison.axes}
    ways = [name for name, axis in axes.items()
            if not SCENE_FIELDS.issuperset(map(field_of, axis.parts))]
    methods: dict[str, int] = {}
    scenes: dict[tuple, dict[int, Run]] = {}
    for cell, run in zip(look.comparison.cells, look.runs, strict=True):
        if cell.left_out:
            continue
        name = " ".join(name_part(axes[way], cell.axes[way]) for way in ways)
        method = methods.setdefault(name, len(methods))
        key = tuple(getattr(cell.request, field) for field in ("prompt", "seed", *sorted(
            SCENE_FIELDS - {"prompt", "seed"})))
        if run and run.status == "ok":
            scenes.setdefault(key, {})[method] = run
    return Source(
        tuple(methods),
        tuple(Scene(key[0], key[1], tuple(map(runs.get, range(len(methods)))))
              for key, runs in scenes.items()),
        _distances(look.runs, look.distances))


def _distances(
    runs: Sequence[Run | None], distances: Sequence[Distance | None]
) -> dict[str, dict[int, float]]:
    measured: dict[str, dict[int, float]] = {}
    for run, distance in zip(runs, distances, strict=True):
        for name, value in (distance.as_dict() if run and distance else {}).items():
            if name in MEASURES and isinstance(value, int | float):
                measured.setdefault(name, {})[run.id] = float(value)
    return measured
