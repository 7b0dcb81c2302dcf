"""What every command says and how it ends: JSON, tables, progress, Ctrl-C, files, exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from pipelines.error_log import one_line
from pipelines.errors import Cancelled, RequestError, StorageError
from pipelines.files import temporary_name, write_file
from pipelines.provenance.encode import SUFFIXES
from pipelines.sheet.exports import run_file

if TYPE_CHECKING:
    from pipelines.engine import Engine
    from pipelines.log_tables import Run
    from pipelines.painting.result import OnStep, Step

Json = Annotated[bool, typer.Option("--json", help="JSON and nothing else on standard output.")]

Output = Annotated[Path, typer.Option(
    "-o", "--output", help=f"Picture to write, as the name ends: {', '.join(SUFFIXES)}.")]


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_list(values: Iterable[Any]) -> None:
    """As print_json prints a list of them, each when it comes."""
    sign = "["
    for value in values:
        print(sign, textwrap.indent(json.dumps(value, indent=2, ensure_ascii=False), "  "),
              sep="\n", end="")
        sign = ","
    print("[]" if sign == "[" else "\n]")


def print_table(head: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False,
            highlight=False).print(table)


def progress(total: int | None, unit: str) -> tqdm:
    """A progress bar on standard error."""
    return tqdm(total=total, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True)


class Interrupt:
    """Turns Ctrl-C and SIGTERM into a cancel at the next check; a second one ends the process at
    once.

    Python's handlers have to wait while a network's layer is computed, so the second signal is
    heard by a thread: the interpreter writes each signal's number to a socket as it comes.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self) -> Interrupt:
        self.seen = False
        self._hearing, self._telling = socket.socketpair()
        self._telling.setblocking(False)
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        self._told_before = signal.set_wakeup_fd(self._telling.fileno())
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._told_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._telling.close()
        self._listener.join()
        self._hearing.close()

    def _note(self, *_: object) -> None:
        self.seen = True

    def _listen(self) -> None:
        """End with the second signal, without waiting for what is computed; what was logged is
        whole."""
        count = 0
        while numbers := self._hearing.recv(16):
            for number in filter(self.SIGNALS.__contains__, numbers):
                self.seen, count = True, count + 1
                if count > 1:
                    os._exit(128 + number)
                tqdm.write("stopping; a second time ends at once", file=sys.stderr)

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


class Outputs:
    """The files of a command: all tried before the work, each written for itself after it."""

    def __init__(self, *files: tuple[str, Path]) -> None:
        """Try to write each (the option that names it, its path) and leave all as it was; raises
        RequestError where one cannot be written, or two are one file."""
        self._failed = False
        options: dict[tuple[int, int], str] = {}
        with contextlib.ExitStack() as undo:
            for option, path in files:
                try:
                    place = undo.enter_context(_tried(path))
                except (OSError, ValueError) as error:
                    raise RequestError(f"{option}: {path} cannot be written: "
                                       f"{_reason(path, error)}") from error
                if place in options:
                    raise RequestError(f"{option}: {path} is the file of {options[place]} too; "
                                       "each output needs a file of its own")
                options[place] = option

    def write(self, contents: Callable[[], Sequence[bytes]], *paths: Path) -> bool:
        """Make the contents of some files and write them; whether that went well. What fails is
        told on standard error."""
        try:
            made = contents()
        except Exception as error:  # whatever it is, the other files are still to be written
            return self._failed_with(f"{', '.join(map(str, paths))} could not be made: "
                                     f"{one_line(error)}")
        written = True
        for path, data in zip(paths, made, strict=True):
            try:
                write(path, data)
            except StorageError as error:
                written = self._failed_with(str(error))
        return written

    def finish(self) -> None:
        """End with exit code 2 where a file could not be written."""
        if self._failed:
            raise typer.Exit(2)

    def _failed_with(self, message: str) -> bool:
        self._failed = True
        complain(message)
        return False


def run_bytes(engine: Engine, run: Run, path: Path, truthful: bool) -> bytes:
    """A run's picture as a file of the format that a path names; what that format cannot hold is
    told on standard error."""
    data, notes = run_file(engine, run, path.suffix, truthful)
    print_notes(*(f"{path}: {note}" for note in notes))
    return data


def check_png(path: Path) -> None:
    """Raise RequestError where the name of a picture does not end in .png."""
    if path.suffix.lower() != ".png":
        raise RequestError(f"output: received {path}, accepted a name that ends in .png")


def write(path: Path, data: bytes) -> None:
    """Write a file; what was there stays until the new one is whole. Raises StorageError."""
    try:
        target = Path(os.path.realpath(path))  # a link stays a link
        if target.exists() and not target.is_file():  # a pipe or a device
            target.write_bytes(data)
            return
        if not target.parent.is_dir():
            raise FileNotFoundError
        write_file(target, data)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be written: {_reason(path, error)}") from error


@contextlib.contextmanager
def _tried(path: Path) -> Iterator[tuple[int, int]]:
    """What tells a file from all others, once it is certain that it can be written; a file that was
    not there is there until the end of the context."""
    target = Path(os.path.realpath(path))
    new = not target.exists()
    if new:
        target.open("xb").close()
    elif target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder, and a file name is needed")
    elif target.is_file():  # else a pipe or a device, which is opened once
        if not target.stat().st_mode & 0o222:  # root may write to it, and is not meant to
            raise PermissionError(errno.EACCES, "it is write-protected")
        target.open("ab").close()
        temporary = temporary_name(target)
        temporary.open("xb").close()
        temporary.unlink()
    try:
        file = target.stat()
        yield file.st_dev, file.st_ino
    finally:
        if new:
            target.unlink()


def _reason(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no folder {path.parent}"
    return getattr(error, "strerror", None) or str(error)


def complain(message: str) -> int:
    """Print bad input as one line, or with the lines that mark the place of a mistake; the exit
    code 2."""
    lines = message.splitlines()
    if not any(line.strip() and not line.strip().strip("^") for line in lines[1:]):
        lines = [" ".join(message.split())]
    print("\n  ".join([f"error: {lines[0]}", *lines[1:]]), file=sys.stderr)
    return 2


def print_notes(*notes: str) -> None:
    """Print what a user should know beside the result, on standard error."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def exit_for(runs: Sequence[Run | None]) -> None:
    """End with the exit code of these runs: 130 where the user stopped one, 1 where one failed."""
    if any(run is None or run.status == "cancelled" for run in runs):
        raise typer.Exit(130)
    failed = [run for run in runs if run.status == "failed"]
    if failed:
        if len(runs) == 1:
            complain(failed[0].error or "the run failed")
        raise typer.Exit(1)
