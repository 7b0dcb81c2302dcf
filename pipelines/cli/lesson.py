"""`python -m pipelines lesson`: a lesson as one page that runs offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import Outputs, progress
from pipelines.engine import Engine
from pipelines.errors import RequestError

NAMES = ("forward", "reverse", "solvers", "guidance", "flow")


def lesson(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")],
    output: Annotated[Path, typer.Option(
        "-o", "--output", metavar="FILE.html", help="Where to write the page.")],
) -> None:
    """Write a lesson as one HTML page that needs no network and no program: question, guess, what
    its slider shows, and the answer."""
    if name not in NAMES:
        raise RequestError(f"lesson: received {name!r}, accepted {', '.join(NAMES)}")
    outputs = Outputs(("output", output))
    from pipelines.lessons.page import FRAMES, lesson_page
    from pipelines.models.opening import warm_libraries

    warm_libraries()
    engine = Engine()
    with progress(FRAMES[name], "frames") as bar:
        page = lesson_page(engine.registry, name, bar.update)
    outputs.write(lambda: [page.encode()], output)
    outputs.finish()
