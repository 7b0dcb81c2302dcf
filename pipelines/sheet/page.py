"""A comparison as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipelines.errors import StorageError
from pipelines.log_tables import Run
from pipelines.pixels import flat
from pipelines.sheet.cells import Results
from pipelines.sheet.draw import heading_of, subtitle
from pipelines.sheet.viewer import FOLDER, PAGE, STYLE, viewer_data
from pipelines.sheet.viewer.scripts import joined

if TYPE_CHECKING:
    from pipelines.sheet.exports import Export

LOSSLESS_BYTES = 64_000_000  # of all pictures; beyond it they are WebP
QUALITY, STEPS_QUALITY = 92, 85


def html_page(results: Results, downloads: Mapping[str, Export]) -> bytes:
    """The sheet with its viewer, pictures, steps and `downloads` in one page.

    It names no file of this machine: it is for other people.
    Pictures are the stored PNG files, or WebP where together they would be larger than
    LOSSLESS_BYTES (the page says so); steps are WebP.
    """
    results = replace(results, with_paths=False)
    comparison, runs, pictures = results.comparison, results.runs, results.pictures
    size = sum(pictures.path(run.image_sha256).stat().st_size for run in runs
               if run and pictures.whole(run.image_sha256))
    lossless = size <= LOSSLESS_BYTES

    def address(run: Run, kind: str) -> str | None:
        sha256 = run.image_sha256 if kind == "picture" else run.steps_sha256
        try:
            if kind == "picture" and lossless:
                return _data_uri(pictures.read(sha256), "png") if sha256 else None
            quality = QUALITY if kind == "picture" else STEPS_QUALITY
            return _webp(pictures.get(sha256), quality) if sha256 else None
        except StorageError:
            return None

    page = viewer_data(comparison, runs, results.every_record, address)
    page["files"] = {name: {"name": f"contact-sheet{export.suffix}", "type": export.mime,
                            "text": export.write(results).decode()}
                     for name, export in downloads.items()}
    buttons = [f'<button type="button" data-save="{name}">{escape(export.label)}</button>'
               for name, export in downloads.items()]
    first = next((run for run in runs if run), None)
    made = ["made by Contact Sheet"]
    if first:
        made.append(f"{first.datetime_utc[:10]}, {first.environment.get('device_name', '')}")
    if not lossless:
        made.append(f"pictures are WebP of quality {QUALITY}: differences are those of the copies")
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(heading_of(comparison)),
        subtitle=escape(subtitle(comparison, runs)),
        buttons="\n".join(buttons),
        made=escape(" · ".join(made)),
        css=STYLE.read_text(encoding="utf-8"),
        script=joined(FOLDER / "page.js"),
        data=_inside_a_script(page),
    ).encode()


def _inside_a_script(value: Any) -> str:
    """JSON in which no text can end the script element or open a comment."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _webp(image: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    flat(image).save(buffer, "WEBP", quality=quality)
    return _data_uri(buffer.getvalue(), "webp")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
