"""The run log with its pictures in one ZIP file, for another machine or for keeping.

`about.json` says what it is, a `.jsonl` file holds a row of its table in each line, and the files
that rows name lie in `pictures/` and `latents/`, each under the SHA-256 of its bytes.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipelines
from pipelines.errors import StorageError
from pipelines.exchange.selection import Selection, selection
from pipelines.fields import PICTURES
from pipelines.files import writing
from pipelines.log_tables import Base, ComparisonRow, Distance, Run, Tag, Timing, utc_now
from pipelines.run_filter import RunFilter
from pipelines.stores import Store
from pipelines.study.rows import StudyRow

if TYPE_CHECKING:
    from pipelines.engine import Engine

ABOUT, KIND, FORMAT = "about.json", "contact-sheet log", 1
# The files of rows, in the order in which they are brought in: what a row names comes before it.
TABLES: dict[str, type[Base]] = {
    "comparisons": ComparisonRow, "studies": StudyRow, "runs": Run, "distances": Distance,
    "timings": Timing, "tags": Tag}
OnDone = Callable[[int, int], None]  # told how many of how many; may raise Cancelled


@dataclass(frozen=True)
class Exported:
    """What was written: the runs that were asked for, those that they need on top, and what is not
    in the file and why."""

    runs: int
    needed: int
    files: int
    size: int
    left_out: tuple[str, ...] = ()


def write_archive(
    engine: Engine, target: Path, run_filter: RunFilter, on_done: OnDone | None = None
) -> Exported:
    """Write the runs that a filter lets through into a ZIP file, with pictures, latents, marks,
    measures, comparisons and studies. Rows and files pass one by one: what stays in memory is the
    ZIP's list of files. Raises StorageError; what was there before stays then."""
    try:
        with (selection(engine.run_log, run_filter) as chosen, writing(target) as file,
              zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive):
            return _write(engine, archive, chosen, on_done, lambda: file.tell())
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error


def _write(
    engine: Engine, archive: zipfile.ZipFile, chosen: Selection, on_done: OnDone | None,
    size: Callable[[], int],
) -> Exported:
    archive.writestr(ABOUT, json.dumps({
        "kind": KIND, "format": FORMAT, "version": pipelines.__version__,
        "datetime_utc": utc_now(), "runs": chosen.count}))
    left_out: list[str] = []
    for name, kind in TABLES.items():
        with archive.open(f"{name}.jsonl", "w", force_zip64=True) as lines:
            for row in chosen.rows(kind):
                if row.damage:
                    left_out.append(f"{name}: {getattr(row, 'id', row)}: {row.damage}")
                    continue
                lines.write(json.dumps(as_dict(row), ensure_ascii=False).encode() + b"\n")
    kinds: tuple[tuple[Store, tuple[str, ...]], ...] = (
        (engine.pictures, ("image_sha256", "steps_sha256",
                           *(f"request.{name}" for name in PICTURES))),
        (engine.latents, ("latents_sha256",)))
    total = sum(1 for store, columns in kinds for _ in chosen.names(*columns))
    seen = written = 0
    for store, columns in kinds:
        for name in chosen.names(*columns):
            if store.whole(name):
                archive.write(store.path(name), member(store, name), zipfile.ZIP_STORED)
                written += 1
            else:
                left_out.append(f"{store.kind} that is missing or damaged here: {name:.80}")
            seen += 1
            if on_done:
                on_done(seen, total)
    return Exported(chosen.asked, chosen.count - chosen.asked, written, size(), tuple(left_out))


def member(store: Store, name: str) -> str:
    """Where a file of a store lies in the archive."""
    path = store.path(name)
    return path.relative_to(store.folder.parent).as_posix()


def as_dict(row: Any) -> dict[str, Any]:
    """Every column of a row."""
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}

