"""`python -m pipelines models` and `schedulers`: what is here to paint with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.check import check_folders, pipeline_folders
from pipelines.cli.output import Json, print_json, print_notes, print_table, progress
from pipelines.engine import Engine
from pipelines.errors import PipelineError, RequestError
from pipelines.hub.client import Hub
from pipelines.hub.folders import LocalFolders, offered_models
from pipelines.schedulers import CATALOGUE


def models(
    check: Annotated[Path | None, typer.Option(
        metavar="DIR", help="Open each pipeline folder below DIR and run its tasks.")] = None,
    as_json: Json = False,
) -> None:
    """Print the models that are here, or check a folder of pipelines."""
    if check:
        _check_models(check, as_json)
        return
    engine, infos, problems = Engine(), [], {}
    try:
        LocalFolders(engine.home).paths()
    except PipelineError as error:
        print_notes(str(error))
    for model_id in offered_models(engine.home, Hub().cache_dir):
        try:
            infos.append(engine.registry.describe(model_id))
        except PipelineError as error:
            problems[model_id] = str(error)
            print_notes(str(error))
    records = [
        {"model_id": i.model_id, "source": i.source, "pipeline_class": i.pipeline_class,
         "height": i.height, "width": i.width, "size_bytes": i.size_bytes,
         "default_scheduler": i.default_scheduler, "prediction_type": i.prediction_type,
         "folder": str(i.folder), "problem": None} for i in infos
    ]
    for model_id, problem in problems.items():
        records.append({**dict.fromkeys(records[0]), "model_id": model_id, "problem": problem})
    if as_json:
        print_json(records)
        return
    print_table(
        ["model_id", "source", "pipeline", "size", "weights", "default scheduler"],
        [[i.model_id, i.source, i.pipeline_class, f"{i.width} x {i.height} px",
          f"{i.size_bytes / 1e6:.1f} MB", i.default_scheduler] for i in infos],
    )


def schedulers(as_json: Json = False) -> None:
    """Print the scheduler catalogue."""
    if as_json:
        print_json([asdict(info) for info in CATALOGUE])
        return
    print_table(
        ["key", "name", "family", "order", "stochastic", "NFE/step", "paper"],
        [[i.key, i.label, i.family, i.order, "yes" if i.stochastic else "no",
          i.evaluations_per_step, i.paper] for i in CATALOGUE],
    )


def _check_models(root: Path, as_json: bool) -> None:
    """Exit code 1 where a folder or a task fails, 2 where there is no folder to check."""
    count = len(pipeline_folders(root))
    if not count:
        raise RequestError(f"check: no model_index.json at or below {root}")
    checks = []
    with progress(count, "folders") as bar:
        for outcome in check_folders(root):
            checks.append(outcome)
            bar.update()
    if as_json:
        print_json([{**asdict(outcome), "ok": outcome.ok} for outcome in checks])
    else:
        print_table(
            ["folder", "pipeline", "task", "result"],
            [[outcome.folder, outcome.pipeline_class, task, result] for outcome in checks
             for task, result in outcome.results.items() or [("", outcome.error or "no task")]],
        )
        for outcome in checks:
            print_notes(*(f"{outcome.folder}: {note}" for note in outcome.notes))
    if not all(outcome.ok for outcome in checks):
        raise typer.Exit(1)
