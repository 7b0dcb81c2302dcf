"""The run log in files, and back: a copy that another machine takes, and what is wrong with one."""

import csv
import io
import json
import tracemalloc
import zipfile

import pytest
from PIL import Image
from pyarrow import parquet
from sqlalchemy import text

from pipelines import Comparison, Engine, RunRequest, measuring
from pipelines.errors import Cancelled, RequestError
from pipelines.exchange import mlflow
from pipelines.exchange.archive import write_archive
from pipelines.exchange.bring_in import bring_in
from pipelines.exchange.work import submit_export, submit_import
from pipelines.jobs import open_queue
from pipelines.log_tables import Run, Timing, utc_now
from pipelines.run_filter import RunFilter
from pipelines.run_marks import RunMarks
from pipelines.study.design import Study, keep, logged_study
from pipelines.study.prompts import Prompt

BASE = RunRequest(prompt="a red car", num_inference_steps=2)
TABLES = ("runs", "comparisons", "studies", "distances", "timings", "tags")


@pytest.fixture(scope="module")
def full(session_engine, tmp_path_factory):
    """A log with one of everything: a comparison that is measured and timed, a copy of one of its
    cells in another, a chain, a failure, marks, a study."""
    engine = Engine(tmp_path_factory.mktemp("full"), device="cpu")
    engine.registry = session_engine.registry
    comparison = Comparison.parse(BASE, ["scheduler=ddim,euler"])
    runs = engine.compare(comparison, comparison_id="first")
    measuring.measure(engine, comparison, runs, "scheduler=ddim")
    measuring.measure_timings(engine, runs, 2)
    (copy,) = engine.compare(Comparison.parse(BASE, ["scheduler=euler"]), comparison_id="second")
    assert copy.reused_from == runs[1].id
    engine.run(BASE.changed(model_id="no/such-model"))
    engine.chain(BASE.changed(seed=3), [{"strength": 0.5}])
    marks = RunMarks(engine.run_log)
    marks.tag([runs[0].id], "best")
    marks.star([runs[1].id])
    marks.remark(runs[0].id, "the light is odd")
    study = Study(BASE, comparison.axes, (Prompt("a red car", "x"), Prompt("a boat", "x")), (0,),
                  id="second")
    keep(engine.run_log, study)
    return engine


@pytest.fixture
def file(full, tmp_path):
    path = tmp_path / "log.zip"
    write_archive(full, path, RunFilter())
    return path


def counts(engine):
    with engine.run_log.database.session() as session:
        return {name: session.scalar(text(f"SELECT count(*) FROM {name}")) for name in TABLES}


def rewritten(file, change):
    """The file with members changed: `change(name, data)` gives the bytes, None to leave it out."""
    other = file.with_name("other.zip")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
    return other


def test_another_machine_has_the_same_log_afterwards_and_nothing_twice(full, engine, file):
    imported = bring_in(engine, file)
    assert imported.skipped == [] and counts(engine) == counts(full)
    different = {"id", "parent_id", "reused_from"}
    for mine, theirs in zip(engine.run_log.runs(), full.run_log.runs(), strict=True):
        assert ({k: v for k, v in mine.as_dict().items() if k not in different}
                == {k: v for k, v in theirs.as_dict().items() if k not in different})
        assert mine.status != "ok" or engine.pictures.whole(mine.image_sha256)
    comparison = Comparison.parse(BASE, ["scheduler=ddim,euler"])
    for where in (engine, full):
        runs = comparison.match(where.run_log.runs(comparison_id="first"))
        where.measured = [distance and distance.as_dict() for distance in measuring.distances(
            where, comparison, runs, "scheduler=ddim")], measuring.timings(where, runs)
        where.tagged = RunMarks(where.run_log).tags([runs[0].id]).popitem()[1]
    assert engine.measured == full.measured and engine.measured[1][0].repeats == 2
    assert engine.tagged == ["best"]
    assert logged_study(engine.run_log, "second").prompts[1].text == "a boat"
    copy = engine.run_log.runs(comparison_id="second")[0]
    assert engine.run_log.run(copy.reused_from).image_sha256 == copy.image_sha256
    child = engine.run_log.runs(where="parent_id>0")[0]
    assert child.request["image"] == engine.run_log.run(child.parent_id).image_sha256

    again = bring_in(engine, file)
    assert (again.runs, again.measures, again.runs_here) == (0, 0, imported.runs)
    assert counts(engine) == counts(full)


def test_a_picture_that_is_here_already_is_no_second_run(full, engine, file):
    """The cell of the other machine becomes a copy of it; a lost picture comes back."""
    (mine,) = engine.compare(Comparison.parse(BASE, ["scheduler=ddim"]), comparison_id="mine")
    engine.picture_path(mine).unlink()
    bring_in(engine, file)
    cell = engine.run_log.runs(comparison_id="first", scheduler="ddim")[0]
    assert cell.reused_from == mine.id and engine.complete(mine)
    assert engine.run_log.count() == full.run_log.count()


def test_an_import_that_is_stopped_goes_on(full, engine, file, monkeypatch):
    monkeypatch.setattr("pipelines.exchange.bring_in.AT_ONCE", 2)

    def stop(done, total):
        if done >= 4:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        bring_in(engine, file, stop)
    assert counts(engine)["runs"] == 4
    bring_in(engine, file)
    assert counts(engine) == counts(full)


def test_a_part_takes_what_it_needs(full, engine, tmp_path):
    """The euler cell with what it was measured against; not the chain, not the failure."""
    made = write_archive(full, tmp_path / "part.zip",
                         RunFilter(where="scheduler:euler comparison:first"))
    assert (made.runs, made.needed) == (1, 1)
    bring_in(engine, tmp_path / "part.zip")
    assert counts(engine) == {"runs": 2, "comparisons": 1, "studies": 0, "distances": 2,
                              "timings": 4, "tags": 1}


def test_what_is_damaged_or_newer_is_named_and_the_rest_comes_in(full, engine, file):
    pictures = [run.image_sha256 for run in full.run_log.runs(ascending=True)]

    def change(name, data):
        if pictures[0] in name:
            return data[:-20]
        if name == "runs.jsonl":
            rows = data.splitlines()
            newer = json.loads(rows[1]) | {"colour_of_the_frame": 1}
            wrong = json.loads(rows[1]) | {"id": 99, "seed": "many", "identity": "../../x"}
            return b"\n".join([rows[0], json.dumps(newer).encode(), json.dumps(wrong).encode(),
                               b"{broken", *rows[2:], b'{"id": 1}', b""])
        return data

    imported = bring_in(engine, rewritten(file, change))
    told = "\n".join(imported.skipped)
    assert "its picture is damaged in the file" in told
    assert "of a newer version: it has colour_of_the_frame" in told
    assert "seed: received 'many'" in told and "identity: received '../../x'" in told
    assert "no row: b'{broken'" in told
    # Lost are the two that are spoiled; the copy of the second is a run of its own now.
    assert imported.runs == counts(full)["runs"] - 2 and imported.skipped_count == 5
    assert all(engine.pictures.whole(run.image_sha256) for run in engine.run_log.runs(status="ok"))


def archive_of(tmp_path, members, **about):
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.json", json.dumps(
            {"kind": "contact-sheet log", "format": 1, "runs": 1} | about))
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("members, about, message", [
    ({"../../evil.png": b"x"}, {}, "'../../evil.png', which no export"),
    ({"pictures/../../x.png": b"x"}, {}, "which no export"),
    ({"/etc/passwd": b"x"}, {}, "which no export"),
    ({f"pictures/ab/{'0' * 64}.png": b"x"}, {}, "which no export"),
    ({f"pictures/00/{'0' * 64}.png": bytes(2**20)}, {}, "would unpack"),
    ({"runs.jsonl": bytes(2**24)}, {}, "would unpack"),
    ({}, {"format": 2, "version": "9.0"}, "newer version .'9.0'"),
    ({}, {"kind": "holiday"}, "is no exported log"),
])
def test_a_hostile_or_foreign_archive_is_refused_before_anything_is_read(
        engine, tmp_path, members, about, message):
    before = sorted(tmp_path.rglob("*"))
    path = archive_of(tmp_path, members, **about)
    with pytest.raises(RequestError, match=message):
        bring_in(engine, path)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + bytes(60)])
def test_what_is_no_archive_is_a_clear_error(engine, tmp_path, content):
    (tmp_path / "log.zip").write_bytes(content)
    with pytest.raises(RequestError, match="is no ZIP file"):
        bring_in(engine, tmp_path / "log.zip")
    with pytest.raises(RequestError, match="there is no file"):
        bring_in(engine, tmp_path / "none.zip")


def test_a_picture_that_is_none_does_not_come_in(full, engine, file, tmp_path):
    """Under its right name, so that only a look inside tells: a page, and a picture so large that
    it fills the memory."""
    buffer = io.BytesIO()
    Image.new("1", (6000, 6000)).save(buffer, "PNG")
    store, rows = engine.pictures, []
    run = full.run_log.runs(status="ok", limit=1)[0].as_dict()
    members = {}
    for number, data in enumerate((b"<html>", buffer.getvalue())):
        name = store.write(data)
        store.remove(name)
        members[f"pictures/{name[:2]}/{name}.png"] = data
        rows.append(run | {"id": number, "image_sha256": name, "steps_sha256": None,
                           "latents_sha256": None, "parent_id": None})
    path = archive_of(tmp_path, {})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("runs.jsonl", "\n".join(map(json.dumps, rows)))
        for name, data in members.items():
            archive.writestr(name, data)
    imported = bring_in(engine, path)
    assert engine.run_log.count() == 0 and not list(store.folder.rglob("*.png"))
    assert "is no PNG" in imported.skipped[0] and "6000 x 6000" in imported.skipped[1]


def test_an_export_needs_little_memory(engine, tmp_path):
    """10 pictures of 1 MB each pass through less than 4 MB."""
    import random

    noise = random.Random(0)
    for number in range(10):
        name = engine.pictures.put(Image.frombytes("RGB", (600, 600), noise.randbytes(1_080_000)))
        engine.run_log.add(Run(
            datetime_utc=utc_now(), status="ok", model_id="m", task="text-to-image", prompt="x",
            negative_prompt="", scheduler="ddim", num_inference_steps=1, guidance_scale=1.0,
            seed=number, request=BASE.model_dump(mode="json"), image_sha256=name, total_ms=1.0,
            nfe=1))
    tracemalloc.start()
    made = write_archive(engine, tmp_path / "log.zip", RunFilter())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.size > 10_000_000 and peak < 4_000_000


def test_the_command_line_writes_every_format_and_takes_the_archive(run, tmp_path, full,
                                                                    monkeypatch):
    for name in ("log.parquet", "log.csv", "log-spreadsheet.csv", "log.json", "log.zip"):
        monkeypatch.setenv("CONTACT_SHEET_HOME", str(full.home))
        code, out, err = run("export", name, "--where", "status:ok")
        assert code == 0 and "4 runs" in out, (out, err)
    table = parquet.read_table(tmp_path / "log.parquet").to_pylist()
    assert [row["seed"] for row in table] == [3, 3, 0, 0]
    assert json.loads(table[0]["request"])["strength"] == 0.5
    rows = list(csv.DictReader((tmp_path / "log.csv").open(encoding="utf-8")))
    assert [row["id"] for row in rows] == [str(row["id"]) for row in table]
    assert (tmp_path / "log-spreadsheet.csv").read_text("utf-8").startswith("\ufeff")
    assert len(json.loads((tmp_path / "log.json").read_text("utf-8"))) == len(rows)
    code, _, err = run("export", "log.zip")
    assert code == 2 and "exists already" in err
    code, _, err = run("export", "log.txt")
    assert code == 2 and "does not say its format" in err

    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "home"))
    code, out, _ = run("import", "log.zip")
    assert code == 0 and "4 runs came in" in out
    code, out, _ = run("import", "log.zip", "--json")
    assert code == 0 and json.loads(out)["runs_here"] == 4


def test_mlflow_says_what_is_missing_or_has_the_runs(full, tmp_path):
    try:
        mlflow.check_mlflow()
    except RequestError as error:
        assert "pip install mlflow-skinny" in str(error)
        pytest.skip("mlflow is not installed")
    runs = full.run_log.runs(status="ok", comparison_id="first")
    for new in (2, 0):
        assert mlflow.write_mlflow(full, runs, len(runs), tmp_path / "ml") == new
    import mlflow as library

    client = library.MlflowClient((tmp_path / "ml").as_uri())
    experiment = client.get_experiment_by_name("contact-sheet")
    found = client.search_runs([experiment.experiment_id], "params.scheduler = 'euler'")[0]
    assert found.data.metrics["nfe"] == 2 and found.info.status == "FINISHED"
    assert any(name.startswith("psnr_to_run_") for name in found.data.metrics)
    steps = client.get_metric_history(found.info.run_id, "share_of_step_ms"
                                      if runs[0].shared else "step_ms")
    assert [step.step for step in steps] == [1, 2]
    assert client.list_artifacts(found.info.run_id)[0].path.endswith(".png")


def test_timings_of_two_imports_are_not_added_up(full, engine, file):
    for _ in range(2):
        bring_in(engine, file)
    with engine.run_log.database.session() as session:
        assert session.query(Timing).count() == 4


def test_an_import_is_a_job_that_leaves_no_file(full, engine, file, tmp_path):
    queue = open_queue(engine)
    try:
        with file.open("rb") as data:
            job = submit_import(queue, "theirs.zip", data)
        assert job.wait(60) and job.status == "done" and "came in" in job.message
        job = submit_import(queue, "theirs.zip", io.BytesIO(b"no zip"))
        assert job.wait(60) and "theirs.zip is no ZIP file" in job.error
        assert list((engine.home / "imports").iterdir()) == []
        job = submit_export(queue, "zip", RunFilter(where="status:ok"))
        assert job.wait(60) and "files" in job.message
        assert zipfile.is_zipfile(next((engine.home / "exports").iterdir()))
    finally:
        queue.close()
