"""`python -m pipelines compare`: a sheet of pictures from a request and axes."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import measuring
from pipelines.claims import waiting_text
from pipelines.cli.cluster import Address
from pipelines.cli.options import (
    From,
    Truthful,
    export_options,
    given,
    make_request,
    refuse_beside,
    request_options,
    restored_from,
    tell_what_leaves,
)
from pipelines.cli.output import (
    Interrupt,
    Json,
    Outputs,
    check_png,
    exit_for,
    print_json,
    print_notes,
    progress,
)
from pipelines.cluster import cluster_of
from pipelines.comparison import Comparison, logged_comparison
from pipelines.engine import Engine
from pipelines.errors import Cancelled, RequestError
from pipelines.grid import new_comparison_id
from pipelines.log_tables import Run
from pipelines.measuring import CONVERGED, reference_cells
from pipelines.names import LONGEST, file_names
from pipelines.painting.extras import Extras
from pipelines.painting.result import Step
from pipelines.references import made_here
from pipelines.request import RunRequest
from pipelines.sheet.cells import Results, notes_of_runs
from pipelines.sheet.exports import EXPORTS, sheet_pngs
from pipelines.sheet.recipe import read_recipe

# What a comparison of the log has, and a recipe too: options of these are refused beside them.
HELD = {*RunRequest.model_fields, "axis", "skip", "num_images_per_prompt"}


@request_options
@export_options
def compare(
    context: typer.Context,
    fields: dict,
    *,
    axis: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUES", help="A field and its values: 1,3,7 or 1..10 or 1..10:2 or "
        "0.1..0.9/5 or 1,2,..,9; texts are separated by ||; skip: leaves a value out; "
        "A+B=1+x,2+y links fields; NAME:=[...] is a JSON list, for texts with line breaks or "
        "separators, and paths with commas. Rows, then columns, then one sheet per value.")] = None,
    skip: Annotated[list[str] | None, typer.Option(
        metavar="RULE", help="Leave cells out, such as scheduler=heun,num_inference_steps>20; a "
        "value behind := is JSON; may be repeated.")] = None,
    num_images_per_prompt: Annotated[int, typer.Option(
        min=1, help="Pictures per cell: as many seeds, from --seed on.")] = 1,
    resume: Annotated[str | None, typer.Option(
        metavar="ID", help="Go on with a comparison of the log; its request and axes stand, and "
        "options that would change them are refused.")] = None,
    fresh: Annotated[bool, typer.Option(
        "--fresh", help="Make every cell, also those that the log holds already; with --resume, "
        "every one that is missing.")] = False,
    recipe: Annotated[Path | None, typer.Option(
        help="Make a sheet again: a recipe, or a PNG or HTML page that carries one; its request "
        "and axes stand, and options that would change them are refused.")] = None,
    source: From = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Labelled PNG sheet.")]
    = Path("sheet.png"),
    truthful: Truthful = True,
    exports: dict,
    shared: Annotated[bool, typer.Option(
        help="Cells share UNet calls where the pipeline allows it: faster, the same pictures, "
        "shared times.")] = True,
    reference: Annotated[str | None, typer.Option(
        metavar="converged|CELL", help="Measure each cell's distance to the converged picture, or "
        "to a cell such as scheduler=ddim,num_inference_steps=50.")] = None,
    measure: Annotated[int, typer.Option(
        metavar="N", min=0, help="Time the cells: each apart, N times, in turns.")] = 0,
    cluster: Address = None,
    as_json: Json = False,
) -> None:
    """Make a sheet of pictures from one initial noise."""
    check_png(output)
    with Interrupt() as interrupt:
        # What is asked for, and whether it can be made and written.
        engine = Engine(cluster=cluster_of(cluster))
        comparison, logged_reference = _asked_for(
            context, engine, fields, axis or [], skip or [], num_images_per_prompt, resume, recipe,
            source)
        reference = reference or logged_reference
        if reference and reference != CONVERGED:
            reference_cells(comparison, reference)
        wanted = [number for number, cell in enumerate(comparison.cells) if not cell.left_out]
        for number in wanted:
            engine.check(comparison.cells[number].request)
        tell_what_leaves(context, (comparison.cells[number].request for number in wanted),
                         chosen=resume is not None)
        sheets = _sheet_paths(comparison, output)
        files = {name: path for name, path in exports.items() if path}
        outputs = Outputs(*(("output", path) for path in sheets), *files.items())
        interrupt.check()

        # The cells, then what is measured of them; Ctrl-C keeps what is there by then.
        comparison_id = resume or new_comparison_id()
        print(f"comparison {comparison_id}; to go on with it if it is interrupted: "
              f"{context.find_root().info_name} compare --resume {comparison_id}", file=sys.stderr)
        if resume and reference:
            engine.run_log.set_reference(resume, reference)
        with progress(len(wanted), "cells") as bar:
            runs = engine.compare(
                comparison,
                lambda _number, _step: interrupt.check(),
                lambda _number, _run: bar.update(),
                comparison_id,
                shared,
                reference,
                fresh,
                interrupt.check,
                lambda cells: bar.set_postfix_str(waiting_text(cells)),
            )
        extras = Extras()
        if reference and not interrupt.seen:
            with extras.attempt("reference"):
                _measure_distances(engine, comparison, runs, reference, interrupt)
        if measure and not interrupt.seen:
            with extras.attempt("measure"):
                _measure_timings(engine, runs, measure, interrupt)
    results = replace(Results.gather(engine, comparison, runs, reference), truthful=truthful)

    # The files.
    outputs.write(lambda: sheet_pngs(results), *sheets)
    for name, path in files.items():
        outputs.write(lambda name=name: [EXPORTS[name].write(results)], path)

    # What is said, and the exit code.
    records = results.records
    if as_json:
        print_json({"comparison_id": comparison_id, "reference": reference, "sheet": str(sheets[0]),
                    "sheets": [str(path) for path in sheets], "cells": records})
    else:
        done = sum(record["status"] == "ok" for record in records)
        reused = sum(record["reused"] for record in records)
        print(f"{', '.join(map(str, sheets))}: {done} of {len(wanted)} cells"
              f"{f' ({reused} from the log)' if reused else ''}, comparison {comparison_id}")
        for record in records:
            if record["error"]:
                print(f"  {record['axes']}: {record['error']}", file=sys.stderr)
    in_runs = {note for run in runs if run for note in run.notes}
    print_notes(*notes_of_runs(runs), *(n for n in extras.notes if n not in in_runs),
                *(engine.cluster.notes if engine.cluster else ()))
    if interrupt.seen:
        raise typer.Exit(130)
    outputs.finish()
    exit_for([runs[number] for number in wanted])
    if extras.notes:
        raise typer.Exit(1)


def _asked_for(
    context: typer.Context,
    engine: Engine,
    fields: dict[str, Any],
    axes: list[str],
    rules: list[str],
    pictures: int,
    resume: str | None,
    recipe: Path | None,
    source: Path | None,
) -> tuple[Comparison, str | None]:
    """The comparison, and its reference where the log has one."""
    if resume is not None:
        refuse_beside(context, "resume: takes the request and the axes from the log, give neither",
                      HELD | {"recipe", "source"})
        row, comparison, _ = logged_comparison(engine.run_log, resume)
        return comparison, row.reference
    if recipe is not None:
        refuse_beside(context, "recipe: holds the request and the axes, give neither",
                      HELD | {"source"})
        return read_recipe(recipe), None
    restored = None
    if source is not None:
        fields, restored = restored_from(source, context, engine, fields)
    elif not axes:
        raise RequestError("axis: received none, accepted --axis NAME=VALUES such as "
                           "--axis guidance_scale=1,3,7, or --resume ID, --recipe FILE or "
                           "--from FILE")
    request = make_request(engine, fields)
    if restored and not axes:
        if pictures > 1:
            raise RequestError("num_images_per_prompt: with --from it goes with --axis")
        comparison = restored.comparison
        return Comparison(request, comparison.axes, (*comparison.skip, *rules)), None
    seeds = [f"seed={request.seed}..{request.seed + pictures - 1}"] if pictures > 1 else []
    comparison = Comparison.parse(request, [*axes, *seeds], rules)
    varied = [part for axis in comparison.axes[:len(axes)] for part in axis.parts]
    for name, option in given(context).items():
        if name in varied:
            print_notes(f"{option} has no effect: {name} is on an axis")
    return comparison, None


def _measure_distances(
    engine: Engine,
    comparison: Comparison,
    runs: Sequence[Run | None],
    reference: str,
    interrupt: Interrupt,
) -> None:
    """Log the distances of the cells; Ctrl-C keeps those that were measured by then."""
    with progress(0, "reference steps") as bar, contextlib.suppress(Cancelled):

        def on_step(step: Step) -> None:
            interrupt.check()
            bar.total = max(bar.total or 0, bar.n - step.index + 1 + step.total)
            bar.update()

        measuring.measure(engine, comparison, runs, reference, on_step, interrupt.check)


def _measure_timings(
    engine: Engine, runs: Sequence[Run | None], repeats: int, interrupt: Interrupt
) -> None:
    """Time the cells; Ctrl-C keeps what was measured."""
    made = {run.source_id for run in made_here(runs)}
    with progress(repeats * len(made), "timings") as bar, contextlib.suppress(Cancelled):
        measuring.measure_timings(engine, runs, repeats, lambda _step: interrupt.check(),
                               lambda _done: bar.update())


def _sheet_paths(comparison: Comparison, output: Path) -> list[Path]:
    """One path, or one per value of the further axes: sheet-seed=1.png."""
    axes, suffix = comparison.sheet_axes, output.suffix or ".png"
    if not axes:
        return [output.with_name(f"{output.stem}{suffix}")]
    room = max(16, LONGEST - len(f"{output.stem}{suffix}".encode()))
    part = room // len(axes) - 1
    texts = ["".join("-" + file_names([f"{axis.name}={axis.label(value)}"[:60]], part)[0]
                     for axis, value in zip(axes, values, strict=True))
             for values in itertools.product(*(axis.values for axis in axes))]
    return [output.with_name(f"{output.stem}{name}{suffix}") for name in file_names(texts, room)]
