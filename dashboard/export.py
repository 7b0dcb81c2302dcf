"""What people take home: sheets, tables of cells, tables of runs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

from pipelines import measuring
from pipelines.comparison import Comparison
from pipelines.engine import Engine
from pipelines.run_log import ComparisonRow, Distance, Run, RunLog
from pipelines.sheet.draw import cell_record, cells_table, draw, recipe, save_png, to_csv
from pipelines.sheet.page import html_page
from pipelines.stores import PictureStore


def sheet_pngs(
    comparison: Comparison, runs: Sequence[Run | None], pictures: PictureStore
) -> list[bytes]:
    """The labelled sheets as PNG files that carry their recipe."""
    files = []
    for image in draw(comparison, runs, pictures):
        buffer = io.BytesIO()
        save_png(image, buffer, recipe(comparison, runs))
        files.append(buffer.getvalue())
    return files


def zipped(files: Sequence[bytes], name: str) -> bytes:
    """PNG files as one ZIP, numbered from 1."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, data in enumerate(files, 1):
            archive.writestr(f"{name}-{number}.png", data)
    return buffer.getvalue()


def cell_records(
    engine: Engine, row: ComparisonRow, runs: Sequence[Run | None]
) -> list[dict[str, Any]]:
    """A comparison's cells with their distances to its reference and their timings, as far as
    they were measured."""
    measured = zip(_distances(engine, row, runs), measuring.timings(engine, runs), strict=True)
    return [cell_record(cell.axes, run, engine.pictures, *found) for cell, run, found
            in zip(Comparison.from_row(row).cells, runs, measured, strict=True)]


def cells(engine: Engine, comparison_id: str) -> list[dict[str, Any]]:
    """A row per cell: parameters, timings, distances, errors."""
    row, runs = _logged(engine, comparison_id)
    return cells_table(Comparison.from_row(row), runs, engine.pictures,
                       _distances(engine, row, runs), measuring.timings(engine, runs))


def page_html(engine: Engine, comparison_id: str) -> str:
    """The sheet with its viewer as one page."""
    row, runs = _logged(engine, comparison_id)
    return html_page(Comparison.from_row(row), runs, engine.pictures,
                     cell_records(engine, row, runs), cells(engine, comparison_id))


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _logged(engine: Engine, comparison_id: str) -> tuple[ComparisonRow, list[Run | None]]:
    row = engine.run_log.comparison(comparison_id)
    runs = engine.run_log.runs(comparison_id=comparison_id)
    return row, Comparison.from_row(row).match(runs)


def _distances(
    engine: Engine, row: ComparisonRow, runs: Sequence[Run | None]
) -> Sequence[Distance | None]:
    if not row.reference:
        return [None] * len(runs)
    return measuring.distances(engine, Comparison.from_row(row), runs, row.reference)


def runs_csv(run_log: RunLog, **filters: Any) -> str:
    """Every run that the filters find, every column."""
    records = [run.as_dict() for run in run_log.runs(**filters)]
    return to_csv(records, Run.__table__.columns.keys())
