"""`python -m pipelines study`: methods over many prompts, and what can be told apart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.claims import waiting_text
from pipelines.cli.cluster import Address
from pipelines.cli.options import make_request, refuse_beside, request_options
from pipelines.cli.output import (
    Interrupt,
    Json,
    Outputs,
    print_json,
    print_notes,
    print_table,
    progress,
)
from pipelines.cluster import cluster_of
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.measuring import CONVERGED
from pipelines.request import RunRequest
from pipelines.study.design import Study, logged_study, parse_methods
from pipelines.study.measures import DEFAULT, MEASURES
from pipelines.study.prompts import read_prompts
from pipelines.study.user_measures import register_all, register_setting

if TYPE_CHECKING:
    from pipelines.study.findings import Findings

HELD = {*RunRequest.model_fields, "methods", "axis", "skip", "prompts", "seeds", "reference",
        "measure", "stop_when_decided"}


@request_options
def study(
    context: typer.Context,
    fields: dict,
    *,
    prompt: Annotated[str | None, typer.Option(hidden=True)] = None,
    methods: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUES", help="What is compared, such as scheduler=ddim,dpmpp_2m,unipc; the "
        "notation of compare's --axis. Several make all combinations, 2 to 12.")] = None,
    axis: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUES", help="A further axis of the methods.")] = None,
    skip: Annotated[list[str] | None, typer.Option(
        metavar="RULE", help="Leave methods out, such as scheduler=heun,num_inference_steps>20.")]
    = None,
    prompts: Annotated[str, typer.Option(
        metavar="FILE|bundled:N", help="One prompt a line, or CSV with the columns prompt and "
        "category; or the first N of those that come with the program, for the bundled model from "
        "its grammar.")] = "bundled:60",
    seeds: Annotated[int, typer.Option(
        min=1, help="Pictures per prompt and method: as many seeds, from --seed on.")] = 2,
    reference: Annotated[str | None, typer.Option(
        metavar="converged|CELL", help="What distances are measured to: the converged picture, or "
        "a method such as scheduler=ddim.")] = CONVERGED,
    measure: Annotated[str, typer.Option(
        metavar="NAMES", help=f"Some of {', '.join(MEASURES)}; the first is what 'stop when "
        "decided' looks at. Or a function of your own, my_module:function, found from here: "
        "(picture, reference) -> float is a distance, (picture, prompt) -> float a score; pictures "
        "are PIL's. Errors are named per cell.")] = ",".join(DEFAULT),
    stop_when_decided: Annotated[bool, typer.Option(
        "--stop-when-decided", help="End as soon as all methods are told apart in the first "
        "measure; intervals are those that hold all the while.")] = False,
    resume: Annotated[str | None, typer.Option(
        metavar="ID", help="Go on with a study of the log, or show it again; its design stands.")]
    = None,
    dry_run: Annotated[bool, typer.Option(
        "--dry-run", help="Tell what it would cost and could show, and make nothing.")] = False,
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="FILE.html", help="The report: one page that needs no other "
        "file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Every pair of pictures, as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Every pair of pictures, as Parquet.")]
    = None,
    cluster: Address = None,
    as_json: Json = False,
) -> None:
    """Compare methods over many prompts, and say what can be told apart."""
    from pipelines.study.conduct import conduct
    from pipelines.study.report import pairs_csv, pairs_parquet, report

    if prompt is not None:
        raise RequestError("prompt: a study takes its prompts from --prompts FILE|bundled:N")
    measures = tuple(filter(None, measure.replace(" ", "").split(",")))
    register_setting()
    register_all(measures)
    with Interrupt() as interrupt:
        engine = Engine(cluster=cluster_of(cluster))
        if resume is not None:
            refuse_beside(context, "resume: takes the design from the log, give none", HELD)
            design = logged_study(engine.run_log, resume)
        else:
            base = make_request(engine, {**fields, "prompt": read_prompts(
                prompts, fields.get("model_id") or RunRequest().model_id)[0].text})
            design = Study(
                base.changed(prompt=""), parse_methods([*(methods or []), *(axis or [])], base),
                read_prompts(prompts, base.model_id), tuple(range(base.seed, base.seed + seeds)),
                reference or None, measures, tuple(skip or ()), stop_when_decided)
        for request in design.requests:
            engine.check(request)
        written = ((output, "output", lambda findings: report(engine, findings)),
                   (csv, "csv", pairs_csv), (parquet, "parquet", pairs_parquet))
        outputs = Outputs(*((name, path) for path, name, _ in written if path))
        tell_outlook(engine, design)
        if dry_run:
            return
        print(f"to go on if it is interrupted: python -m pipelines study --resume {design.id}",
              file=sys.stderr)
        cells = len(design.methods) * len(design.prompts) * len(design.seeds)
        with progress(cells, "cells") as bar:
            findings = conduct(engine, design, lambda _step: interrupt.check(),
                               lambda _run: bar.update(), interrupt.check,
                               lambda count: bar.set_postfix_str(waiting_text(count)))
    for path, _, make in written:
        if path:
            outputs.write(lambda make=make: [make(findings)], path)
    if as_json:
        print_json(findings.as_json())
    else:
        _print_findings(findings)
    print_notes(*findings.notes, *(engine.cluster.notes if engine.cluster else ()))
    if interrupt.seen:
        raise typer.Exit(130)
    outputs.finish()
    if findings.values.failed:
        raise typer.Exit(1)


def tell_outlook(engine: Engine, design: Study, kind: str = "study") -> None:
    """What a study would cost and could show, on standard error."""
    from pipelines.study.outlook import cost, outlook

    expected, in_log = cost(engine, design)
    seconds = "time not known yet" if expected.seconds is None \
        else f"about {expected.seconds:.0f} s"
    print(f"{kind} {design.id}: {expected.cells} pictures to make, references among them, "
          f"{in_log} in the log, {expected.nfe} evaluations, {seconds}", file=sys.stderr)
    for text in outlook(engine, design) if kind == "study" else ():
        print(text, file=sys.stderr)


def _print_findings(findings: Findings) -> None:
    from pipelines.study.report import leading

    for text in leading(findings):
        print(text)
    print_table(["a", "b", "measure", "difference", "low", "high", "n", "win rate", "p"],
                [[p.a, p.b, p.measure, f"{p.difference:.4g}", _number(p.low), _number(p.high),
                  p.n, f"{p.win_rate:.0%}", f"{p.p_adjusted:.2g}"] for p in findings.pairs])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
