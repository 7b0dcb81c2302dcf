"""What the log holds of a study: its runs, and a table of values for each measure."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import select

from pipelines import measuring
from pipelines.errors import StorageError
from pipelines.guidance import follows_prompt
from pipelines.log_tables import Distance, Run, Timing, UserMeasure
from pipelines.postcards.vocabulary import CAPTIONED_MODELS
from pipelines.references import is_converged
from pipelines.sheet.live import LiveComparison
from pipelines.study.design import Study
from pipelines.study.measures import MEASURES
from pipelines.study.rows import study_row
from pipelines.study.statistics import Array
from pipelines.study.user_measures import rows

if TYPE_CHECKING:
    from pipelines.engine import Engine


@dataclass(frozen=True)
class Values:
    """`runs` by (method, prompt, seed), those that went well; `tables` by measure, shape (methods,
    prompts, seeds), NaN where nothing was measured. `status` is the study's in the log, `failed`
    counts cells whose run failed. `unequal_noise`: prompts for which methods began from different
    noise, or from noise that is not recorded. `problems`: what users' functions raised, a line for
    each picture."""

    study: Study
    status: str
    runs: dict[tuple[int, int, int], Run]
    tables: dict[str, Array]
    failed: int
    unequal_noise: tuple[int, ...]
    problems: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        return len(self.study.methods) * len(self.study.prompts) * len(self.study.seeds)

    @property
    def complete(self) -> bool:
        return len(self.runs) + self.failed == self.cells


class LiveStudy:
    """Looks at one study of an engine's log, at little cost where nothing is new; safe for
    threads."""

    def __init__(self, engine: Engine, study: Study) -> None:
        self.study, self._engine = study, engine
        self._live = [LiveComparison(engine, name) for name in study.comparison_ids]
        self._lock = threading.Lock()
        self._version: int | None = None
        self._values: Values | None = None
        self._floors: dict[int, float] = {}  # of blocks, as far as they were measured

    def look(self) -> Values:
        """The study as it is now, the same object while the log is the same."""
        with self._lock:
            version = self._engine.run_log.version()
            if self._values is None or version != self._version:
                self._values, self._version = self._read(), version
            return self._values

    def _read(self) -> Values:
        study, shape = self.study, (len(self.study.methods), len(self.study.prompts),
                                    len(self.study.seeds))
        runs: dict[tuple[int, int, int], Run] = {}
        tables = {name: np.full(shape, np.nan) for name in study.measures}
        failed = 0
        users, problems = self._user_rows(), list[str]()
        for live, places in zip(self._live, study.places, strict=True):
            if (look := live.look()) is None:
                continue
            for place, run, distance in zip(places, look.runs, look.distances, strict=True):
                if run is None or place[0] < 0:
                    continue
                failed += run.status == "failed"
                if run.status == "ok":
                    runs[place] = run
                    self._measure(tables, place, run, distance)
                    problems += self._user_values(tables, place, run, distance, users)
        if "time" in tables:
            times = self._times({run.source_id for run in runs.values()})
            for place, run in runs.items():
                tables["time"][place] = times.get(run.source_id, np.nan)
        row = study_row(self._engine.run_log, study.id)
        return Values(study, row.status if row else "running", runs, tables, failed,
                      _unequal_noise(runs), tuple(problems))

    def _user_rows(self) -> dict[tuple[str, int, int], UserMeasure]:
        """By name, run and reference."""
        return {(row.name, row.run_id, row.reference_id): row
                for name in self.study.measures if MEASURES[name].function
                for row in rows(self._engine.run_log, name)}

    def _user_values(
        self,
        tables: dict[str, Array],
        place: tuple[int, int, int],
        run: Run,
        distance: Distance | None,
        users: dict[tuple[str, int, int], UserMeasure],
    ) -> list[str]:
        """Put what users' functions said of a run into the tables; what they raised."""
        problems = []
        for name in {name for name, _, _ in users}:
            known = MEASURES[name].to_reference
            reference = (distance.reference_id if distance else -1) if known else 0
            if row := users.get((name, run.source_id, reference)):
                if row.value is not None:
                    tables[name][place] = row.value
                elif row.problem:
                    problems.append(f"{name}, {self.study.methods[place[0]]}, {run.prompt!r}, "
                                    f"seed {run.seed}: {row.problem}")
        return problems

    def _measure(
        self,
        tables: dict[str, Array],
        place: tuple[int, int, int],
        run: Run,
        distance: Distance | None,
    ) -> None:
        for name, table in tables.items():
            value = None
            if name == "judge" and run.model_id in CAPTIONED_MODELS:
                path = self._engine.picture_path(run)
                value = follows_prompt(path, run.prompt) if path else None
            elif MEASURES[name].to_reference and not MEASURES[name].function and distance:
                value = getattr(distance, name)
            if value is not None and math.isfinite(value):
                table[place] = value

    def _times(self, run_ids: Collection[int]) -> dict[int, float]:
        """Milliseconds by run: the first that was taken since the study began, since those of
        another day, or of a later study, were not taken in turns with the others."""
        query = (select(Timing.run_id, Timing.total_ms).order_by(Timing.id.desc())
                 .where(Timing.run_id.in_(run_ids),
                        Timing.datetime_utc >= self.study.datetime_utc))
        with self._engine.run_log.database.session() as session:
            return {run_id: ms for run_id, ms in session.execute(query)
                    if isinstance(ms, int | float) and math.isfinite(ms)}

    def floor(self) -> float:
        """The converged picture's own error in latents: the largest that was measured, one for
        each block of prompts; 0 where none was."""
        if not self.study.reference or not is_converged(self.study.reference):
            return 0.0
        runs = self.look().runs
        for block, (number, cells) in enumerate(self.study.blocks()):
            if block not in self._floors:
                places = (self.study.places[number][cell] for cell in sorted(cells))
                first = next((runs[place] for place in places if place in runs), None)
                if first and (floor := measuring.floor(self._engine, [first])):
                    self._floors[block] = floor
        return max(self._floors.values(), default=0.0)


def _unequal_noise(runs: dict[tuple[int, int, int], Run]) -> tuple[int, ...]:
    hashes: dict[tuple[int, int], set[str | None]] = {}
    for (_, prompt, seed), run in runs.items():
        hashes.setdefault((prompt, seed), set()).add(run.noise_sha256)
    return tuple(sorted({prompt for (prompt, _), seen in hashes.items()
                         if len(seen) > 1 or None in seen}))


def picture_data(engine: Engine, run: Run | None) -> bytes | None:
    """The stored PNG of a run; None where it is missing or damaged."""
    try:
        return engine.pictures.read(run.image_sha256) if run and run.image_sha256 else None
    except StorageError:
        return None
