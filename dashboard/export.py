"""What people take home: sheets, tables of cells, tables of runs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

from pipelines.comparison import Comparison
from pipelines.run_log import PictureStore, Run, RunLog
from pipelines.sheet import draw, recipe, save_png, to_csv


def sheet_pngs(
    comparison: Comparison, runs: Sequence[Run | None], pictures: PictureStore
) -> list[bytes]:
    """The labelled sheets as PNG files that carry their recipe."""
    files = []
    for image in draw(comparison, runs, pictures):
        buffer = io.BytesIO()
        save_png(image, buffer, recipe(comparison))
        files.append(buffer.getvalue())
    return files


def zipped(files: Sequence[bytes], name: str) -> bytes:
    """PNG files as one ZIP, numbered from 1."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, data in enumerate(files, 1):
            archive.writestr(f"{name}-{number}.png", data)
    return buffer.getvalue()


def runs_csv(run_log: RunLog, **filters: Any) -> str:
    """Every run that the filters find, every column."""
    records = [run.as_dict() for run in run_log.runs(**filters)]
    return to_csv(records, Run.__table__.columns.keys())
