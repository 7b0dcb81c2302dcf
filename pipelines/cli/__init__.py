"""The command line: the same engine and the same log as the dashboard.

One file per noun; `options` and `output` serve them all and import none. Here the commands are
only registered.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from pipelines.cli import compare, generate, hub, inpaint, models, runs
from pipelines.cli.output import complain
from pipelines.errors import Cancelled, PipelineError

UsageError = typer.BadParameter.__base__  # typer exports only its child

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
for command in (generate.generate, compare.compare, runs.runs, models.models, models.schedulers,
                inpaint.inpaint, inpaint.segment):
    app.command()(command)

hub_app = typer.Typer(help=hub.__doc__)
for command in (hub.search, hub.download, hub.cache):
    hub_app.command()(command)
app.add_typer(hub_app, name="hub")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input ends it with exit code 2 and one line."""
    try:
        arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        code = app(arguments, standalone_mode=False, prog_name="python -m pipelines")
    except (typer.Abort, KeyboardInterrupt, Cancelled):
        code = 130
    except UsageError as error:
        code = complain(error.format_message())
    except PipelineError as error:
        code = complain(str(error))
    sys.exit(code or 0)
