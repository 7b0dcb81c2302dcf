"""Stars, tags, remarks and the bin."""

import pytest
from sqlalchemy import select

from pipelines import Comparison, RunRequest, measuring
from pipelines.errors import RequestError
from pipelines.jobs import open_queue, submit_generation
from pipelines.log_tables import Run, UserMeasure
from pipelines.run_marks import RunMarks, bin_files, differences, empty_bin

BASE = RunRequest(prompt="a red car", num_inference_steps=2)


def test_marks_are_found_again(engine):
    runs = [engine.run(BASE.changed(seed=seed)) for seed in range(3)]
    marks = RunMarks(engine.run_log)
    marks.star([1, 2])
    marks.tag([1, 3], "  best   of all ")
    marks.tag([1], "best of all")
    marks.tag([1], "a")
    marks.remark(2, "the light is odd")
    assert [run.id for run in engine.run_log.stream(where="is:starred")] == [2, 1]
    assert [run.id for run in engine.run_log.stream(where='tag:"best of all"')] == [3, 1]
    assert [run.id for run in engine.run_log.stream(where="note:LIGHT")] == [2]
    assert marks.tags([1, 2, 3]) == {1: ["a", "best of all"], 3: ["best of all"]}
    marks.untag([1], "a")
    marks.star([1], False)
    assert marks.tags([1]) == {1: ["best of all"]}
    assert [run.id for run in engine.run_log.stream(where="is:starred")] == [2]
    for tag in ("", "  ", "x" * 61):
        with pytest.raises(RequestError, match="1 to 60"):
            marks.tag([1], tag)
    assert differences(runs) == {"seed": [0, 1, 2]}
    assert not runs[0].copy_for("x", {}).starred


def test_the_bin_gives_back_and_takes_files_that_nobody_names(engine):
    """Run 1 is taken into a comparison, run 2 is the input of run 3, run 4 is nobody's."""
    marks, log, store = RunMarks(engine.run_log), engine.run_log, engine.pictures
    (first,) = engine.compare(Comparison.parse(BASE, ["seed=0"]), comparison_id="first")
    second = engine.run(BASE.changed(seed=1))
    third = engine.run(RunRequest(prompt="a red car", task="image-to-image", strength=0.5,
                                  num_inference_steps=2, image=second.image_sha256),
                       parent_id=second.id)
    fourth = engine.run(BASE.changed(seed=2))
    comparison = Comparison.parse(BASE, ["seed=0,5"])
    copies = engine.compare(comparison, comparison_id="kept")
    measuring.measure(engine, comparison, copies, "seed=5")
    before = measuring.distances(engine, comparison, copies, "seed=5")
    measured = [distance and distance.as_dict() for distance in before]
    assert copies[0].reused_from == first.id and measured[0]["psnr"]
    for run in (first, fourth):
        log.add(UserMeasure(run_id=run.id, name="users:own", value=run.id / 2))

    marks.delete([first.id, second.id, fourth.id])
    assert [run.id for run in log.stream()] == [copies[1].id, third.id]
    assert len(log.runs(comparison_id="kept")) == 2
    marks.bring_back([second.id])
    assert [run.id for run in log.stream(where="is:deleted")] == [fourth.id, first.id]
    marks.delete([second.id])
    names = {name for _, name, _ in bin_files(engine)}
    assert fourth.image_sha256 in names and second.steps_sha256 in names
    assert not names & {first.image_sha256, second.image_sha256}
    expected = sum(size for *_, size in bin_files(engine))
    assert empty_bin(engine) == expected > 1000
    with log.database.session() as session:
        (kept,) = session.scalars(select(UserMeasure)).all()
    assert (kept.run_id, kept.value) == (copies[0].id, first.id / 2), "handed on to the copy"

    assert not store.whole(fourth.image_sha256) and store.whole(second.image_sha256)
    assert log.run(third.id).parent_id is None
    heir, other = sorted(log.runs(comparison_id="kept"), key=lambda run: run.seed)
    assert heir.id == copies[0].id and heir.reused_from is None
    again = measuring.distances(engine, comparison, [heir, other], "seed=5")
    assert [distance and distance.as_dict() for distance in again] == measured
    assert empty_bin(engine) == 0 and log.count() == 3
    with log.database.session() as session:
        assert session.connection().exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert session.connection().exec_driver_sql(
            "SELECT count(*) FROM prompts_docsize").scalar() == session.query(Run).count()


def act_before(owner, name, act, monkeypatch, call=1):
    """Let `act` happen just before a call of a method, as another process would."""
    method, calls = getattr(owner, name), iter(range(1, 1000))

    def wrapped(*args, **kwargs):
        if next(calls) == call:
            act()
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


def test_a_file_of_the_bin_that_is_stored_again_is_kept(engine, monkeypatch):
    """The bin is emptied after a job has found its picture in the store, before its row."""
    old = engine.run(BASE, keep_latents=True)
    RunMarks(engine.run_log).delete([old.id])
    act_before(engine.run_log, "add", lambda: empty_bin(engine), monkeypatch)
    again = engine.run(BASE, keep_latents=True)
    assert engine.run_log.count() == 1 and not RunMarks(engine.run_log).deleted()
    assert (again.image_sha256, again.latents_sha256) == (old.image_sha256, old.latents_sha256)
    assert engine.complete(again)


def test_a_file_of_the_bin_that_a_row_names_since_it_was_listed_is_kept(engine, monkeypatch):
    old = engine.run(BASE)
    RunMarks(engine.run_log).delete([old.id])
    again = []
    act_before(engine.run_log.database, "session", lambda: again.append(engine.run(BASE)),
               monkeypatch, call=2)
    freed = empty_bin(engine)
    assert engine.run_log.count() == 1 and again[0].image_sha256 == old.image_sha256
    assert engine.pictures.whole(old.image_sha256) and freed == 0


def test_a_run_of_the_bin_that_a_comparison_takes_is_made_where_it_goes_meanwhile(
        engine, monkeypatch):
    (old,) = engine.compare(Comparison.parse(BASE, ["seed=0"]), comparison_id="first")
    RunMarks(engine.run_log).delete([old.id])
    act_before(engine.run_log, "add_copy", lambda: empty_bin(engine), monkeypatch)
    (cell,) = engine.compare(Comparison.parse(BASE, ["seed=0"]), comparison_id="second")
    assert cell.reused_from is None and cell.status == "ok" and engine.complete(cell)


def test_the_bin_keeps_what_a_waiting_job_starts_from(engine):
    old = engine.run(BASE)
    request = RunRequest(prompt="a red car", task="image-to-image", strength=0.5,
                         num_inference_steps=2, image=old.image_sha256)
    queue = open_queue(engine, work=False)
    job = submit_generation(queue, [request])
    RunMarks(engine.run_log).delete([old.id])
    empty_bin(engine)
    assert engine.run_log.count() == 0 and engine.pictures.whole(old.image_sha256)
    job.cancel()
    assert job.status == "cancelled"
