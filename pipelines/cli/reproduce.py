"""`python -m pipelines reproduce`: make a file's pictures again, and tell how near they come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import Interrupt, Json, print_json, print_notes, progress
from pipelines.comparison import Comparison
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.fields import PICTURES
from pipelines.grid import new_comparison_id
from pipelines.hub.folders import models_here
from pipelines.inpainting.pictures_in import open_input
from pipelines.names import is_hosted
from pipelines.provenance.reproduce import changes, exit_code, originals, report
from pipelines.provenance.restore import OURS, restore
from pipelines.sheet.recipe import read_record


def reproduce(
    file: Annotated[Path, typer.Argument(
        help="A recipe (JSON or YAML), a picture of this program that carries its own, or an "
        "exported page (HTML).")],
    image: Annotated[Path | None, typer.Option(
        help="The picture to start from, where it is not on this machine.")] = None,
    mask_image: Annotated[Path | None, typer.Option(
        help="The mask, where it is not on this machine.")] = None,
    control_image: Annotated[Path | None, typer.Option(
        help="The control image, where it is not on this machine.")] = None,
    shared: Annotated[bool, typer.Option(
        help="Cells share network calls where that is possible.")] = True,
    as_json: Json = False,
) -> None:
    """Make a file's pictures again and compare them with it.

    The exit code is 0 where every picture is identical or within 2 of 255, 1 where one is different
    or failed, 2 for bad input, 3 where the file holds nothing to compare a picture with, 130 after
    Ctrl-C.
    """
    with Interrupt() as interrupt:
        engine = Engine()
        record, _ = read_record(file)
        restored = restore(file, models_here(engine), engine.pictures, OURS)
        given = {"image": image, "mask_image": mask_image, "control_image": control_image}
        comparison = with_pictures(engine, restored.comparison, given)
        wanted = [cell for cell in comparison.cells if not cell.left_out]
        for cell in wanted:
            if is_hosted(cell.request.model_id):
                raise RequestError(f"reproduce: a provider ran {cell.request.model_id}, and may "
                                   "have changed it since; to ask it again, and so send it the "
                                   "prompt, name it: compare --from FILE --model-id "
                                   f"{cell.request.model_id}")
            engine.check(cell.request)
        kept = originals(engine, file, record, comparison)
        changed = [*restored.notes, *changes(engine, record, comparison)]
        print_notes(*changed)
        interrupt.check()
        with progress(len(wanted), "cells") as bar:
            runs = engine.compare(
                comparison, lambda _number, _step: interrupt.check(),
                lambda _number, _run: bar.update(), new_comparison_id(), shared, fresh=True,
                check=interrupt.check)
    made = report(engine, comparison, runs, kept, changed)
    if as_json:
        print_json(made.as_dict())
    else:
        for cell in made.cells:
            parts = [f"{name} {value}" for name, value in cell.axes.items()] or ["the picture"]
            far = ("" if cell.largest in (None, 0) else
                   f", by at most {cell.largest} of 255, {cell.mean:.3f} on average")
            noise = {True: ", the same initial noise", False: ", another initial noise",
                     None: ""}[cell.same_noise]
            error = f": {cell.error}" if cell.error else ""
            print(f"{', '.join(parts)}: {cell.outcome}{far}{noise}{error}")
        print(", ".join(f"{count} {outcome}" for outcome, count in made.counts.items()))
    if interrupt.seen:
        raise typer.Exit(130)
    raise typer.Exit(exit_code(made))


def with_pictures(
    engine: Engine, comparison: Comparison, given: dict[str, Path | None]
) -> Comparison:
    """The comparison with the input pictures that were given; RequestError where one is missing."""
    values = {}
    for name in PICTURES:
        sha256 = getattr(comparison.base, name)
        if path := given[name]:
            values[name] = engine.pictures.put(open_input(path, name))
            if sha256 and values[name] != sha256:
                print_notes(f"{name}: {path} is another picture than {sha256[:12]}, or was "
                            "stored by other versions")
        elif sha256 and not engine.pictures.whole(sha256):
            raise RequestError(f"{name}: the picture {sha256[:12]} is not on this machine; give it "
                               f"with --{name.replace('_', '-')} FILE")
    return replace(comparison, base=comparison.base.changed(**values)) if values else comparison
