"""Runs as Parquet: every column of the log, in the types that it has there; lists and objects as
JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, Boolean, Float, Integer

from pipelines.errors import StorageError
from pipelines.files import writing
from pipelines.log_tables import Run

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_OF_GROUP = 5000


def parquet_schema() -> pa.Schema:
    """The columns of a run, with what they were in `Run` as metadata."""
    import pyarrow as pa

    types = ((Boolean, pa.bool_()), (Integer, pa.int64()), (Float, pa.float64()))
    return pa.schema([
        pa.field(column.name, next((kind for sql, kind in types if isinstance(column.type, sql)),
                                   pa.string()), column.nullable,
                 {"json": "yes"} if isinstance(column.type, JSON) else None)
        for column in Run.__table__.columns])


def write_parquet(runs: Iterable[Run], target: Path) -> int:
    """Write runs into a Parquet file, some at a time; how many. Raises StorageError."""
    import pyarrow as pa
    from pyarrow import parquet

    schema, count = parquet_schema(), 0
    try:
        with writing(target) as file, parquet.ParquetWriter(file, schema) as writer:
            for group in _groups(runs):
                writer.write_table(pa.Table.from_pylist(
                    [_flat(run.as_dict()) for run in group], schema))
                count += len(group)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{target} cannot be written: {error}") from error
    return count


def _groups(runs: Iterable[Run]) -> Iterator[list[Run]]:
    group: list[Run] = []
    for run in runs:
        group.append(run)
        if len(group) == ROWS_OF_GROUP:
            yield group
            group = []
    if group:
        yield group


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
            for name, value in row.items()}
