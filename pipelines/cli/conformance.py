"""`python -m pipelines conformance`: schedulers against an exact solution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.output import Json, Outputs, print_json, print_table, progress
from pipelines.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.laboratory.conformance import Outcome


def conformance(
    scheduler: Annotated[list[str] | None, typer.Option(
        metavar="KEY", help="A key of the catalogue or a class of diffusers; may be repeated. Left "
        "out, all.")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="FILE.md", help="Write the table as Markdown.")] = None,
    as_json: Json = False,
) -> None:
    """Hold every scheduler of diffusers against the exact solution of a mixture of Gaussians."""
    from pipelines.laboratory.conformance import cases, examine
    from pipelines.schedulers import scheduler_classes

    listed = cases(scheduler or ())
    reached = {name for case in listed for name in (case.key, case.class_name)}
    if unknown := sorted(set(scheduler or ()) - reached):
        raise RequestError(f"scheduler: received {', '.join(unknown)}, accepted a key of "
                           "`python -m pipelines schedulers` or one of "
                           f"{', '.join(scheduler_classes())}")
    files = [("output", output)] if output else []
    outputs, outcomes = Outputs(*files), []
    with progress(len(listed), "cases") as bar:
        for case in listed:
            outcomes.append(examine(case))
            bar.update()
    if output:
        outputs.write(lambda: [markdown(outcomes).encode()], output)
    if as_json:
        print_json([outcome.as_dict() for outcome in outcomes])
    elif not output:
        print_table(HEAD, [row(outcome) for outcome in outcomes])
    outputs.finish()


HEAD = ["scheduler", "error at 10", "20", "40", "100 steps", "order (nominal)",
        "strength 0.1", "0.5", "findings"]


def row(outcome: Outcome) -> list[str]:
    """A case as texts."""
    if outcome.refused:
        return [outcome.case.title, *[""] * (len(HEAD) - 2), f"not run: {outcome.refused}"]
    order = "stochastic" if outcome.stochastic else ""
    if outcome.order:
        order = f"{outcome.order[0]:.1f} ± {outcome.order[1]:.1f}"
    if outcome.nominal and not outcome.stochastic:
        order = f"{order} ({outcome.nominal})".strip()
    errors = [outcome.errors.get(steps) for steps in (10, 20, 40, 100)]
    from_middle = [outcome.middle.get(strength) for strength in (0.1, 0.5)]
    shown = ["" if error is None else f"{error:.4f}" for error in (*errors, *from_middle)]
    return [outcome.case.title, *shown[:4], order, *shown[4:], "; ".join(outcome.findings)]


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table, with what it was made with and how to read it."""
    import diffusers

    from pipelines.laboratory.history import since_table

    lines = [
        "# Schedulers against an exact solution",
        "",
        f"`python -m pipelines conformance`, diffusers {diffusers.__version__}. A mixture of three "
        "Gaussians in the plane takes the place of the network: its prediction is exact, and so is "
        "the end of the probability-flow ODE. Figures are root mean square distances to it, over "
        "100 points whose spread is about 1; a stochastic scheduler has no such end. 'strength' "
        "starts in the middle of 10 steps, as image-to-image does. Entries of the catalogue have "
        "their key, the other rows are diffusers' classes as they are.",
        "",
        "## Since when",
        "",
        "The first release of diffusers that had it, read from the history of its source; the old "
        "releases were not run.",
        "",
        *since_table(),
        "",
        "## Every case",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
    ]
    for outcome in outcomes:
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in row(outcome))} |")
    return "\n".join(lines) + "\n"
