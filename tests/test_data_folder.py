"""Doctor, backup and restore, and a database that cannot be used."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile

import pytest
from PIL import Image
from test_run_log import a_run

from pipelines import Comparison, Engine, RunRequest, backup, doctor
from pipelines.backup import back_up, restore
from pipelines.doctor import examine
from pipelines.errors import RequestError, StorageError
from pipelines.run_log import RunLog

OLD = 1_000_000_000  # seconds, of a file that nobody is writing


@pytest.fixture(scope="module")
def whole(session_engine, tmp_path_factory):
    """A data folder with a comparison of two cells."""
    engine = Engine(tmp_path_factory.mktemp("whole") / "home", device="cpu")
    engine.registry = session_engine.registry
    engine.compare(Comparison.parse(RunRequest(prompt="a car", num_inference_steps=2),
                                    ["seed=0,1"]), comparison_id="abc")
    engine.run_log.database._engine.dispose()
    return engine.home


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "home")


def old(path):
    os.utime(path, (OLD, OLD))
    return path


def pictures(folder):
    return sorted((folder / "pictures").rglob("*.png"))


def test_a_whole_folder_is_well(folder, run):
    assert examine(folder) == []
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert json.loads(out) == {"home": str(folder), "ok": True, "findings": []}


def test_what_is_wrong_is_told_and_mended_without_a_loss(folder, run):
    log = RunLog(folder)
    runs = log.runs()
    store = Engine(folder, device="cpu").pictures
    cut = old(store.path(runs[0].image_sha256))
    cut.write_bytes(cut.read_bytes()[:50])
    os.utime(cut, (OLD, OLD))
    store.path(runs[1].image_sha256).unlink()
    unnamed = old(store.path(store.put(Image.new("RGB", (9, 9), "red"))))
    young = store.path(store.put(Image.new("RGB", (9, 9), "blue")))
    left = old(shutil.copy(unnamed, folder / "pictures" / "x.tmp"))
    in_work = shutil.copy(young, folder / "pictures" / "y.tmp")
    os.utime(in_work)
    with sqlite3.connect(log.path) as database:
        database.execute("INSERT INTO prompts(prompts) VALUES ('delete-all')")
        database.execute("UPDATE runs SET nfe = 'many' WHERE id = 1")
    assert not log.page(where="car").runs

    code, out, _ = run("doctor", "--json")
    findings = json.loads(out)["findings"]
    assert code == 1 and not any(finding["mended"] for finding in findings)
    assert sorted(finding["kind"] for finding in findings) == [
        "damaged", "index", "missing", "row", "temporary", "unnamed"]
    assert cut.exists() and unnamed.exists() and os.path.exists(left)

    code, out, _ = run("doctor", "--mend")
    assert code == 1 and "2 to look at" in out
    assert (folder / "set-aside" / unnamed.relative_to(folder)).exists()
    assert (folder / "set-aside" / cut.relative_to(folder)).stat().st_size == 50
    assert young.exists() and os.path.exists(in_work) and not os.path.exists(left)
    assert log.count() == 2 and len(RunLog(folder).page(where="car").runs) == 2
    assert {f.kind for f in examine(folder)} == {"row", "missing"}


def test_a_damaged_database_is_found(folder):
    data = bytearray((folder / "runs.sqlite").read_bytes())
    for start in range(len(data) // 2, len(data) - 600, 4096):
        data[start : start + 600] = b"\xff" * 600
    (folder / "runs.sqlite").write_bytes(data)
    try:
        kinds = {finding.kind for finding in examine(folder)}
    except StorageError as error:
        assert "runs.sqlite" in str(error)
    else:
        assert "database" in kinds


def test_a_backup_comes_back_whole(folder, run, tmp_path, monkeypatch):
    target = tmp_path / "all.zip"
    log = RunLog(folder)
    log.add(a_run(prompt="only in the write-ahead log"))
    code, out, _ = run("backup", str(target), "--json")
    assert code == 0 and json.loads(out)["runs"] == 3
    assert run("backup", str(target))[0] == 2  # it exists
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    before = {path.name: path.read_bytes() for path in pictures(folder)}
    prompts = [made.prompt for made in log.stream()]

    code, _, error = run("restore", str(target))
    assert code == 2 and "--overwrite" in error
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "new"))
    assert run("restore", str(target))[0] == 0
    assert [made.prompt for made in RunLog(tmp_path / "new").stream()] == prompts
    assert {path.name: path.read_bytes() for path in pictures(tmp_path / "new")} == before
    assert examine(tmp_path / "new")[0].kind == "row"  # the made-up run has no picture

    monkeypatch.setenv("CONTACT_SHEET_HOME", str(folder))
    log.add(a_run(prompt="after the backup"))
    assert run("restore", str(target), "--overwrite")[0] == 0
    assert [made.prompt for made in RunLog(folder).stream()] == prompts
    (kept,) = (folder / "set-aside").iterdir()
    assert "after the backup" in [made.prompt for made in RunLog(kept).stream()]
    with pytest.raises(StorageError, match="removed or replaced"):
        log.add(a_run())


@pytest.mark.parametrize("damage", ["no zip", "cut", "another zip", "outside", "wrong bytes",
                                    "newer schema", "newer format", "damaged database"])
def test_a_backup_that_cannot_be_used_changes_nothing(folder, tmp_path, damage):
    good, bad = tmp_path / "good.zip", tmp_path / "bad.zip"
    back_up(folder, good)
    with zipfile.ZipFile(good) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    picture = next(name for name in entries if name.endswith(".png"))
    if damage == "outside":
        entries["../../evil"] = b"x"
    elif damage == "wrong bytes":
        entries[picture] += b"x"
    elif damage == "newer format":
        entries["backup.json"] = json.dumps({"format": 2, "runs": 1}).encode()
    elif damage == "another zip":
        del entries["backup.json"]
    elif damage == "damaged database":
        entries["runs.sqlite"] = entries["runs.sqlite"][:5000]
    elif damage == "newer schema":
        (tmp_path / "x.sqlite").write_bytes(entries["runs.sqlite"])
        with sqlite3.connect(tmp_path / "x.sqlite") as database:
            database.execute("UPDATE alembic_version SET version_num = '9999'")
        entries["runs.sqlite"] = (tmp_path / "x.sqlite").read_bytes()
    with zipfile.ZipFile(bad, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    if damage == "no zip":
        bad.write_bytes(b"x" * 100)
    elif damage == "cut":
        bad.write_bytes(good.read_bytes()[:-3000])
    if damage == "wrong bytes":  # what is there already is not written again
        folder = tmp_path / "empty"
    with pytest.raises((RequestError, StorageError)) as error:
        restore(bad, folder, overwrite=True)
    assert "\n" not in str(error.value)
    if damage == "wrong bytes":
        assert not (folder / "runs.sqlite").exists()
    else:
        assert examine(folder) == [] and RunLog(folder).count() == 2
    assert not (tmp_path / "evil").exists() and not list(folder.glob(".*.tmp*"))


FULL = """
import resource, signal, sys
from pathlib import Path
from pipelines.backup import back_up
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    back_up(Path(sys.argv[1]), Path(sys.argv[2]))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit on Windows")
def test_a_backup_on_a_full_disk_leaves_nothing(folder, tmp_path):
    target = tmp_path / "out" / "all.zip"
    target.parent.mkdir()
    done = subprocess.run([sys.executable, "-c", FULL, str(folder), str(target)], text=True,
                          capture_output=True)
    assert done.stdout.startswith("StorageError"), done.stdout + done.stderr
    assert os.listdir(target.parent) == []


def test_a_locked_database_is_told_and_nothing_is_lost(folder, monkeypatch):
    monkeypatch.setattr("pipelines.database.WAIT_SECONDS", 0.1)
    log = RunLog(folder)
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="another program has been writing"):
        log.add(a_run())
    assert log.count() == 2  # reading goes on
    assert back_up(folder, folder.parent / "all.zip").runs == 2
    other.execute("ROLLBACK")
    log.add(a_run())
    assert log.count() == 3
    other.close()


def test_a_folder_without_a_log_is_not_backed_up(tmp_path):
    with pytest.raises(StorageError, match="no run log"):
        back_up(tmp_path, tmp_path / "all.zip")
    assert doctor.KINDS and backup.FORMAT == 1
