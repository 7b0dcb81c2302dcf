"""Stars, tags, remarks and the bin."""

import pytest

from pipelines import Comparison, RunRequest, measuring
from pipelines.errors import RequestError
from pipelines.log_tables import Run
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
