"""The recipe: what makes the same pictures again, as a PNG or a page carries it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from pipelines.axes import Axis
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError, RequestError
from pipelines.inpainting.pictures_in import MAX_PIXELS
from pipelines.log_tables import ComparisonRow, Run
from pipelines.request import join_model_id, split_model_id

PNG = b"\x89PNG\r\n\x1a\n"
CHUNK = "contact_sheet"
MAX_BYTES = 2**29  # of JSON, or of a page with all its pictures


def recipe(comparison: Comparison, runs: Sequence[Run | None] = ()) -> dict[str, Any]:
    """What makes the same sheet again: the base request and the axes, a model of the Hub by the
    commit that made its runs."""
    commits = [run and run.request.get("revision") for run in runs]
    commits = [commit if isinstance(commit, str) else None for commit in commits]
    base, made_by = comparison.base, set(filter(None, commits))
    if len(made_by) == 1 and not {"model_id", "revision"} & comparison.varied:
        base = base.changed(revision=made_by.pop())
    axes = [_pinned(comparison, axis, commits) for axis in comparison.axes]
    return {"base": base.model_dump(mode="json"), "axes": [axis.as_dict() for axis in axes],
            "skip": list(comparison.skip)}


def _pinned(comparison: Comparison, axis: Axis, commits: Sequence[str | None]) -> Axis:
    """An axis with the commit behind each model, where its cells were made by one."""
    name = "revision" if "revision" in axis.parts else "model_id"
    ruled = any("revision" in rule for rule in comparison.skip)
    if name not in axis.parts or (name == "model_id" and "revision" in comparison.varied) or ruled:
        return axis
    place, several = axis.parts.index(name), len(axis.parts) > 1
    values = []
    for value in axis.values:
        made_by = {commit for cell, commit in zip(comparison.cells, commits, strict=False)
                   if cell.axes[axis.name] == value and commit}
        parts = list(value) if several else [value]
        if len(made_by) == 1 and name == "revision":
            parts[place] = made_by.pop()
        elif len(made_by) == 1:
            model_id, _, variant = split_model_id(parts[place])
            parts[place] = join_model_id(model_id, made_by.pop(), variant)
        values.append(tuple(parts) if several else parts[0])
    return replace(axis, values=tuple(values))


def png_with_recipe(image: Image.Image, recipe: dict[str, Any]) -> bytes:
    """A PNG that carries its recipe as a text chunk."""
    info, buffer = PngInfo(), io.BytesIO()
    info.add_itxt(CHUNK, json.dumps(recipe))
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def read_recipe(path: Path) -> Comparison:
    """The comparison of a recipe: its JSON, a PNG that carries one, or an exported page.

    The recipe of a single picture is a comparison of one cell. Raises RequestError.
    """
    try:
        text = _recipe_text(path)
        columns = json.loads(text)
        if "requests" in columns:
            columns = {"base": columns["requests"][0], "axes": []}
        columns = {name: columns[name] for name in ("base", "axes", "skip") if name in columns}
        comparison = Comparison.from_row(ComparisonRow(id="", datetime_utc="", **columns))
        len(comparison.cells)  # builds them: what is wrong in one is said now
    except PipelineError:
        raise
    except OSError as error:
        raise RequestError(f"recipe: {path} cannot be read: {error}") from error
    except Exception as error:  # what others wrote may fail in any way
        raise RequestError(
            f"recipe: {path} holds none; accepted the JSON (UTF-8, UTF-16 or UTF-32), labelled "
            "PNG or HTML page that Contact Sheet wrote"
        ) from error
    return comparison


def _recipe_text(path: Path) -> str:
    """The JSON of a recipe. Of a PNG what stands before its pixels is read, so that a sheet may
    have any size; text may be UTF-8, UTF-16 or UTF-32, with a byte order mark or without."""
    if not path.is_file():
        raise RequestError(f"recipe: {path} {'is no file' if path.exists() else 'does not exist'}")
    with path.open("rb") as file:
        if file.read(len(PNG)) == PNG:
            file.seek(0)
            image = PngImageFile(file)
            text = image.info.get(CHUNK)
            if text is None and image.width * image.height <= MAX_PIXELS:
                text = image.text[CHUNK]  # behind the pixels, where another program put it
            return text
        if (size := path.stat().st_size) > MAX_BYTES:
            raise RequestError(f"recipe: {path} has {size / 2**20:.0f} MB, accepted up to "
                               f"{MAX_BYTES // 2**20} MB")
        file.seek(0)
        data = file.read()
    text = data.decode(json.detect_encoding(data))
    if text.lstrip().startswith("<"):
        _, page = text.split('id="data">')
        return json.loads(page[: page.index("</script>")])["files"]["recipe"]["text"]
    return text
