"""The command line: the same engine and the same log as the dashboard.

One file per noun; `options` and `output` serve them all and import none. Here the commands are
only registered.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from pipelines.cli import (
    beside,
    cluster,
    compare,
    conformance,
    data,
    exchange,
    gate,
    generate,
    hub,
    inpaint,
    jobs,
    lesson,
    measure_set,
    models,
    reproduce,
    runs,
    schedule_search,
    study,
    votes,
)
from pipelines.cli.output import complain
from pipelines.error_log import one_line
from pipelines.errors import (
    Cancelled,
    ClusterError,
    PipelineError,
    RequestError,
    StorageError,
)

UsageError = typer.BadParameter.__base__  # typer exports only its child

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
for command in (generate.generate, inpaint.inpaint, inpaint.segment, compare.compare,
                beside.beside, study.study, gate.gate, measure_set.measure_set,
                reproduce.reproduce, runs.runs, jobs.jobs, exchange.export, data.doctor,
                data.backup, data.restore, models.models, models.schedulers,
                conformance.conformance, schedule_search.schedule_search, lesson.lesson):
    app.command()(command)
app.command("import")(exchange.import_)

hub_app = typer.Typer(help=hub.__doc__)
for command in (hub.search, hub.download, hub.cache):
    hub_app.command()(command)
app.add_typer(hub_app, name="hub")
cluster_app = typer.Typer(help=cluster.__doc__)
for command in (cluster.start, cluster.status, cluster.stop):
    cluster_app.command()(command)
app.add_typer(cluster_app, name="cluster")

votes_app = typer.Typer(help=votes.__doc__)
for name, command in (("list", votes.list_votes), ("new", votes.new), ("reveal", votes.reveal),
                      ("results", votes.results)):
    votes_app.command(name)(command)
app.add_typer(votes_app, name="votes")


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m pipelines`: the help where nothing is asked for."""
    run(app, list(sys.argv[1:] if arguments is None else arguments) or ["--help"],
        "python -m pipelines")


def run(app: typer.Typer, arguments: Sequence[str], program: str) -> NoReturn:
    """Run a command line and end. Bad input ends it with exit code 2 and one line, a log, a store
    or a cluster that cannot be used with 1; so does what nobody foresaw, with the place of its
    traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        _check_text(arguments)
        code = app(arguments, standalone_mode=False, prog_name=program)
        if sys.stdout:  # None where it was closed
            sys.stdout.flush()
    except (typer.Abort, KeyboardInterrupt, Cancelled):
        code = 130
    except UsageError as error:
        code = complain(error.format_message())
    except (ClusterError, StorageError) as error:
        complain(str(error))
        code = 1
    except PipelineError as error:
        code = complain(str(error))
    except BrokenPipeError:  # whoever reads, such as `head`, has what they want
        code = 1
    except Exception as error:
        complain(one_line(error))
        code = 1
    sys.exit(code or 0)


def _check_text(arguments: Sequence[str]) -> None:
    """Raise RequestError where an argument is no text: neither the log nor a recipe can hold it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise RequestError(f"received {argument!r}, accepted text in UTF-8; a file of such a "
                               "name must be renamed first") from None
