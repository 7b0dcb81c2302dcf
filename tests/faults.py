"""Kills, write errors and power cuts at random moments, and what is left of the work after them.

    python tests/faults.py --kills 100 --errors 20 --power-cuts 20

A comparison is made by the command line, and by the dashboard's queue beside a generation. Each
trial begins in an empty folder, in a process of its own that is killed with SIGKILL at a moment
drawn from the time that an unbroken one takes, or whose n-th write fails as on a full disk; another
process goes on. Processes are forked from one that has loaded the model.

A power cut is a kill after which all that was not flushed to the disk is taken away (synced.c notes
what was): the ends of files, and files whose new name was not flushed. What was written over inside
a file is left, so that half a page of the database, from which SQLite recovers, is not tried.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ |= {"OMP_NUM_THREADS": "1", "CONTACT_SHEET_THREADS": "1", "HF_HUB_OFFLINE": "1",
                   "CONTACT_SHEET_DEVICE": "cpu"}

import numpy as np
from PIL import Image
from sqlalchemy import event

import pipelines.engine
from pipelines import Comparison, Engine, RunRequest, cli
from pipelines.files import write_file
from pipelines.jobs import open_queue, submit_comparison, submit_generation
from pipelines.queue import Job
from pipelines.sheet.cells import Results
from pipelines.sheet.exports import sheet_pngs

AXES = ("scheduler=ddim,euler", "seed=0..3")
STEPS = 4
BASE = RunRequest(prompt="a red car on a road", num_inference_steps=STEPS)
BOAT, BOATS = "a blue boat", 3
ROUNDING = 2  # of 255: a batch of other cells rounds in another way
PATIENCE = 300.0  # seconds for one process
SYNCED = "SYNCED"  # the environment variable: where synced.c writes


@dataclass
class Figures:
    """What a series of trials came to; all but `trials` and `broken_off` should be 0."""

    trials: int = 0
    broken_off: int = 0  # those that the fault met before their end
    lost: int = 0  # pictures that were in the log before the fault, and not after
    twice: int = 0  # pictures of one identity that were made again
    unequal: int = 0  # final sheets that are not the unbroken one, beyond rounding
    largest: int = 0  # difference of a picture to the unbroken run's, of 255
    left_running: int = 0  # rows that say 'running' after all, or jobs that did not end well
    finished_before: list[int] = field(default_factory=list)  # cells at the fault

    def __str__(self) -> str:
        cells = self.finished_before or [0]
        return (f"{self.trials} trials, {self.broken_off} broken off (with {min(cells)} to "
                f"{max(cells)} pictures in the log): lost {self.lost}, made twice {self.twice}, "
                f"sheets not equal {self.unequal} (largest difference {self.largest} of 255), "
                f"not ended {self.left_running}")


class Harness:
    """Runs trials in `folder` on a registry whose model is loaded."""

    def __init__(self, folder: Path, registry, seed: int = 0) -> None:
        self.folder, self.registry = folder, registry
        self.random = random.Random(seed)
        self.count = 0
        self.unbroken: dict[str, tuple[float, dict[str, np.ndarray]]] = {}
        self.writes: dict[str, int] = {}

    # --- the work, in a process of its own

    def command_line(self, home: Path) -> None:
        """Make the comparison, or go on with the one of the log."""
        with contextlib.closing(sqlite3.connect(home / "runs.sqlite")) as log:
            ids = []
            with contextlib.suppress(sqlite3.OperationalError):  # no table yet
                ids = log.execute("SELECT id FROM comparisons").fetchall()
        what = (["--resume", ids[0][0]] if ids else
                [BASE.prompt, "--num-inference-steps", str(STEPS),
                 *(part for axis in AXES for part in ("--axis", axis))])
        os.environ["CONTACT_SHEET_HOME"] = str(home)
        pipelines.engine.Registry = lambda device: self.registry
        cli.main(["compare", *what, "-o", str(home / "sheet.png")])

    def queue(self, home: Path) -> None:
        """Put a comparison and a generation into the queue, or go on with what is there."""
        engine = Engine(home, device="cpu")
        engine.registry = self.registry
        queue = open_queue(engine, resume=True)
        jobs = queue.jobs()
        kinds = {job.kind for job in jobs}
        if "compare" not in kinds:
            jobs.append(submit_comparison(queue, Comparison.parse(BASE, AXES), browser="a"))
        if "generate" not in kinds:
            jobs.append(submit_generation(
                queue, [BASE.changed(prompt=BOAT, seed=seed) for seed in range(BOATS)],
                browser="b"))
        _wait(jobs)
        # Pictures that failed, as a row of the log says, are asked for again as a person would.
        row = engine.run_log.comparisons()[0]
        cells = Results.of_log(engine, row.id).runs
        again = []
        if any(run is None or run.status != "ok" for run in cells):
            again.append(submit_comparison(queue, Comparison.parse(BASE, AXES), resume=row.id))
        there = {run.seed for run in engine.run_log.runs(text=BOAT, status="ok")}
        if missing := [seed for seed in range(BOATS) if seed not in there]:
            again.append(submit_generation(
                queue, [BASE.changed(prompt=BOAT, seed=seed) for seed in missing]))
        _wait(again)
        (data,) = sheet_pngs(Results.of_log(engine, row.id))
        write_file(home / "sheet.png", data)

    # --- trials

    def kills(self, way: str, trials: int) -> Figures:
        """A SIGKILL at a random moment of each trial."""
        seconds, _ = self._unbroken(way)
        return self._series(way, trials, lambda home: self._process(
            way, home, kill_after=self.random.uniform(0.0, seconds)))

    def power_cuts(self, way: str, trials: int) -> Figures:
        """A SIGKILL, and the loss of what was not on the disk. Needs synced.c preloaded."""
        seconds, _ = self._unbroken(way)
        synced = Path(os.environ[SYNCED])

        def cut(home: Path) -> bool:
            synced.write_text("")
            whole = self._process(way, home, kill_after=self.random.uniform(0.0, seconds))
            with tempfile.TemporaryDirectory(dir=self.folder) as copy:  # reading changes the WAL
                before = _pictures(Path(shutil.copytree(home, copy, dirs_exist_ok=True)))
            _take_away(home, synced.read_text().splitlines(), self.random)
            gone.append(len(before - _pictures(home)))
            return whole

        gone: list[int] = []
        figures = self._series(way, trials, cut)
        figures.lost += sum(gone)
        return figures

    def write_errors(self, way: str, trials: int) -> Figures:
        """One write that fails in each trial, spread over all that there are."""
        self._unbroken(way)
        count = self.writes[way]
        places = sorted(self.random.sample(range(1, count + 1), min(trials, count)))
        return self._series(way, len(places), lambda home: self._process(
            way, home, fail_at=places.pop(0)))

    def _series(self, way: str, trials: int, fault: Callable[[Path], bool]) -> Figures:
        figures = Figures()
        for _ in range(trials):
            home = self._home()
            whole = fault(home)
            figures.trials += 1
            before = _pictures(home)
            if not whole:
                figures.broken_off += 1
                figures.finished_before.append(len(before))
                if not self._process(way, home):
                    figures.left_running += 1
            after = _pictures(home)
            figures.lost += len(before - after)
            identities = [identity for _, identity, _ in after]
            figures.twice += len(identities) - len(set(identities))
            difference = _difference(_sheet(home), self._unbroken(way)[1])
            figures.largest = max(figures.largest, difference)
            figures.unequal += difference > ROUNDING
            figures.left_running += _running(home)
            shutil.rmtree(home)
        return figures

    def _unbroken(self, way: str) -> tuple[float, dict[str, np.ndarray]]:
        """How long it takes, and the sheet."""
        if way not in self.unbroken:
            home = self._home()
            begin = time.monotonic()
            assert self._process(way, home, fail_at=0), "the unbroken run failed"
            self.unbroken[way] = time.monotonic() - begin, _sheet(home)
            self.writes[way] = int((home / "writes").read_text())
        return self.unbroken[way]

    def _home(self) -> Path:
        self.count += 1
        home = self.folder / str(self.count)
        home.mkdir()
        return home

    def _process(
        self, way: str, home: Path, kill_after: float | None = None, fail_at: int | None = None
    ) -> bool:
        """Work in a process; whether it came to a good end."""
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                with open(home / "log.txt", "a") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                with _failing_write(fail_at, home):
                    getattr(self, way)(home)
                code = 0
            except SystemExit as ended:
                code = int(bool(ended.code))
                print(ended.code, file=sys.stderr, flush=True)
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        begin, killed = time.monotonic(), False
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status == 0
            passed = time.monotonic() - begin
            if not killed and passed > (PATIENCE if kill_after is None else kill_after):
                os.kill(pid, signal.SIGKILL)
                killed = True
            time.sleep(0.002)


@contextlib.contextmanager
def _failing_write(fail_at: int | None, home: Path) -> Iterator[None]:
    """Let the n-th write of a file or of the log fail, none for 0, which counts them."""
    if fail_at is None:
        yield
        return
    count, replace = 0, os.replace

    def write(disk_full: Callable[[], Exception]) -> None:
        nonlocal count
        count += 1
        if count == fail_at:
            raise disk_full()

    def failing_replace(*args, **kwargs):
        write(lambda: OSError(errno.ENOSPC, "No space left on device"))
        return replace(*args, **kwargs)

    def failing_statement(_connection, _cursor, statement, *_):
        if statement.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE"):
            write(lambda: sqlite3.OperationalError("database or disk is full"))

    from sqlalchemy import Engine as SqlEngine
    os.replace = failing_replace
    event.listen(SqlEngine, "before_cursor_execute", failing_statement)
    try:
        yield
    finally:
        if not fail_at:
            (home / "writes").write_text(str(count))


def _take_away(home: Path, notes: Sequence[str], rng: random.Random) -> None:
    """Take from each file what was not flushed, all of it or a part, and the files whose new name
    was not; the index of the log's WAL, too, which is memory."""
    sizes: dict[int, int] = {}
    unnamed: dict[int, int] = {}  # inode of a renamed file -> its folder, until that is flushed
    for note in notes:
        what, first, second = note.split()
        if what == "sync":
            sizes[int(first)] = int(second)
            unnamed = {file: folder for file, folder in unnamed.items() if folder != int(first)}
        else:
            unnamed[int(first)] = int(second)
    for path in [path for path in home.rglob("*") if path.is_file()]:
        state = path.stat()
        if path.name.endswith("-shm") or state.st_ino in unnamed:
            path.unlink()
        elif path.name != "log.txt" and state.st_size > (kept := sizes.get(state.st_ino, 0)):
            os.truncate(path, rng.choice([kept, rng.randint(kept, state.st_size)]))


def preload() -> None:
    """Begin this program anew with synced.c before the C library; returns where it is there."""
    if os.environ.get(SYNCED):
        return
    folder = tempfile.mkdtemp()
    library = f"{folder}/synced.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library,
                    str(Path(__file__).with_name("synced.c")), "-ldl"], check=True)
    os.environ |= {"LD_PRELOAD": library, SYNCED: f"{folder}/notes"}
    os.execv(sys.executable, [sys.executable, *sys.argv])


def _pictures(home: Path) -> set[tuple[int, str, str]]:
    """Id, identity and picture of the runs that were really made and whose picture is whole."""
    if not (home / "runs.sqlite").exists():
        return set()
    with contextlib.closing(sqlite3.connect(home / "runs.sqlite")) as log:
        try:
            rows = log.execute("SELECT id, identity, image_sha256 FROM runs WHERE status = 'ok' "
                               "AND reused_from IS NULL").fetchall()
        except sqlite3.OperationalError:  # no table yet
            return set()
    return {row for row in rows if (home / "pictures" / row[2][:2] / f"{row[2]}.png").exists()}


def _running(home: Path) -> int:
    with contextlib.closing(sqlite3.connect(home / "runs.sqlite")) as log:
        return sum(log.execute(f"SELECT count(*) FROM {table} WHERE status != 'done'").fetchone()[0]
                   for table in ("jobs", "comparisons"))


def _sheet(home: Path) -> dict[str, np.ndarray]:
    """The pictures of the sheet's cells; none where there is no sheet, or a cell has neither its
    strip of steps nor a note of why not."""
    try:
        with Image.open(home / "sheet.png") as image:
            image.load()
    except OSError:
        return {}
    with contextlib.closing(sqlite3.connect(home / "runs.sqlite")) as log:
        cells = log.execute(
            "SELECT axes, image_sha256 FROM runs WHERE status = 'ok' AND comparison_id IS NOT NULL "
            "AND (steps_sha256 IS NOT NULL OR notes LIKE '%steps%')").fetchall()
    pictures = {}
    for axes, sha256 in cells:
        with Image.open(home / "pictures" / sha256[:2] / f"{sha256}.png") as image:
            pictures[axes] = np.asarray(image.convert("RGB"), int)
    return pictures


def _difference(sheet: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> int:
    """The largest one of two sheets' pictures, of 255; 255 where they have not the same cells."""
    if not sheet or sheet.keys() != other.keys():
        return 255
    return max(int(np.abs(sheet[axes] - other[axes]).max()) for axes in sheet)


def _wait(jobs: Sequence[Job]) -> None:
    for job in jobs:
        assert job.wait(PATIENCE), job.status
    if problems := [job.error for job in jobs if job.status != "done"]:
        sys.exit(str(problems))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="of each way")
    parser.add_argument("--errors", type=int, default=20, help="of each way; failing writes")
    parser.add_argument("--power-cuts", type=int, default=0, help="of each way; needs cc")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    if given.power_cuts:
        preload()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        engine = Engine(folder / "warm", device="cpu")
        assert engine.run(BASE).status == "ok"
        harness = Harness(folder, engine.registry, given.seed)
        for way in ("command_line", "queue"):
            begin = time.monotonic()
            print(f"{way}, SIGKILL: {harness.kills(way, given.kills)}", flush=True)
            print(f"{way}, failing write of {harness.writes[way]}: "
                  f"{harness.write_errors(way, given.errors)}", flush=True)
            if given.power_cuts:
                print(f"{way}, power cut: {harness.power_cuts(way, given.power_cuts)}", flush=True)
            print(f"{way}: {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
