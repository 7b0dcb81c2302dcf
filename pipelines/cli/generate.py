"""`python -m pipelines generate`: one picture, or a chain of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.chain import parse_stage
from pipelines.cli.options import (
    From,
    Truthful,
    make_request,
    request_options,
    restored_from,
    tell_what_leaves,
)
from pipelines.cli.output import (
    Interrupt,
    Json,
    Output,
    Outputs,
    exit_for,
    print_json,
    print_notes,
    run_bytes,
    step_bar,
)
from pipelines.engine import Engine
from pipelines.provenance.encode import check_suffix
from pipelines.request import TO_COME
from pipelines.sheet.cells import cell_record, notes_of_runs


@request_options
def generate(
    context: typer.Context,
    fields: dict,
    output: Output = Path("out.png"),
    source: From = None,
    truthful: Truthful = True,
    then: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE,...", help="A further stage that starts from the picture, such as "
        "model_id=NAME,strength=0.6; may be repeated. Earlier pictures get a number.")] = None,
    as_json: Json = False,
) -> None:
    """Make one picture, or a chain of them."""
    check_suffix(output)
    with Interrupt() as interrupt:
        engine = Engine()
        if source:
            fields, _ = restored_from(source, context, engine, fields)
        request = make_request(engine, fields)
        stages = [parse_stage(text) for text in then or []]
        engine.check(request)
        following = [request.changed(task="image-to-image", image=TO_COME, strength=1,
                                     model_id=stage.get("model_id", request.model_id))
                     for stage in stages]
        tell_what_leaves(context, [request, *following])
        paths = [*(output.with_stem(f"{output.stem}-{number}")
                   for number in range(1, len(stages) + 1)), output]
        outputs = Outputs(*(("output", path) for path in paths))
        interrupt.check()
        with step_bar(interrupt) as on_step:
            runs = engine.chain(request, stages, on_step, check=interrupt.check)
    for run, path in zip(runs, paths, strict=False):
        written = run.status == "ok" and outputs.write(
            lambda run=run, path=path: [run_bytes(engine, run, path, truthful)], path)
        if written and not as_json:
            calls = "by a provider" if run.hosted else f"{run.nfe} function evaluations"
            print(f"{path}: {run.total_ms / 1000:.2f} s, {calls}, "
                  f"initial noise {run.noise_sha256[:12] if run.noise_sha256 else 'unknown'}")
    if as_json:
        records = [cell_record({}, run, engine.pictures) for run in runs]
        print_json({**records[-1], "stages": records} if stages else records[0])
    print_notes(*notes_of_runs(runs))
    outputs.finish()
    exit_for(runs[-1:])  # a stage that did not end well is the last
