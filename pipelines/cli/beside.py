"""`python -m pipelines beside`: two comparisons of the log, cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import Json, Outputs, print_json, print_table
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.sheet.beside import COMPARED, in_words
from pipelines.sheet.beside import beside as put_beside
from pipelines.sheet.beside_page import number, page_of, summary
from pipelines.sheet.cells import to_csv


def beside(
    first: Annotated[str, typer.Argument(help="The id of a comparison.")],
    second: Annotated[str, typer.Argument(help="The id of another.")],
    html: Annotated[Path | None, typer.Option(
        help="Write a page with the pictures; it needs no network.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a row per pair of cells.")] = None,
    as_json: Json = False,
) -> None:
    """Put two comparisons beside each other: cells of equal coordinates in one row, what the two do
    not share, and the cells that only one has."""
    if first == second:
        raise RequestError(f"beside: received {first} twice, accepted two comparisons")
    files = [("--html", html), ("--csv", csv)]
    outputs = Outputs(*((option, path) for option, path in files if path))
    engine = Engine()
    found = put_beside(engine, first, second)
    if html:
        outputs.write(lambda: [page_of(found, engine.thumbnails)], html)
    if csv:
        outputs.write(lambda: [to_csv(found.records).encode()], csv)
    if as_json:
        print_json({"ids": found.ids, "differences": found.differences, "cells": found.records})
        return
    if found.differences:
        print_table(["not shared", first, second], [
            [name, *map(in_words, pair)] for name, pair in found.differences.items()])
        print()
    shown = [name for name in COMPARED
             if any(name in side.measures for row in found.rows
                    for side in (row.left, row.right) if side)]
    print_table(["cell", "pictures", *shown], [
        [row.name, "same" if row.same_picture else
         f"only in {second}" if row.left is None else
         f"only in {first}" if row.right is None else
         "; ".join(filter(None, (row.left.state, row.right.state))) or "differ",
         *(" | ".join(number(side.measures.get(name)) if side else "–"
                      for side in (row.left, row.right)) for name in shown)]
        for row in found.rows])
    print(summary(found))
