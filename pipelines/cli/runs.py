"""`python -m pipelines runs`: the run log as a table, CSV or JSON."""

from __future__ import annotations

import datetime
import itertools
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from pipelines.cli.options import refuse_beside
from pipelines.cli.output import Json, print_json_list, print_table
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.log_tables import Run
from pipelines.notation import number_text
from pipelines.run_query import EXAMPLE, parse_query
from pipelines.sheet.cells import runs_csv, spreadsheet_lines


class Status(StrEnum):
    ok = "ok"
    failed = "failed"
    cancelled = "cancelled"


class Format(StrEnum):
    table = "table"
    csv = "csv"
    spreadsheet = "spreadsheet"
    json = "json"


def runs(
    context: typer.Context,
    format: Annotated[Format, typer.Option(
        help="How to print them; csv is for programs, spreadsheet is CSV for people.")]
    = Format.table,
    as_json: Json = False,
    text: Annotated[str, typer.Option(help="Only runs whose prompts contain this.")] = "",
    model_id: Annotated[str | None, typer.Option()] = None,
    scheduler: Annotated[str | None, typer.Option()] = None,
    status: Annotated[Status | None, typer.Option(help="How they ended.")] = None,
    since: Annotated[str | None, typer.Option(help="ISO date, included.")] = None,
    until: Annotated[str | None, typer.Option(help="ISO date, included.")] = None,
    comparison_id: Annotated[str | None, typer.Option()] = None,
    where: Annotated[str, typer.Option(
        help=f'A query: {EXAMPLE}; words are looked for in the prompts.')] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="The newest N.")] = None,
) -> None:
    """Print the run log, the newest first."""
    if as_json and format is not Format.json:
        refuse_beside(context, "json: prints JSON", {"format"})
    for name, day in (("since", since), ("until", until)):
        _check_day(name, day)
    parse_query(where)  # raises before the log is opened
    filters = {"text": text, "model_id": model_id, "scheduler": scheduler, "status": status,
               "since": since, "until": until, "comparison_id": comparison_id, "where": where}
    log = Engine().run_log

    def stream() -> Iterator[Run]:
        return itertools.islice(log.stream(**filters), limit)

    if as_json or format is Format.json:
        print_json_list(run.as_dict() for run in stream())
        return
    if format is not Format.table:
        for line in (runs_csv(stream()) if format is Format.csv else
                     spreadsheet_lines(lambda: (run.as_dict() for run in stream()))):
            print(line, end="")
        return
    rows = list(stream())
    if not rows and log.count():
        print("No run fits these filters.")
    elif not rows:
        print("No runs yet. Make one: python -m pipelines generate \"a red car\" -o out.png")
    else:
        print_table(
            ["id", "datetime_utc", "status", "scheduler", "steps", "guidance", "seed", "nfe",
             "total_ms", "prompt"],
            [[run.id, run.datetime_utc[:19], run.status, run.scheduler,
              run.asked("num_inference_steps"), _number(run.asked("guidance_scale")), run.seed,
              run.nfe,
              None if run.total_ms is None else round(run.total_ms), run.prompt] for run in rows],
        )
        for run in rows:
            if run.damage:
                print(f"run {run.id}: {run.damage}", file=sys.stderr)


def _number(value: float | None) -> str:
    return "" if value is None else number_text(value)


def _check_day(name: str, day: str | None) -> None:
    try:
        datetime.date.fromisoformat(day or "2000-01-01")
    except ValueError:
        raise RequestError(f"{name}: received {day!r}, accepted a date: YYYY-MM-DD") from None
