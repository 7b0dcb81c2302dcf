"""Making again what a file says, and saying how near it comes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.comparison import Comparison
from pipelines.errors import PipelineError
from pipelines.hardware import environment
from pipelines.inpainting.pictures_in import open_picture
from pipelines.log_tables import Run
from pipelines.notation import shown
from pipelines.provenance.blocks import PNG
from pipelines.provenance.model_files import model_files
from pipelines.provenance.record import (
    HARDWARE,
    VERSIONS,
    pixels_sha256,
    shown_versions,
    stored_pixels,
)
from pipelines.sheet.recipe import page_data

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.engine import Engine

TOLERANCE = 2  # of 255: what cells that share network calls may differ by from singles
IDENTICAL, WITHIN, DIFFERENT = "identical", "within tolerance", "different"
UNKNOWN, FAILED = "nothing to compare with", "failed"
OUTCOMES = (IDENTICAL, WITHIN, DIFFERENT, UNKNOWN, FAILED)
DATA_URI = "data:image/png;base64,"


@dataclass(frozen=True)
class Original:
    """What a file holds of a picture: hashes of its pixels and its initial noise, and the picture
    itself where it is there without loss."""

    pixels_sha256: str | None = None
    noise_sha256: str | None = None
    image: Image | None = None


@dataclass(frozen=True)
class CellReport:
    """One picture made again. `largest` and `mean` are differences of 255 over pixels and channels,
    None where the original's pixels are not there; `same_noise` whether the initial noise is equal,
    None where the file does not name it."""

    axes: dict[str, Any]
    outcome: str
    largest: int | None = None
    mean: float | None = None
    same_noise: bool | None = None
    run_id: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Report:
    """All cells, and `changes`: what is another than it was, or unknown, a line each."""

    cells: list[CellReport]
    changes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        return {outcome: count for outcome in OUTCOMES
                if (count := sum(cell.outcome == outcome for cell in self.cells))}

    def as_dict(self) -> dict[str, Any]:
        return {"counts": self.counts, "tolerance": TOLERANCE, "changes": self.changes,
                "cells": [asdict(cell) for cell in self.cells]}


def report(
    engine: Engine,
    comparison: Comparison,
    runs: Sequence[Run | None],
    originals: Sequence[Original],
    changes: Sequence[str],
) -> Report:
    """How the runs of a comparison's cells compare with the originals of a file."""
    cells = [_cell_report(engine, cell.axes, run, original)
             for cell, run, original in zip(comparison.cells, runs, originals, strict=True)
             if not cell.left_out]
    return Report(cells, list(changes))


def _cell_report(
    engine: Engine, axes: dict[str, Any], run: Run | None, original: Original
) -> CellReport:
    if run is None or run.status != "ok":
        error = (run.error or run.status) if run else "it was not made"
        return CellReport(axes, FAILED, run_id=run and run.id, error=error)
    same_noise = (run.noise_sha256 == original.noise_sha256) if original.noise_sha256 else None
    made = engine.pictures.get(run.image_sha256)
    wanted = original.pixels_sha256
    if wanted is None and original.image:
        wanted = pixels_sha256(original.image)
    outcome, largest, mean = UNKNOWN, None, None
    if wanted == pixels_sha256(made):
        outcome, largest, mean = IDENTICAL, 0, 0.0
    elif original.image:
        largest, mean = _difference(made, original.image)
        outcome = WITHIN if largest is not None and largest <= TOLERANCE else DIFFERENT
    elif wanted:
        outcome = DIFFERENT
    return CellReport(axes, outcome, largest, mean, same_noise, run.id)


def _difference(made: Image, original: Image) -> tuple[int | None, float | None]:
    """The largest and the mean difference of 255; None for pictures of different sizes."""
    if made.size != original.size:
        return None, None
    pixels = [np.asarray(image.convert("RGBA"), dtype=int) for image in (made, original)]
    difference = np.abs(pixels[0] - pixels[1])
    return int(difference.max()), float(difference[..., :3].mean())


def originals(
    engine: Engine, source: Path, record: Mapping[str, Any], comparison: Comparison
) -> list[Original]:
    """What there is of the original of each cell: in the file, or in the store of this machine."""
    count = len(comparison.cells)
    listed = record.get("pictures")
    records = listed if isinstance(listed, list) and len(listed) == count else [None] * count
    carried = _carried(source, record, comparison)
    found = []
    for entry, image in zip(records, carried, strict=True):
        entry = entry if isinstance(entry, dict) else {}
        hashes = {name: value for name in ("pixels_sha256", "noise_sha256")
                  if isinstance(value := entry.get(name), str)}
        if image is None and engine.pictures.whole(entry.get("image_sha256")):
            image = engine.pictures.get(entry["image_sha256"])
            if hashes.get("pixels_sha256") != stored_pixels(engine.pictures,
                                                            entry["image_sha256"]):
                image = None
        found.append(Original(**hashes, image=image))
    return found


def _carried(
    source: Path, record: Mapping[str, Any], comparison: Comparison
) -> list[Image | None]:
    """The pictures that a file has without loss: its own where it is one picture, those of an
    exported page."""
    images: list[Image | None] = [None] * len(comparison.cells)
    with source.open("rb") as file:
        head = file.read(16)
    if "requests" in record:
        image = open_picture(source, "reproduce", ("PNG", "JPEG", "WEBP", "AVIF"))
        recorded = _first_hash(record)
        lossless = pixels_sha256(image) == recorded if recorded else head.startswith(PNG)
        return [image if lossless else None]
    if not head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        return images
    cells = page_data(source.read_text(encoding="utf-8-sig")).get("cells")
    numbers = [n for n, cell in enumerate(comparison.cells) if not cell.left_out]
    if isinstance(cells, list) and len(cells) == len(numbers):
        for number, cell in zip(numbers, cells, strict=True):
            address = cell.get("picture") if isinstance(cell, dict) else None
            if isinstance(address, str) and address.startswith(DATA_URI):
                data = base64.b64decode(address.removeprefix(DATA_URI))
                images[number] = open_picture(data, "reproduce")
    return images


def _first_hash(record: Mapping[str, Any]) -> Any:
    listed = record.get("pictures")
    entry = listed[0] if isinstance(listed, list) and listed else None
    return entry.get("pixels_sha256") if isinstance(entry, dict) else None


def changes(engine: Engine, record: Mapping[str, Any], comparison: Comparison) -> list[str]:
    """What differs between what made a file and this machine, a line each, and what is unknown."""
    before, now = shown_versions(record), environment(engine.registry.device)
    lines = [f"{name}: {shown(before[name])} then, {shown(str(now.get(name)))} now"
             for name in (*VERSIONS, *HARDWARE) if name in before
             and before[name] != str(now.get(name))]
    if not before:
        lines.append("versions and hardware: the file does not name them")
    models = record.get("models")
    named = [model for model in (models if isinstance(models, list) else ())
             if isinstance(model, dict)]
    if not named:
        lines.append("weights: the file does not name them")
    for model in named:
        lines += _model_changes(engine, model, comparison)
    return lines


def _model_changes(
    engine: Engine, model: Mapping[str, Any], comparison: Comparison
) -> list[str]:
    model_id, files = model.get("model_id"), model.get("files")
    if not isinstance(files, dict):
        return [f"weights of {shown(model_id)}: the file does not name their hashes"]
    here = comparison.base.model_id if "model_id" not in comparison.varied else model_id
    try:
        info = engine.registry.describe(here, model.get("revision") if here == model_id else None,
                                        model.get("variant"))
        now = model_files(info)
    except (PipelineError, OSError, TypeError) as error:
        return [f"weights of {shown(model_id)}: {str(error).splitlines()[0]}"]
    hashes = {name: entry.get("sha256") for name, entry in files.items()
              if isinstance(entry, dict)}
    if sorted(map(str, hashes.values())) == sorted(entry["sha256"] for entry in now.values()):
        return []
    changed = [name for name in sorted({*hashes, *now})
               if hashes.get(name) != now.get(name, {}).get("sha256")]
    return [f"weights of {shown(model_id)}: {', '.join(changed[:5])} changed"]


def exit_code(made: Report) -> int:
    """0 where every picture is identical or within tolerance, 1 where one is different or failed, 3
    where nothing is different and there was nothing to compare a picture with."""
    if {DIFFERENT, FAILED} & made.counts.keys():
        return 1
    return 3 if UNKNOWN in made.counts else 0
