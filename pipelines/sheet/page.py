"""A comparison as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from string import Template
from typing import Any

from PIL import Image

from pipelines.comparison import Comparison
from pipelines.errors import StorageError
from pipelines.run_log import Run
from pipelines.sheet.draw import heading_of, recipe, subtitle, to_csv
from pipelines.sheet.viewer import FOLDER, PAGE, STYLE, viewer_data
from pipelines.sheet.viewer.scripts import joined
from pipelines.stores import PictureStore

LOSSLESS_BYTES = 64_000_000  # of all pictures; beyond it they are WebP
QUALITY, STEPS_QUALITY = 92, 85


def html_page(
    comparison: Comparison,
    runs: Sequence[Run | None],
    pictures: PictureStore,
    records: Sequence[dict[str, Any]],
    table: Sequence[dict[str, Any]],
) -> str:
    """The sheet with its viewer, pictures, steps, CSV, JSON and recipe in one page.

    `records` are the cells' of sheet.cell_record(), `table` the rows of sheet.cells_table().
    Pictures are the stored PNG files, or WebP where together they would be larger than
    LOSSLESS_BYTES (the page says so); steps are WebP.
    """
    paths = [pictures.path(run.image_sha256) for run in runs if run and run.image_sha256]
    size = sum(path.stat().st_size for path in paths if path.exists())
    lossless = size <= LOSSLESS_BYTES

    def address(run: Run, kind: str) -> str | None:
        sha256 = run.image_sha256 if kind == "picture" else run.steps_sha256
        try:
            if kind == "picture" and lossless:
                return _data_uri(pictures.path(sha256).read_bytes(), "png") if sha256 else None
            quality = QUALITY if kind == "picture" else STEPS_QUALITY
            return _webp(pictures.get(sha256), quality) if sha256 else None
        except (OSError, StorageError):
            return None

    table = [_without_paths(row) for row in table]
    page = viewer_data(comparison, runs, records, address)
    page["files"] = {
        "csv": {"name": "cells.csv", "type": "text/csv", "text": to_csv(table)},
        "json": {"name": "cells.json", "type": "application/json",
                 "text": json.dumps(table, indent=1, ensure_ascii=False)},
        "recipe": {"name": "recipe.json", "type": "application/json",
                   "text": json.dumps(recipe(comparison, runs), indent=1, ensure_ascii=False)},
    }  # fmt: skip
    first = next((run for run in runs if run), None)
    made = ["made by Contact Sheet"]
    if first:
        made.append(f"{first.datetime_utc[:10]}, {first.environment.get('device_name', '')}")
    if not lossless:
        made.append(f"pictures are WebP of quality {QUALITY}: differences are those of the copies")
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(heading_of(comparison)),
        subtitle=escape(subtitle(comparison, runs)),
        made=escape(" · ".join(made)),
        css=STYLE.read_text(encoding="utf-8"),
        script=joined(FOLDER / "page.js"),
        data=_inside_a_script(page),
    )


def _without_paths(row: dict[str, Any]) -> dict[str, Any]:
    """A row for other people: no path of this machine."""
    return {key: value for key, value in row.items() if key != "image"}


def _inside_a_script(value: Any) -> str:
    """JSON in which no text can end the script element or open a comment."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _webp(image: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=quality)
    return _data_uri(buffer.getvalue(), "webp")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
