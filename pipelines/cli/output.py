"""What every command says and how it ends: JSON, tables, progress, Ctrl-C, files, exit codes."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from pipelines.errors import Cancelled, RequestError, StorageError

if TYPE_CHECKING:
    from pipelines.painting.result import OnStep, Step
    from pipelines.run_log import Run

Json = Annotated[bool, typer.Option("--json", help="JSON and nothing else on standard output.")]


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(head: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False,
            highlight=False).print(table)


def progress(total: int, unit: str) -> tqdm:
    """A progress bar on standard error."""
    return tqdm(total=total, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True)


class Interrupt:
    """Turns Ctrl-C and SIGTERM into a cancel between two steps; a second one ends the process."""

    def __enter__(self) -> Interrupt:
        self.seen = False
        self._before = {number: signal.signal(number, self._note)
                        for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def check(self) -> None:
        """Raise Cancelled where the user wants to stop."""
        if self.seen:
            raise Cancelled("stopped by the user")


@contextlib.contextmanager
def step_bar(interrupt: Interrupt) -> Iterator[OnStep]:
    """A callback that shows each step in a progress bar, and raises Cancelled after Ctrl-C."""
    with progress(1, "steps") as bar:

        def on_step(step: Step) -> None:
            interrupt.check()
            if step.index == 1:
                bar.reset(step.total)
            bar.update()

        yield on_step


def check_writable(path: Path, *suffixes: str) -> None:
    """Say so before the work, not after it."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise RequestError(f"output: received {path}, accepted a name that ends in "
                           f"{' or '.join(suffixes)}")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise RequestError(f"output: {path} cannot be written: {error}") from error
    if path.is_dir():
        raise RequestError(f"output: {path} is a folder; a file name is needed")


def write(path: Path, data: bytes) -> None:
    """Write a file; raises StorageError."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


def complain(message: str) -> int:
    """Print bad input as one line, or with the lines that mark the place of a mistake; the exit
    code 2."""
    lines = message.splitlines()
    if not any(line.strip().strip("^") == "" for line in lines[1:]):
        lines = [" ".join(message.split())]
    print("\n  ".join([f"error: {lines[0]}", *lines[1:]]), file=sys.stderr)
    return 2


def exit_for(runs: Sequence[Run | None]) -> None:
    """End with the exit code of these runs: 130 where the user stopped one, 1 where one failed."""
    if any(run is None or run.status == "cancelled" for run in runs):
        raise typer.Exit(130)
    failed = [run for run in runs if run.status == "failed"]
    if failed:
        if len(runs) == 1:
            print(f"error: {failed[0].error}", file=sys.stderr)
        raise typer.Exit(1)
