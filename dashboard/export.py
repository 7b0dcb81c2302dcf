"""What people take home: sheets, tables of cells, tables of runs."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

from pipelines.comparison import Comparison
from pipelines.run_log import PictureStore, Run, RunLog
from pipelines.sheet import draw, save_png


def sheet_pngs(
    comparison: Comparison, runs: Sequence[Run | None], pictures: PictureStore, name: str
) -> list[bytes]:
    """The labelled sheets as PNG files that carry their recipe."""
    recipe = {"comparison_id": name, "base": comparison.base.model_dump(mode="json"),
              "axes": {axis.name: list(axis.values) for axis in comparison.axes}}
    files = []
    for image in draw(comparison, runs, pictures):
        buffer = io.BytesIO()
        save_png(image, buffer, recipe)
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
    """Every run that the filters find, every column; lists and objects as JSON."""
    out = io.StringIO()
    writer = None
    for run in run_log.runs(**filters):
        record = {name: json.dumps(value) if isinstance(value, (dict, list)) else value
                  for name, value in run.as_dict().items()}
        if writer is None:
            writer = csv.DictWriter(out, list(record))
            writer.writeheader()
        writer.writerow(record)
    return out.getvalue()
