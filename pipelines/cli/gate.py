"""`python -m pipelines gate`: whether a faster way to make pictures is free."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.claims import waiting_text
from pipelines.cli.options import make_request, refuse_beside, request_options
from pipelines.cli.output import Interrupt, Json, Outputs, print_json, print_notes, progress
from pipelines.cli.study import tell_outlook
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.gate.design import REFERENCES, Gate, gate_of, make_gate
from pipelines.gate.margins import HELP, parse_margins
from pipelines.measuring import CONVERGED
from pipelines.request import RunRequest, exists
from pipelines.study.design import logged_study
from pipelines.study.prompts import read_prompts

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.gate.verdict import Verdict

    Page = Callable[[], bytes]

DESIGN = {*RunRequest.model_fields, "candidate", "baseline", "prompts", "seeds", "reference",
          "timings"}
NOT_RECORDED = {*RunRequest.model_fields, "prompts", "seeds", "reference", "timings", "resume"}


@request_options
def gate(
    context: typer.Context,
    fields: dict,
    *,
    prompt: Annotated[str | None, typer.Option(hidden=True)] = None,
    candidate: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE", help="What is to be judged, such as torch_dtype=bfloat16, "
        "cache=pyramid_attention_broadcast or num_inference_steps=10; the notation of study's "
        "--methods, with one value. Repeated for several settings of one candidate.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE|FILE", help="What it is judged against, where that is more than the "
        "other options say; the candidate takes it over. Or a recipe, picture or exported page "
        "that was made before, as with another version of a library: its pictures are made again "
        "and compared with those that it holds, or that are in the log.")] = None,
    prompts: Annotated[str, typer.Option(
        metavar="FILE|bundled:N", help="As of study. Below 8 prompts nothing is decided.")]
    = "bundled:60",
    seeds: Annotated[int, typer.Option(
        min=1, help="Pictures per prompt and method: as many seeds, from --seed on.")] = 1,
    reference: Annotated[str, typer.Option(
        metavar="|".join(REFERENCES), help="What distances are measured to. converged: the exact "
        "solution of the baseline, and the difference between candidate and baseline is judged: is "
        "quality lost? baseline: the baseline's own picture: do pictures change?")] = CONVERGED,
    margin: Annotated[str | None, typer.Option(
        metavar="NAME[=NUMBER],...", help="How much worse still counts as equal, of the mean "
        f"difference. Defaults, and what they rest on: {HELP}. Left out: psnr and flip (flip and "
        "ssim with --reference baseline), judge for the bundled models, clip_score where a CLIP is "
        "here.")] = None,
    timings: Annotated[bool, typer.Option(
        help="Whether each prompt's first seed is timed, baseline and candidate in turns.")] = True,
    resume: Annotated[str | None, typer.Option(
        metavar="ID", help="Go on with a gate of the log, or show it again; its design stands, "
        "margins may be others.")] = None,
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="FILE.html", help="The report: one page that needs no other "
        "file.")] = None,
    as_json: Json = False,
) -> None:
    """Judge whether a speed-up is free: equal within margins, and how much faster.

    The exit code is 0 where all criteria are equal within their margins (or better), 1 where one is
    worse or a picture failed, 2 for bad input, 3 where so few prompts do not decide it, 130 after
    Ctrl-C.
    """
    if prompt is not None:
        raise RequestError("prompt: a gate takes its prompts from --prompts FILE|bundled:N")
    margins = None if margin is None else parse_margins(margin)
    files = [text for text in baseline or () if exists(text) and Path(text).is_file()]
    outputs = Outputs(*([("output", output)] if output else []))
    with Interrupt() as interrupt:
        engine = Engine()
        if files:
            refuse_beside(context, "baseline: a file says what was made, give no more than "
                          "--candidate and --margin", NOT_RECORDED)
            if len(baseline or ()) > 1:
                raise RequestError(f"baseline: received {', '.join(baseline or ())}, accepted one "
                                   "file")
            verdict, page, failed = _against_file(
                engine, Path(files[0]), candidate or [], margins, interrupt)
        else:
            if resume is not None:
                refuse_beside(context, "resume: takes the design from the log, give none", DESIGN)
                design = gate_of(logged_study(engine.run_log, resume), margins)
            else:
                if reference not in REFERENCES:
                    raise RequestError(f"reference: received {reference!r}, accepted "
                                       f"{', '.join(REFERENCES)}")
                asked = read_prompts(prompts, fields.get("model_id") or RunRequest().model_id)
                base = make_request(engine, {**fields, "prompt": asked[0].text})
                design = make_gate(
                    engine, base, baseline or [], candidate or [],
                    read_prompts(prompts, base.model_id),
                    range(base.seed, base.seed + seeds), reference, margins, timings)
            verdict, page, failed = _conduct(engine, design, interrupt)
    if output:
        outputs.write(lambda: [page()], output)
    if as_json:
        print_json(verdict.as_json())
    else:
        print(verdict.sentence)
        for criterion in verdict.criteria:
            print(f"  {criterion.sentence}")
    print_notes(*verdict.notes)
    if interrupt.seen:
        raise typer.Exit(130)
    outputs.finish()
    raise typer.Exit(1 if failed else verdict.exit_code)


def _conduct(engine: Engine, design: Gate, interrupt: Interrupt) -> tuple[Verdict, Page, bool]:
    from pipelines.gate.conduct import conduct
    from pipelines.gate.report import report

    tell_outlook(engine, design.study, "gate")
    print(f"to go on if it is interrupted: python -m pipelines gate --resume {design.study.id}",
          file=sys.stderr)
    cells = 2 * len(design.study.prompts) * len(design.study.seeds)
    with progress(cells, "cells") as bar:
        verdict, findings = conduct(
            engine, design, lambda _step: interrupt.check(), lambda _run: bar.update(),
            interrupt.check, lambda count: bar.set_postfix_str(waiting_text(count)))
    return verdict, lambda: report(engine, verdict, findings), findings.values.failed > 0


def _against_file(
    engine: Engine, file: Path, candidate: list[str], margins: dict[str, float] | None,
    interrupt: Interrupt,
) -> tuple[Verdict, Page, bool]:
    from pipelines.gate.recorded import Recording, conduct
    from pipelines.gate.report import report

    recording = Recording(engine, file, candidate)
    judged = recording.margins(margins)
    cells = [cell for cell in recording.comparison.cells if not cell.left_out]
    with progress(len(cells), "cells") as bar:
        verdict, failed = conduct(engine, recording, judged, lambda _step: interrupt.check(),
                                  lambda _run: bar.update(), interrupt.check)
    design = [f"Baseline: the pictures of {file.name}",
              f"Candidate: {recording.names[1]}, {len(cells)} pictures"]
    return verdict, lambda: report(engine, verdict, None, design, recording.recipe), failed > 0
