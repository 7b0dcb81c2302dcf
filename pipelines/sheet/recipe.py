"""The recipe: what makes the same pictures again, as a PNG or a page carries it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.axes import Axis
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError, RequestError
from pipelines.log_tables import ComparisonRow, Run
from pipelines.provenance.blocks import Blocks, open_file, read_blocks, title
from pipelines.provenance.encode import CHUNK
from pipelines.provenance.xmp import record_of
from pipelines.request import join_model_id, split_model_id


def recipe(
    comparison: Comparison,
    runs: Sequence[Run | None] = (),
    made_with: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What makes the same sheet again: the base request and the axes, a model of the Hub by the
    commit that made its runs. `made_with` are their models, versions and pictures
    (provenance/record.py)."""
    commits = [run and run.request.get("revision") for run in runs]
    commits = [commit if isinstance(commit, str) else None for commit in commits]
    base, made_by = comparison.base, set(filter(None, commits))
    if len(made_by) == 1 and not {"model_id", "revision"} & comparison.varied:
        base = base.changed(revision=made_by.pop())
    axes = [_pinned(comparison, axis, commits) for axis in comparison.axes]
    return {"base": base.model_dump(mode="json"), "axes": [axis.as_dict() for axis in axes],
            "skip": list(comparison.skip), **(made_with or {})}


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


def read_recipe(source: Path | bytes) -> Comparison:
    """The comparison of a recipe: JSON or YAML, a picture that carries one, or an exported page.

    The recipe of a single picture is a comparison of one cell. Raises RequestError.
    """
    return read_record(source)[1]


def read_record(source: Path | bytes) -> tuple[dict[str, Any], Comparison]:
    """All that a recipe says, and its comparison. Raises RequestError."""
    text, _ = carried(source, "recipe")
    if text is not None:
        with contextlib.suppress(NoRecipe):
            return comparison_of(text)
    raise RequestError(
        f"recipe: {title(source)} holds none; accepted JSON or YAML (UTF-8, UTF-16 or UTF-32), a "
        "labelled PNG or HTML page that Contact Sheet wrote, or a picture of its own"
    )


class NoRecipe(RequestError):
    """A text that is no recipe."""


def comparison_of(text: str) -> tuple[dict[str, Any], Comparison]:
    """A recipe's JSON or YAML as its values, and the comparison; RequestError where it makes none.
    """
    try:
        record = _values(text)
        columns = record
        if "requests" in columns:
            columns = {"base": columns["requests"][0], "axes": []}
        columns = {name: columns[name] for name in ("base", "axes", "skip") if name in columns}
        comparison = Comparison.from_row(ComparisonRow(id="", datetime_utc="", **columns))
        len(comparison.cells)  # builds them: what is wrong in one is said now
    except PipelineError:
        raise
    except Exception as error:  # what others wrote may fail in any way
        raise NoRecipe("it holds no recipe") from error
    return record, comparison


def _values(text: str) -> dict[str, Any]:
    """The values of a text in JSON, else in YAML; raises anything where it is neither."""
    with contextlib.suppress(json.JSONDecodeError):
        return json.loads(text)
    from pipelines.provenance.plain_yaml import parse_yaml

    return parse_yaml(text)


def carried(source: Path | bytes, name: str) -> tuple[str | None, Blocks | None]:
    """The text of the recipe that a file carries, None where there is none, and the texts of a
    picture, None where it is none. RequestError where the file cannot be read; `name` says what it
    was given for.

    A recipe is among a picture's texts; else it is the file itself, or an exported page, in UTF-8,
    UTF-16 or UTF-32, with a byte order mark or without.
    """
    with open_file(source, name) as file:
        try:
            blocks = read_blocks(file)
        except RequestError as error:
            raise RequestError(f"{name}: {title(source)}: {error}") from error
        if blocks is not None:
            return blocks.texts.get(CHUNK) or record_of(blocks.xmp), blocks
        file.seek(0)
        data = file.read()
    try:
        text = data.decode(json.detect_encoding(data))
        if text.lstrip().startswith("<"):
            text = page_data(text)["files"]["recipe"]["text"]
    except Exception:  # what others wrote may fail in any way
        return None, None
    return text, None


def page_data(text: str) -> dict[str, Any]:
    """What an exported page holds for its viewer; raises anything where it is none."""
    _, page = text.split('id="data">')
    return json.loads(page[: page.index("</script>")])
