"""Several processes on one data folder, kills, folders that go or cannot be written."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from test_run_log import a_run

from pipelines import Comparison, Engine, RunRequest
from pipelines.claims import Claims
from pipelines.errors import Cancelled, StorageError
from pipelines.grid import cell_identities
from pipelines.run_log import RunLog
from pipelines.strips import Strips

BASE = RunRequest(prompt="a red car on a road", num_inference_steps=2)
GRID = Comparison.parse(BASE, ["scheduler=ddim,euler", "seed=0..2"])

# Makes the grid; after the first cell it waits until it is told to go on.
MAKER = """
import sys
from pathlib import Path
from pipelines import Comparison, Engine, RunRequest
base = RunRequest(prompt="a red car on a road", num_inference_steps=2)
grid = Comparison.parse(base, ["scheduler=ddim,euler", "seed=0..2"])
def stop(number, run):
    if number == 0:
        print("one cell", flush=True)
        sys.stdin.readline()
Engine(Path(sys.argv[1]), device="cpu").compare(grid, on_cell=stop, comparison_id="theirs")
"""


@pytest.fixture
def maker(engine):
    """Another process that has made one of its six cells, and claimed the others."""
    with subprocess.Popen([sys.executable, "-c", MAKER, str(engine.home)], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "one cell\n"
        yield process
        process.kill()


def made(engine):
    """How many pictures were really made."""
    return engine.run_log.count(status="ok")


def test_cells_that_another_process_makes_are_waited_for(engine, maker):
    """The same comparison, resumed; the next test makes another one of the same cells."""
    waits = []

    def on_wait(cells):
        waits.append(cells)
        if len(waits) == 1:
            maker.stdin.write("go on\n")
            maker.stdin.flush()

    runs = engine.compare(GRID, comparison_id="theirs", shared=True, on_wait=on_wait,
                          on_step=lambda *_: pytest.fail("nothing is to be made here"))
    assert waits[0] == 5
    assert maker.wait(60) == 0
    assert made(engine) == 6
    assert [run.status for run in runs] == ["ok"] * 6
    assert all(run.comparison_id == "theirs" and run.steps_sha256 for run in runs)
    assert engine.run_log.count(comparison_id="theirs") == 6
    assert engine.run_log.comparison("theirs").status == "done"
    assert not os.listdir(engine.home / "locks") and not os.listdir(engine.home / "steps")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_cells_of_a_process_that_is_killed_are_made_by_the_one_that_waits(engine, maker):
    runs = engine.compare(GRID, shared=True,
                          on_wait=lambda _: os.kill(maker.pid, signal.SIGKILL))
    assert maker.wait(60) == -signal.SIGKILL
    assert made(engine) == 6
    assert [run.reused_from is None for run in runs] == [False, *[True] * 5]
    assert all(run.steps_sha256 for run in runs)
    assert not os.listdir(engine.home / "locks")


def test_threads_of_one_process_make_each_cell_once(engine):
    results = []
    threads = [threading.Thread(target=lambda: results.append(engine.compare(GRID, shared=True)))
               for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [[run.status for run in runs] for runs in results] == [["ok"] * 6] * 3
    assert made(engine) == 6


@pytest.fixture
def others(engine):
    """Somebody who works on every cell of the grid, and never gets on with it."""
    with Claims(engine.run_log) as claims:
        claims.take(cell_identities(engine, GRID.cells).values())
        yield claims


def test_cells_that_others_give_up_are_made_here(engine, others):
    runs = engine.compare(GRID, on_wait=lambda _: others.drop())
    assert [run.reused_from for run in runs] == [None] * 6


def test_own_cells_are_made_before_others_are_waited_for(engine, others):
    wider = Comparison.parse(BASE, ["scheduler=ddim,heun", "seed=0..2"])
    identities = cell_identities(engine, wider.cells).values()
    before_waiting = []

    def on_wait(cells):  # what is claimed here is given up first, so that nobody waits in a circle
        before_waiting.extend([cells, made(engine), others.can_take(identities)])
        others.drop()

    engine.compare(wider, on_wait=on_wait)
    assert before_waiting == [3, 3, True]


def test_a_wait_can_be_cancelled_and_fresh_waits_for_nobody(engine, others):
    def cancel():
        raise Cancelled("stopped by the user")

    assert engine.compare(GRID, comparison_id="c", check=cancel) == [None] * 6
    assert engine.run_log.comparison("c").status == "cancelled"
    runs = engine.compare(GRID, fresh=True, on_wait=lambda _: pytest.fail("fresh waits"))
    assert [run.reused_from for run in runs] == [None] * 6


@pytest.mark.parametrize("then", ["resumed", "reused"])
def test_steps_that_a_kill_left_undrawn_are_drawn_later(engine, monkeypatch, then):
    """Every cell is in the log and the process ends, as a kill would end it."""
    whole = [run.steps_sha256 for run in engine.compare(GRID, shared=True)]

    def end(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Strips, "draw", end)
        engine.compare(GRID, comparison_id="c", shared=True, fresh=True)
    logged = engine.run_log.runs(comparison_id="c", ascending=True)
    assert [run.steps_sha256 for run in logged] == [None] * 6
    assert len(os.listdir(engine.home / "steps")) == 6
    runs = engine.compare(GRID, comparison_id="c" if then == "resumed" else None)
    assert [run.source_id for run in runs] == sorted(run.id for run in logged)
    assert [run.steps_sha256 for run in runs] == whole
    assert {run.steps_sha256 for run in engine.run_log.runs(comparison_id="c")} == set(whole)
    assert not os.listdir(engine.home / "steps")


@pytest.mark.parametrize("put_back", [False, True])
def test_a_folder_that_is_removed_in_the_middle_is_an_error(engine, put_back):
    def remove(number, _run):
        if number == 1:
            shutil.rmtree(engine.home)
            if put_back:
                RunLog(engine.home)

    with pytest.raises(StorageError, match="removed or replaced while it was in use"):
        engine.compare(GRID, on_cell=remove)
    with pytest.raises(StorageError, match="removed or replaced"):
        engine.run_log.version()


READER = """
import sys
from pathlib import Path
from pipelines import Engine, RunRequest
from pipelines.errors import StorageError
from pipelines.sheet.cells import Results, runs_csv
try:
    engine = Engine(Path(sys.argv[1]), device="cpu")
    log = engine.run_log
    runs = log.runs()
    print(len(runs), log.count(), log.distinct("status"), len(list(runs_csv(runs))))
    print(len(log.comparisons()), log.version() == log.version())
    for work in (lambda: engine.run(RunRequest()), lambda: log.update(runs[0], error="x")):
        try:
            work()
        except StorageError as error:
            print(error)
except StorageError as error:
    print(error)
"""


def read_only(folder):
    """What a process prints that may read a folder and not write it, root or not."""
    folder.chmod(0o555)
    for path in folder.iterdir():
        path.chmod(0o444)

    def obey_permissions():
        ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE

    try:
        return subprocess.run([sys.executable, "-c", READER, str(folder)], text=True, check=True,
                              capture_output=True, preexec_fn=obey_permissions).stdout.splitlines()
    finally:
        folder.chmod(0o755)


@pytest.mark.skipif(sys.platform != "linux", reason="permissions as Linux has them")
@pytest.mark.parametrize("state", ["closed", "in use", "old"])
def test_a_folder_that_can_only_be_read_is_read(tmp_path, state):
    log = RunLog(tmp_path / "home")
    log.add(a_run())
    log.add(a_run(status="failed"))
    if state == "old":
        with log.database.session() as session:
            session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0009'")
            session.commit()
    if state == "in use":  # its newest rows are in the WAL, as a kill leaves it
        folder = shutil.copytree(log.path.parent, tmp_path / "copy")
        assert (folder / "runs.sqlite-wal").stat().st_size
    else:
        folder = log.path.parent
        log.database._engine.dispose()
    lines = read_only(folder)
    if state == "old":
        assert len(lines) == 1 and "older version" in lines[0] and "0009" in lines[0]
        return
    assert lines[:2] == ["2 2 ['failed', 'ok'] 3", "0 True"]
    assert len(lines) == 4 and all("can only be read" in line for line in lines[2:])
    assert Engine(folder).run_log.count() == 2
