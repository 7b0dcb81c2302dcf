"""A gate against pictures that a file holds: what another version of a library does to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.comparison import Comparison
from pipelines.errors import RequestError
from pipelines.gate.design import changed, settings
from pipelines.gate.margins import MARGINS
from pipelines.gate.verdict import Verdict, judge
from pipelines.guidance import follows_prompt
from pipelines.hardware import environment
from pipelines.hub.folders import models_here
from pipelines.log_tables import Run
from pipelines.measuring import flip, ssim
from pipelines.painting.result import Step
from pipelines.pixels import flat
from pipelines.postcards.vocabulary import CAPTIONED_MODELS
from pipelines.provenance.reproduce import Original, changes, originals
from pipelines.provenance.restore import OURS, restore
from pipelines.sheet.recipe import read_record, recipe
from pipelines.study.statistics import Array

if TYPE_CHECKING:
    from pipelines.engine import Engine

# What can be told from two pictures: a measure of the candidate's and of the baseline's own.
MEASURED = ("flip", "ssim", "judge")


class Recording:
    """The pictures of a file (recipe, picture or exported page), and the requests that made them,
    changed by the texts of `candidate`. Raises RequestError where the file holds no picture, and
    none of it is in the store of this machine."""

    def __init__(self, engine: Engine, file: Path, candidate: Sequence[str] = ()) -> None:
        self.file = file
        self.record, _ = read_record(file)
        restored = restore(file, models_here(engine), engine.pictures, OURS)
        recorded = restored.comparison
        wanted = settings("candidate", candidate, recorded.base) if candidate else {}
        if both := sorted(wanted.keys() & recorded.varied):
            raise RequestError(f"candidate: received {', '.join(both)}, which varies in {file}; "
                               "accepted what all of its pictures share")
        base = recorded.base
        for name, value in wanted.items():
            base = changed(base, name, value)
        self.comparison = Comparison(base, recorded.axes, recorded.skip)
        self.originals = originals(engine, file, self.record, recorded)
        self.changes = [*restored.notes, *changes(engine, self.record, recorded)]
        self.names = (f"{file.name}, as recorded",
                      ", ".join(candidate) if candidate else "the same, made now")
        if not any(original.image for original in self.originals):
            raise RequestError(f"baseline: {file} holds no picture that can be compared with, and "
                               "none of it is in the log of this machine; accepted a picture "
                               "without loss, or an exported page")
        for cell in self.comparison.cells:
            if not cell.left_out:
                engine.check(cell.request)

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes the candidate's pictures again."""
        return recipe(self.comparison)

    def margins(self, given: Mapping[str, float] | None) -> dict[str, float]:
        """The margins that can be judged; RequestError where others are given."""
        if given is None:
            captioned = self.comparison.base.model_id in CAPTIONED_MODELS
            return {name: MARGINS[name].value for name in MEASURED if captioned or name != "judge"}
        if unknown := [name for name in given if name not in MEASURED]:
            raise RequestError(f"margin: received {', '.join(unknown)}, accepted against recorded "
                               f"pictures {', '.join(MEASURED)}")
        return dict(given)


def conduct(
    engine: Engine,
    recording: Recording,
    margins: Mapping[str, float],
    on_step: Callable[[Step], None] | None = None,
    on_cell: Callable[[Run], None] | None = None,
    check: Callable[[], None] | None = None,
) -> tuple[Verdict, int]:
    """Make the pictures of a recording with what is installed now, and compare: the verdict, and
    how many failed.

    They are made anew unless these versions made them for the same file before; `check` and
    `on_step` may raise Cancelled, which keeps what is done. No speed-up is told: the recorded
    pictures were made at another time.
    """
    comparison = recording.comparison
    runs = engine.compare(
        comparison, on_step and (lambda _, step: on_step(step)),
        on_cell and (lambda _, run: on_cell(run)), _comparison_id(engine, recording), shared=True,
        fresh=True, check=check)
    prompts = list(dict.fromkeys(cell.request.prompt for cell in comparison.cells))
    places: dict[str, int] = {}
    tables = {name: np.full((2, len(prompts), len(comparison.cells)), np.nan) for name in margins}
    missing = failed = unmade = 0
    for cell, run, original in zip(comparison.cells, runs, recording.originals, strict=True):
        if cell.left_out:
            continue
        prompt = cell.request.prompt
        place = places[prompt] = places.get(prompt, -1) + 1
        missing += original.image is None
        failed += bool(run and run.status == "failed")
        unmade += run is None
        if run and run.status == "ok" and original.image:
            _measure(engine, tables, (prompts.index(prompt), place), run, original)
    notes = [*recording.changes,
             "The speed is not judged: the recorded pictures were made at another time."]
    for count, what in ((missing, "have no recorded picture"), (failed, "failed"),
                        (unmade, "were not made")):
        if count:
            notes.append(f"{count} of {sum(not c.left_out for c in comparison.cells)} pictures "
                         f"{what}; they are left out.")
    verdict = Verdict(*recording.names, judge(tables, margins, not (failed or unmade)), None,
                      tuple(notes))
    return verdict, failed


def _measure(
    engine: Engine, tables: Mapping[str, Array], place: tuple[int, int], run: Run,
    original: Original,
) -> None:
    made, kept = flat(engine.pictures.get(run.image_sha256)), flat(original.image)
    for name, table in tables.items():
        values: Any = (None, None)
        if name == "flip":
            values = 0.0, flip(made, kept)
        elif name == "ssim" and made.size == kept.size:
            values = 1.0, ssim(made, kept)
        elif name == "judge":
            stored = engine.pictures.put(kept), run.image_sha256
            values = tuple(follows_prompt(engine.pictures.path(sha), run.prompt) for sha in stored)
        if None not in values:
            table[(slice(None), *place)] = values


def _comparison_id(engine: Engine, recording: Recording) -> str:
    """The same for the same file, candidate and versions, so that what is interrupted goes on."""
    decides = [recording.record, recording.comparison.base.model_dump(mode="json"),
               environment(engine.registry.device)]
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()
                          ).hexdigest()[:12]
