"""What in a comparison a person should look at: values without effect, empty or saturated cells."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.comparison import Comparison
from pipelines.fields import COST_FIELDS
from pipelines.log_tables import Run
from pipelines.notation import number_text
from pipelines.painting.result import FLAT, spread
from pipelines.pixels import flat
from pipelines.stores import PictureStore

if TYPE_CHECKING:
    from pathlib import Path

DARK, PURE = 40, 0.8  # of 255; saturation in HSV
# A picture is saturated above this share of pure pixels, on top of so many times the share that the
# picture of the lowest guidance has.
SATURATED, TIMES = 0.03, 3.0


@dataclass(frozen=True)
class PictureFacts:
    """`spread` of the pixels, see there; `saturated`: share of the pixels that are not dark whose
    colour is nearly pure (saturation above 0.8 in HSV), or clipped to white."""

    spread: float
    saturated: float


@functools.lru_cache(4096)
def picture_facts(path: Path) -> PictureFacts:
    """Read from a file that never changes: it is named by its hash. Raises OSError."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        shown = flat(image)
    pixels = np.asarray(shown)
    most, least = pixels.max(-1).astype(float), pixels.min(-1).astype(float)
    pure = (most > DARK) & (most - least > PURE * most)
    return PictureFacts(spread(shown), float((pure | (least >= 254)).mean()))


@dataclass(frozen=True)
class Flag:
    """Something that a person should look at: a sentence, and the numbers of its cells."""

    kind: str
    text: str
    cells: tuple[int, ...]


def flags(
    comparison: Comparison, runs: Sequence[Run | None], pictures: PictureStore
) -> list[Flag]:
    """Equal pictures where an axis says that they differ, empty pictures, saturated ones."""
    return [*_without_effect(comparison, runs), *_empty(runs, pictures),
            *_saturated(comparison, runs, pictures)]


def _without_effect(comparison: Comparison, runs: Sequence[Run | None]) -> list[Flag]:
    """For each axis the values that make the same picture in every place that has both."""
    cells = comparison.cells
    flags = []
    for axis in comparison.axes:
        if set(axis.parts) <= set(COST_FIELDS):
            continue
        rest = [other.name for other in comparison.axes if other is not axis]
        groups: dict[tuple, dict[str, list[int]]] = {}
        for number, (cell, run) in enumerate(zip(cells, runs, strict=True)):
            if run and run.image_sha256:
                place = tuple(cell.axes[name] for name in rest)
                groups.setdefault(place, {}).setdefault(run.image_sha256, []).append(number)
        same = [numbers for group in groups.values() for numbers in group.values()
                if len(numbers) > 1]
        by_values: dict[tuple, list[list[int]]] = {}
        for numbers in same:
            values = tuple(axis.label(cells[n].axes[axis.name]) for n in numbers)
            by_values.setdefault(values, []).append(numbers)
        for values, places in by_values.items():
            where = f" in {len(places)} of {len(groups)} places" if len(groups) > 1 else ""
            flags.append(Flag(
                "no effect", f"{axis.name}: {' and '.join(values)} make the same picture{where}.",
                tuple(n for numbers in places for n in numbers)))
    return flags


def _empty(runs: Sequence[Run | None], pictures: PictureStore) -> list[Flag]:
    diverged = tuple(n for n, run in enumerate(runs)
                     if run and run.status == "failed" and "not finite" in (run.error or ""))
    blank = tuple(n for n, facts in _facts(runs, pictures) if facts.spread < FLAT)
    flags = []
    if diverged:
        flags.append(Flag("not finite", f"{_cells(diverged)} diverged: values that are not finite.",
                          diverged))
    if blank:
        flags.append(Flag("empty", f"{_cells(blank)} black or of one colour.", blank))
    return flags


def _saturated(
    comparison: Comparison, runs: Sequence[Run | None], pictures: PictureStore
) -> list[Flag]:
    """Cells with many saturated pixels, where the lowest guidance in the same place has few."""
    if "guidance_scale" not in {axis.name for axis in comparison.axes}:
        return []
    cells, facts = comparison.cells, dict(_facts(runs, pictures))
    places: dict[tuple, list[int]] = {}
    for number in facts:
        place = tuple(value for name, value in cells[number].axes.items()
                      if name != "guidance_scale")
        places.setdefault(place, []).append(number)
    saturated = []
    for numbers in places.values():
        numbers.sort(key=lambda n: cells[n].axes["guidance_scale"])
        least = facts[numbers[0]].saturated
        saturated += [n for n in numbers[1:] if facts[n].saturated > SATURATED + TIMES * least]
    if not saturated:
        return []
    scales = sorted({cells[n].axes["guidance_scale"] for n in saturated})
    return [Flag("saturated", f"{_cells(saturated)} saturated, at guidance_scale "
                 f"{', '.join(map(number_text, scales))}: many pixels of pure colour or "
                 "plain white.", tuple(saturated))]


def _facts(runs: Sequence[Run | None], pictures: PictureStore) -> list[tuple[int, PictureFacts]]:
    facts = []
    for number, run in enumerate(runs):
        if run and pictures.whole(run.image_sha256):  # where it is not, the sheet says so
            facts.append((number, picture_facts(pictures.path(run.image_sha256))))
    return facts


def _cells(numbers: Sequence[int]) -> str:
    return f"{len(numbers)} cell is" if len(numbers) == 1 else f"{len(numbers)} cells are"
