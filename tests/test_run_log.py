import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
import sqlalchemy
from PIL import Image

from pipelines import Engine, RunRequest
from pipelines.errors import StorageError
from pipelines.log_tables import Base, Run, utc_now
from pipelines.run_log import RunLog, data_home


def a_run(**values):
    defaults = dict(
        datetime_utc=utc_now(), status="ok", model_id="postcards", task="text-to-image",
        prompt="a red car", negative_prompt="", scheduler="ddim", num_inference_steps=4,
        guidance_scale=5.0, seed=0, request={"prompt": "a red car"},
    )  # fmt: skip
    return Run(**{**defaults, **values})


def schema(path):
    with sqlite3.connect(path) as connection:
        tables = [name for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'sqlite_sequence'")]
        return {table: (
            sorted(row[1:4] for row in connection.execute(f"PRAGMA table_info('{table}')")),
            sorted(row[1] for row in connection.execute(f"PRAGMA index_list('{table}')")),
        ) for table in tables}  # fmt: skip


def test_a_fresh_and_an_old_database_reach_the_same_schema(tmp_path):
    from alembic import command
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext

    import pipelines

    fresh = RunLog(tmp_path / "fresh")
    old = tmp_path / "old" / "runs.sqlite"
    old.parent.mkdir()
    config = Config()
    config.set_main_option("script_location", os.path.dirname(pipelines.__file__) + "/migrations")
    engine = sqlalchemy.create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with sqlite3.connect(old) as connection:
        connection.execute(
            "INSERT INTO runs (datetime_utc, status, model_id, task, prompt, negative_prompt, "
            "scheduler, num_inference_steps, guidance_scale, seed, request, step_ms, environment) "
            "VALUES ('2026-01-01', 'ok', 'm', 't', 'kept', '', 'ddim', 1, 1, 0, '{}', '[]', '{}')")
    log = RunLog(old.parent)
    assert [run.prompt for run in log.runs()] == ["kept"]
    assert (log.runs()[0].axes, log.runs()[0].notes) == ({}, [])
    assert schema(old) == schema(fresh.path)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={  # without full-text search
            "include_name": lambda name, kind, _: kind != "table" or name[:7] != "prompts"})
        assert compare_metadata(context, Base.metadata) == []


def test_a_log_with_a_chain_is_migrated(tmp_path):
    """Each schema since chains came, with two runs of which one names the other."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import pipelines

    config = Config()
    config.set_main_option("script_location", os.path.dirname(pipelines.__file__) + "/migrations")
    revisions = [s.revision for s in ScriptDirectory.from_config(config).walk_revisions()]
    since = [revision for revision in revisions if revision >= "0006"]
    assert len(since) > 1
    for revision in since:
        folder = tmp_path / revision
        folder.mkdir()
        engine = sqlalchemy.create_engine(f"sqlite:///{folder}/runs.sqlite")
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
        with sqlite3.connect(folder / "runs.sqlite") as connection:
            for parent in ("NULL", "1"):
                connection.execute(
                    "INSERT INTO runs (datetime_utc, status, model_id, task, prompt, "
                    "negative_prompt, scheduler, num_inference_steps, guidance_scale, seed, "
                    "request, step_ms, environment, parent_id) VALUES ('2026-01-01', 'ok', 'm', "
                    f"'t', 'kept', '', 'ddim', 1, 1, 0, '{{}}', '[]', '{{}}', {parent})")
        log = RunLog(folder)
        assert [run.parent_id for run in log.runs(ascending=True)] == [None, 1]
        with pytest.raises(StorageError, match="FOREIGN KEY"):  # and references count again
            log.add(a_run(parent_id=99))


OPEN = "import sys, pathlib; from pipelines import run_log; "


def test_processes_that_open_a_fresh_folder_at_once_all_succeed(tmp_path):
    code = OPEN + "print(run_log.RunLog(pathlib.Path(sys.argv[1])).count())"
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], text=True,
                                stdout=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate(timeout=60)[0] for process in started] == ["0\n"] * 4


@pytest.mark.parametrize("statement", [2, 5, 9, 14])
def test_a_migration_that_is_killed_leaves_a_database_that_opens(tmp_path, statement):
    code = OPEN + (
        "import os, sqlalchemy\n"
        "seen = []\n"
        "@sqlalchemy.event.listens_for(sqlalchemy.Engine, 'before_cursor_execute')\n"
        "def count(c, cursor, text, *_):\n"
        "    if text.split()[0] in ('CREATE', 'INSERT', 'UPDATE', 'ALTER', 'DROP'):\n"
        "        seen.append(text)\n"
        f"    if len(seen) == {statement}: os._exit(9)\n"
        "run_log.RunLog(pathlib.Path(sys.argv[1]))"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert died.returncode == 9
    log = RunLog(tmp_path)
    log.add(a_run())
    assert log.count() == 1


def test_a_folder_may_have_any_name(tmp_path):
    for name in ("what?", "50%", "a b#c", "日本"):
        RunLog(tmp_path / name).add(a_run())
        assert (tmp_path / name / "runs.sqlite").stat().st_size > 0
        assert RunLog(tmp_path / name).count() == 1


def test_a_database_from_a_newer_version_is_refused(tmp_path):
    log = RunLog(tmp_path)
    with sqlite3.connect(log.path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="newer version.*9999"):
        RunLog(tmp_path)


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"x" * 99])
def test_a_foreign_file_in_its_place_is_a_clear_error(tmp_path, content):
    (tmp_path / "runs.sqlite").write_bytes(content)
    with pytest.raises(StorageError, match="runs.sqlite"):
        RunLog(tmp_path)
    assert (tmp_path / "runs.sqlite").read_bytes() == content


def test_data_home_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        RunLog(tmp_path / "file")


def test_environment_variable_moves_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "elsewhere"))
    assert data_home() == tmp_path / "elsewhere"


def test_a_row_for_every_run_failures_too(engine, request_):
    engine.run(request_)
    engine.run(request_.changed(model_id="nobody/nothing"))
    failed, ok = engine.run_log.runs()
    assert (ok.status, failed.status) == ("ok", "failed")
    assert "nobody/nothing" in failed.error
    assert RunRequest(**ok.request) == request_.changed(scheduler="dpmpp_2m", height=ok.height,
                                                        width=ok.width)
    assert engine.picture_path(ok).is_file()


def test_filters(tmp_path):
    log = RunLog(tmp_path)
    log.add(a_run(prompt="50% red", scheduler="euler", datetime_utc="2026-01-01T10:00:00"))
    log.add(a_run(prompt="blue", negative_prompt="clouds", datetime_utc="2026-01-02T10:00:00"))
    log.add(a_run(prompt="green", status="failed", datetime_utc="2026-01-03T10:00:00"))

    def prompts(**filters):
        assert log.count(**filters) == len(log.runs(**filters))
        return [run.prompt for run in log.runs(**filters)]

    assert prompts() == ["green", "blue", "50% red"]
    assert prompts(text="RED") == ["50% red"]
    assert prompts(text="%") == ["50% red"]
    assert prompts(text="_") == []
    assert prompts(text="cloud") == ["blue"]
    assert prompts(scheduler="euler") == ["50% red"]
    assert prompts(status="failed") == ["green"]
    assert prompts(since="2026-01-02") == ["green", "blue"]
    assert prompts(until="2026-01-02") == ["blue", "50% red"]
    assert prompts(since="2026-01-02", until="2026-01-02") == ["blue"]
    assert [run.prompt for run in log.runs(limit=1, offset=1)] == ["blue"]
    assert log.distinct("scheduler") == ["ddim", "euler"]


def test_threads_and_a_second_log_write_at_once(tmp_path):
    logs = [RunLog(tmp_path), RunLog(tmp_path)]
    threads = [
        threading.Thread(target=lambda log=log: [log.add(a_run()) for _ in range(20)])
        for log in logs * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logs[0].count() == 80


def test_pictures_are_named_by_content_and_stored_once(engine):
    picture = Image.new("RGB", (9, 7), "red")
    name = engine.pictures.put(picture)
    assert engine.pictures.put(picture.copy()) == name
    files = [path for path in engine.pictures.folder.rglob("*") if path.is_file()]
    assert [path.name for path in files] == [f"{name}.png"]
    assert engine.pictures.get(name).size == (9, 7)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_lost_picture_is_a_clear_error(engine, request_, damage):
    run = engine.run(request_)
    path = engine.picture_path(run)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StorageError, match="cannot be read"):
        engine.pictures.get(run.image_sha256)
    again = engine.run(RunRequest(task="image-to-image", image=run.image_sha256))
    assert again.status == "failed"
    assert "cannot be read" in again.error


CHILD = """
import os, resource, signal, sys
from pathlib import Path
from pipelines import Engine, RunRequest
engine = Engine(Path(sys.argv[1]), device="cpu")
request = RunRequest(prompt="a cat", num_inference_steps=2)
"""


def child(code, home, **kwargs):
    return subprocess.run([sys.executable, "-c", CHILD + code, str(home)], capture_output=True,
                          text=True, **kwargs)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_a_killed_process_loses_no_finished_run(tmp_path):
    done = child(
        "engine.run(request)\n"
        "def die(step): os.kill(os.getpid(), signal.SIGKILL)\n"
        "engine.run(request.changed(seed=1), die)\n", tmp_path)  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    engine = Engine(tmp_path, device="cpu")
    (run,) = engine.run_log.runs()
    assert run.seed == 0
    assert engine.pictures.get(run.image_sha256).size == (run.width, run.height)


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit on Windows")
def test_a_full_disk_is_a_clear_error_and_keeps_what_is_there(tmp_path):
    """The system refuses files beyond 300 kB, as a full disk does: a large picture fails."""
    done = child(
        "first = engine.run(request)\n"
        "limit = resource.RLIMIT_FSIZE\n"
        "resource.setrlimit(limit, (300_000, resource.getrlimit(limit)[1]))\n"
        "second = engine.run(request.changed(height=512, width=512, num_inference_steps=1))\n"
        "print(first.status, second.status, second.error)\n", tmp_path, check=True)  # fmt: skip
    assert done.stdout.startswith("ok failed a picture cannot be written"), done.stdout
    engine = Engine(tmp_path, device="cpu")
    assert engine.run_log.count() == 2
    assert not list(engine.pictures.folder.rglob("*.tmp"))


def test_a_full_database_is_a_storage_error(tmp_path):
    log = RunLog(tmp_path)
    log.add(a_run())

    @sqlalchemy.event.listens_for(log.database._engine, "begin")
    def limit(connection):
        connection.exec_driver_sql("PRAGMA max_page_count=1")

    with pytest.raises(StorageError, match="full"):
        for _ in range(50):
            log.add(a_run(prompt="x" * 5000))
    assert RunLog(tmp_path).count() >= 1


def test_the_search_of_prompts_follows_every_change_of_the_rows(tmp_path):
    """By triggers, so that a migration that makes the table anew must make them anew, too."""
    log = RunLog(tmp_path)
    log.add(a_run(prompt="a red car"))
    log.add(a_run(prompt="a boat"))

    def found(text):
        return [run.id for run in log.page(text=text).runs]

    assert found("red c") == [1] and found("b") == [2]
    with sqlite3.connect(log.path) as database:
        database.execute("UPDATE runs SET prompt = 'a blue cart' WHERE id = 1")
        database.execute("DELETE FROM runs WHERE id = 2")
    assert found("red") == [] and found("boat") == [] and found("b") == found("cart") == [1]
    with sqlite3.connect(log.path) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    assert sorted(name for (name,) in names) == ["prompts_delete", "prompts_insert",
                                                 "prompts_update"]
