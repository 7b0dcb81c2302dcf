"""`python -m pipelines export` and `import`: the run log in files, and from another machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import Interrupt, Json, print_json, progress
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.exchange.archive import OnDone
from pipelines.exchange.bring_in import bring_in
from pipelines.exchange.formats import LOG_FORMATS, format_of
from pipelines.run_filter import RunFilter
from pipelines.run_query import EXAMPLE, parse_query

SHOWN = 20  # lines about what was left out; --json has more
Format = StrEnum("Format", {name: name for name in LOG_FORMATS})


def export(
    file: Annotated[Path, typer.Argument(
        help="File to write, a folder for mlflow; the end of its name says the format.")],
    format: Annotated[Format | None, typer.Option(help=" ".join(
        f"{name}: {form.help}" for name, form in LOG_FORMATS.items()))] = None,
    where: Annotated[str, typer.Option(help=f'Only these runs: {EXAMPLE}')] = "",
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write the run log, or a part of it, into a file."""
    name = format_of(file, format)
    parse_query(where)  # raises before the log is opened
    if file.exists() and LOG_FORMATS[name].suffix and not overwrite:
        raise RequestError(f"export: {file} exists already; accepted a new name or --overwrite")
    with _watched("runs") as on_done:
        written = LOG_FORMATS[name].write(Engine(), file, RunFilter(where=where), on_done)
    if as_json:
        print_json({"file": str(file), "format": name, **asdict(written)})
        return
    print(f"{file}: {written.summary}")
    _tell(list(written.left_out), len(written.left_out))


def import_(
    file: Annotated[Path, typer.Argument(help="A ZIP file that `export` wrote.")],
    as_json: Json = False,
) -> None:
    """Add the runs of an exported log to the log of this machine, none twice. Exit code 1 where
    something in the file was left out."""
    with _watched("runs") as on_done:
        imported = bring_in(Engine(), file, on_done)
    if as_json:
        print_json(asdict(imported))
    else:
        print(f"{imported.summary}.")
        _tell(imported.skipped, imported.skipped_count)
    if imported.skipped_count:
        raise typer.Exit(1)


@contextmanager
def _watched(unit: str) -> Iterator[OnDone]:
    """A callback that shows how far it is, and stops after Ctrl-C."""
    with Interrupt() as interrupt, progress(None, unit) as bar:

        def on_done(done: int, total: int) -> None:
            interrupt.check()
            bar.total = total
            bar.update(done - bar.n)

        yield on_done


def _tell(lines: list[str], count: int) -> None:
    for line in lines[:SHOWN]:
        print(f"left out: {line}", file=sys.stderr)
    if count > SHOWN:
        print(f"and {count - SHOWN:,} more", file=sys.stderr)
