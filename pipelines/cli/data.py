"""`python -m pipelines doctor`, `backup` and `restore`: the data folder as a whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.backup import back_up
from pipelines.backup import restore as restore_backup
from pipelines.cli.output import Json, print_json, progress
from pipelines.doctor import KINDS, SET_ASIDE, examine
from pipelines.errors import RequestError
from pipelines.hub.plan import size_text
from pipelines.run_log import data_home

SHOWN = 20  # of each kind; --json has all


def doctor(
    mend: Annotated[bool, typer.Option(
        help=f"Move unnamed and damaged files to {SET_ASIDE}/, remove half-written ones, make the "
             "full-text index anew; no row or whole picture is lost.")] = False,
    as_json: Json = False,
) -> None:
    """Check the data folder: database, rows, pictures, left files. Exit code 1 where something is
    wrong that was not mended."""
    home = data_home()
    with progress(None, "files") as bar:
        findings = examine(home, mend, bar.update)
    left = [finding for finding in findings if not finding.mended]
    if as_json:
        print_json({"home": str(home), "ok": not left,
                    "findings": [asdict(finding) for finding in findings]})
    else:
        for kind, count in Counter(finding.kind for finding in findings).items():
            of_kind = [finding for finding in findings if finding.kind == kind]
            print(f"{KINDS[kind]}: {count}")
            for finding in of_kind[:SHOWN]:
                print(f"  {finding.what}{' (mended)' if finding.mended else ''}")
            if count > SHOWN:
                print(f"  and {count - SHOWN} more, see --json")
        print(f"{home}: {f'{len(left)} to look at' if left else 'all is well'}")
    if left:
        raise typer.Exit(1)


def backup(
    file: Annotated[Path, typer.Argument(help="ZIP file to write; it must not exist yet.")],
    as_json: Json = False,
) -> None:
    """Write the log with all pictures into one file, also while something is being made."""
    if file.exists():
        raise RequestError(f"backup: {file} exists already; accepted a new name")
    with progress(None, "files") as bar:
        summary = back_up(data_home(), file, bar.update)
    if as_json:
        print_json(asdict(summary))
    else:
        print(f"{summary.runs:,} runs and {summary.files:,} files, {size_text(summary.size)}")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `backup` wrote.")],
    overwrite: Annotated[bool, typer.Option(
        help=f"Replace the log that is there; it is kept in {SET_ASIDE}/.")] = False,
    as_json: Json = False,
) -> None:
    """Bring log and pictures back from a backup."""
    with progress(None, "files") as bar:
        summary = restore_backup(file, data_home(), overwrite, bar.update)
    if as_json:
        print_json(asdict(summary))
    else:
        print(f"{summary.runs:,} runs and {summary.files:,} files are in {data_home()}")
