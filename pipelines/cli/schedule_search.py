"""`python -m pipelines schedule-search`: the best schedule of N steps, and what it gains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import make_request, request_options
from pipelines.cli.output import Interrupt, Json, Outputs, print_json, print_table, progress
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.request import RunRequest
from pipelines.sigma_schedules import DEFAULT
from pipelines.study.design import Study, parse_methods
from pipelines.study.prompts import Prompt, parse_prompts, read_prompts

if TYPE_CHECKING:
    from pipelines.schedule_search import SearchResult
    from pipelines.study.findings import Findings

EXACT_PROMPTS = {"exact-2d": ("right", "top", "bottom"), "exact-latents": ("disc", "ring", "cross")}


@request_options
def schedule_search(
    context: typer.Context,
    fields: dict,
    *,
    prompt: Annotated[str | None, typer.Option(hidden=True)] = None,
    sigma_schedule: Annotated[str | None, typer.Option(hidden=True)] = None,
    prompts: Annotated[str | None, typer.Option(
        metavar="FILE|bundled:N", help="Prompts as `study` takes them; left out, bundled:44, for "
        "exact models the combinations of their words.")] = None,
    training: Annotated[int | None, typer.Option(
        min=1, help="How many of them, the first, the search looks at; the others are held out. "
        "Left out, 12, or a third of fewer than 36.")] = None,
    seeds: Annotated[int, typer.Option(
        min=1, help="Pictures per prompt: as many seeds, from --seed on.")] = 1,
    budget: Annotated[int, typer.Option(
        min=10, max=2000, help="About how many schedules are tried.")] = 80,
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="FILE.html", help="The report of the study on the held-out "
        "prompts.")] = None,
    as_json: Json = False,
) -> None:
    """Search the best schedule of --num-inference-steps steps, and judge it on other prompts."""
    from pipelines.schedule_search import Candidate, search
    from pipelines.study.conduct import conduct
    from pipelines.study.report import report

    if prompt is not None or sigma_schedule is not None:
        raise RequestError("schedule-search: takes prompts from --prompts FILE|bundled:N and finds "
                           "a sigma_schedule; accepted neither")
    with Interrupt() as interrupt:
        engine = Engine()
        model_id = fields.get("model_id") or RunRequest().model_id
        listed = _prompts(prompts, model_id)
        count = training or (12 if len(listed) >= 36 else max(1, len(listed) // 3))
        if count >= len(listed):
            raise RequestError(f"training: received {count} of {len(listed)} prompts, accepted up "
                               f"to {len(listed) - 1}: some are held out")
        base = make_request(engine, {**fields, "prompt": listed[0].text})
        base = base.changed(num_inference_steps=engine.check(base).num_inference_steps)
        numbers = tuple(range(base.seed, base.seed + seeds))
        outputs = Outputs(*([("output", output)] if output else []))
        with progress(budget, "schedules") as bar:

            def tried(_candidate: Candidate, best: Candidate) -> None:
                bar.update()
                bar.set_postfix_str(f"best {best.error:.4f}")

            result = search(engine, base, listed[:count], numbers, budget, tried, interrupt.check)
        usual = next((candidate.schedule for candidate in result.named
                      if candidate.schedule != DEFAULT), None)
        values = dict.fromkeys(filter(None, (DEFAULT, usual, result.best.schedule)))
        design = Study(base.changed(prompt=""),
                       parse_methods([f"sigma_schedule={','.join(values)}"], base), listed[count:],
                       numbers, measures=("rms_latents",))
        with progress(len(design.methods) * len(design.prompts) * seeds, "cells") as bar:
            findings = conduct(engine, design, lambda _step: interrupt.check(),
                               lambda _run: bar.update(), interrupt.check)
    if output:
        outputs.write(lambda: [report(engine, findings)], output)
    if as_json:
        print_json(_as_json(result, findings))
    else:
        _print(result, findings, count)
    if interrupt.seen:
        raise typer.Exit(130)
    outputs.finish()


def _prompts(source: str | None, model_id: str) -> tuple[Prompt, ...]:
    if source is not None:
        return read_prompts(source, model_id)
    names = EXACT_PROMPTS.get(model_id.split("@")[0])
    if names is None:
        return read_prompts("bundled:44", model_id)
    a, b, c = names
    return parse_prompts("\n".join([f"{a} or {b} or {c}", a, b, f"{b} or {c}", c, f"{a} or {b}",
                                    f"{a} or {c}"]), False)


def _as_json(result: SearchResult, findings: Findings) -> dict[str, Any]:
    return {"sigma_schedule": result.best.schedule, "training_error": result.best.error,
            "named": {candidate.schedule: candidate.error for candidate in result.named},
            "tried": result.tried, "held_out": findings.as_json()}


def _print(result: SearchResult, findings: Findings, count: int) -> None:
    print(f"sigma_schedule={result.best.schedule}")
    print(f"\n{result.tried} schedules on {count} training prompts, root mean square distance of "
          "the latents to the converged ones:")
    print_table(["schedule", "error"], [
        [candidate.schedule, f"{candidate.error:.4f}"]
        for candidate in (result.best, *result.named)])
    print(f"On {len(findings.study.prompts)} held-out prompts (study {findings.study.id}):")
    for pair in findings.pairs:
        print(pair.sentence)
    for note in findings.notes:
        print(note, file=sys.stderr)
