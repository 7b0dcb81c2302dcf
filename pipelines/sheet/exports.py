"""What people take home: every format once, for the command line, the page and the exported page.

A new format is a line in EXPORTS and the function that writes it.
"""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.colour import from_srgb, rgb_profile
from pipelines.comparison import Comparison
from pipelines.log_tables import Run
from pipelines.pixels import PROFILE
from pipelines.provenance.encode import Truth, encode
from pipelines.provenance.record import run_truth
from pipelines.provenance.xmp import SourceType
from pipelines.sheet.cells import Results, as_json, spreadsheet, to_csv
from pipelines.sheet.draw import draw
from pipelines.sheet.page import html_page
from pipelines.sheet.recipe import recipe

if TYPE_CHECKING:
    from pipelines.engine import Engine


@dataclass(frozen=True)
class Export:
    """A format: `write` gives the bytes of a file. With an `option` (its help) `compare` of the
    command line has --NAME FILE; `in_page`: the exported page offers it."""

    label: str
    suffix: str
    mime: str
    write: Callable[[Results], bytes]
    option: str | None = None
    in_page: bool = False


def sheet_pngs(results: Results) -> list[bytes]:
    """The labelled sheets as PNG files that carry their recipe."""
    truth = None
    if results.truthful:
        truth = Truth(recipe_of(results), source_type=sheet_source(results))
    return [encode(picture, ".png", truth)[0]
            for picture in draw(results.comparison, results.runs, results.pictures)]


def sheet_source(results: Results) -> SourceType:
    """IPTC's word for a sheet of these pictures."""
    painted_into = results.comparison.base.task == "inpainting"
    return "compositeWithTrainedAlgorithmicMedia" if painted_into else "trainedAlgorithmicMedia"


def recipe_of(results: Results) -> dict[str, Any]:
    """The recipe of a comparison that was made."""
    return recipe(results.comparison, results.runs, results.made_with and results.made_with())


def run_file(
    engine: Engine, run: Run, suffix: str = ".png", truthful: bool = True
) -> tuple[bytes, tuple[str, ...]]:
    """A run's picture as a file of the format that `suffix` names, and notes on what that cannot
    hold; `truthful`: it carries how it was made. An in-painted picture is written in the colours of
    the profile that its original had. Raises StorageError."""
    image, profile = engine.pictures.get(run.image_sha256), None
    original = run.request.get("image") if run.task == "inpainting" else None
    if engine.pictures.whole(original):
        kept = engine.pictures.get(original).info.get(PROFILE, "")
        profile = rgb_profile(base64.b64decode(kept)) if kept else None
    if profile:
        image = from_srgb(image, profile)
    return encode(image, suffix, run_truth(engine, run) if truthful else None, profile)


def _zip(results: Results) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, data in enumerate(sheet_pngs(results), 1):
            archive.writestr(f"contact-sheet-{number}.png", data)
    return buffer.getvalue()


def _html(results: Results) -> bytes:
    return html_page(results, {name: export for name, export in EXPORTS.items() if export.in_page})


def _csv(results: Results) -> bytes:
    return to_csv(results.rows).encode()


def _spreadsheet(results: Results) -> bytes:
    return spreadsheet(results.rows, [axis.name for axis in results.comparison.axes]).encode()


def _json(results: Results) -> bytes:
    return as_json(results.records).encode()


def _recipe(results: Results) -> bytes:
    return as_json(recipe_of(results)).encode()


EXPORTS = {
    "png": Export("Labelled sheet (PNG)", ".png", "image/png", lambda r: sheet_pngs(r)[0]),
    "zip": Export("All sheets (ZIP of PNG)", ".zip", "application/zip", _zip),
    "html": Export("Page with this viewer (HTML)", ".html", "text/html", _html,
                   "One page with pictures, steps and viewer; it needs no network."),
    "csv": Export("Cells (CSV)", ".csv", "text/csv", _csv, "A row per cell, as CSV for programs.",
                  in_page=True),
    "spreadsheet": Export("Cells for a spreadsheet (CSV)", "-spreadsheet.csv", "text/csv",
                          _spreadsheet, "A row per cell, as CSV for a spreadsheet: what people "
                          "read, and no text becomes a formula.", in_page=True),
    "json": Export("Cells (JSON)", ".json", "application/json", _json, in_page=True),
    "recipe": Export("Recipe (JSON)", "-recipe.json", "application/json", _recipe, in_page=True),
}


def exports_for(comparison: Comparison) -> dict[str, Export]:
    """Those that make sense: one PNG of one sheet, a ZIP where axes make several."""
    other = "png" if comparison.sheet_axes else "zip"
    return {name: export for name, export in EXPORTS.items() if name != other}
