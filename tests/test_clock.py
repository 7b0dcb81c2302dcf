"""A clock that is set back: nothing is lost, made twice or taken for gone, and it is said."""

import datetime
import os
import time

import pytest

from pipelines import Comparison, RunRequest, log_tables
from pipelines.doctor import examine
from pipelines.jobs import open_queue, submit_generation
from pipelines.log_tables import Run
from pipelines.presence import Presence, is_there

BASE = RunRequest(prompt="a red car", num_inference_steps=2)
HOURS = 5


@pytest.fixture
def set_back(monkeypatch):
    """Set the clock back, for whoever asks this process for the time of day."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) - datetime.timedelta(hours=HOURS)

    class Module:
        UTC, datetime = datetime.UTC, Clock

    real = time.time

    def go():
        monkeypatch.setattr(log_tables, "datetime", Module)
        monkeypatch.setattr(time, "time", lambda: real() - HOURS * 3600)

    return go


def test_work_goes_on_and_is_made_once(engine, set_back):
    comparison = Comparison.parse(BASE, ["seed=0,1"])
    before = engine.compare(comparison, comparison_id="one", only={0})
    with Presence(engine.home) as here:
        set_back()
        assert is_there(engine.home, here.owner)
        after = engine.compare(comparison, comparison_id="one")
    assert after[0].id == before[0].id and after[1].status == "ok"
    assert after[1].datetime_utc < before[0].datetime_utc
    assert [run.id for run in engine.run_log.stream()] == [after[1].id, after[0].id]
    assert engine.run_log.comparison("one").status == "done"
    queue = open_queue(engine)
    try:
        jobs = [submit_generation(queue, [BASE.changed(seed=seed)]) for seed in (7, 8)]
        assert all(job.wait(60) and job.status == "done" for job in jobs)
    finally:
        queue.close()
    assert [run.seed for run in engine.run_log.stream()] == [8, 7, 1, 0]


def test_it_is_said_and_old_files_are_old_all_the_same(engine, set_back, request_):
    engine.run(request_)
    lost = engine.pictures.path("0" * 64)
    lost.parent.mkdir(exist_ok=True)
    lost.with_name(".half.tmp").write_bytes(b"half")
    assert engine.run_log.clock_behind_seconds() == 0
    assert examine(engine.home) == []
    set_back()
    assert HOURS * 3600 - 60 < engine.run_log.clock_behind_seconds() <= HOURS * 3600
    kinds = {finding.kind: finding.what for finding in examine(engine.home)}
    assert set(kinds) == {"clock", "temporary"} and "300 min behind" in kinds["clock"]


def test_a_moment_that_is_none_stops_nobody(engine, request_):
    run = engine.run(request_)
    engine.run_log.update(run, datetime_utc="yesterday")
    assert engine.run_log.clock_behind_seconds() == 0
    with engine.run_log.database.session() as session:
        assert session.query(Run).count() == 1
    assert os.path.exists(engine.picture_path(run))
