"""The queue: order, one job at a time, what people want of it, and what outlives a process."""

import json
import threading

import pytest

from pipelines import Comparison, Engine, JobQueue, RequestError, RunRequest
from pipelines.error_log import NAME
from pipelines.job_log import INTERRUPTED, PAUSE, PAUSED, WAITING, JobRow, fair_order
from pipelines.jobs import KINDS, submit_comparison, submit_generation
from pipelines.presence import Presence

WAIT = 60
BASE = RunRequest(prompt="a cat", num_inference_steps=2)


@pytest.fixture
def open_queue(engine):
    """Opens queues on one folder, as programs would; 'step' waits to be let on, step by step."""
    queues, gates = [], {}

    def step(work, settings):
        gate = gates.setdefault(settings["name"], threading.Semaphore(0))
        for _ in range(work.total):
            assert gate.acquire(timeout=WAIT)
            work.advance()
            work.check_further()

    def fail(work, settings):
        raise {"ours": RequestError, "theirs": ZeroDivisionError}[settings["name"]]("by zero")

    def quick(work, settings):
        work.advance(work.total)

    def open_(**options):
        queue = JobQueue(engine, KINDS | {"step": step, "fail": fail, "quick": quick}, **options)
        queues.append(queue)
        return queue

    open_.let = lambda name, steps=1: [
        gates.setdefault(name, threading.Semaphore(0)).release() for _ in range(steps)]
    yield open_
    for queue in queues:
        queue.close()
        if queue.work:
            queue.work.stop.set()
    for gate in gates.values():
        for _ in range(100):
            gate.release()


@pytest.fixture
def jobs(open_queue):
    return open_queue()


def submit(jobs, name, browser="", kind="step", total=1):
    return jobs.submit(kind, name, total, {"name": name}, browser=browser)


def wait(job):
    assert job.wait(WAIT), job.status
    return job


def until(condition):
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to be")


def titles(jobs):
    return [job.title for job in jobs.active()]


def test_jobs_run_one_after_the_other(jobs, open_queue):
    one, two = submit(jobs, "one"), submit(jobs, "two")
    until(lambda: one.status == "running")
    assert titles(jobs) == ["one", "two"] and two.status == WAITING
    assert jobs.place(two.id).ahead == 1
    open_queue.let("one")
    until(lambda: two.status == "running")
    assert one.status == "done"
    open_queue.let("two")
    assert wait(two).status == "done"
    assert jobs.active() == []
    assert jobs.latest("step") == two


def test_a_job_that_does_the_same_is_not_added_twice(jobs, open_queue):
    one = submit(jobs, "one")
    assert submit(jobs, "one", "another browser") == one
    open_queue.let("one")
    wait(one)
    assert submit(jobs, "one") != one


def test_cancel_before_and_during(jobs, open_queue):
    running, waiting = submit(jobs, "running", total=3), submit(jobs, "waiting")
    until(lambda: running.status == "running")
    running.cancel()
    waiting.cancel()
    assert running.stopping and waiting.status == "cancelled"
    again = submit(jobs, "running"), submit(jobs, "waiting")
    assert not {running, waiting} & set(again), "what is being cancelled can be asked for again"
    open_queue.let("running", 3)
    assert wait(running).status == "cancelled" and running.done == 0


def test_failures_are_shown_and_the_queue_goes_on(jobs, engine):
    ours, theirs = (submit(jobs, name, kind="fail") for name in ("ours", "theirs"))
    good = submit(jobs, "good", kind="quick")
    assert (wait(ours).status, ours.error) == ("failed", "by zero")
    assert wait(theirs).error.startswith("ZeroDivisionError: by zero (not foreseen; its traceback ")
    assert "ZeroDivisionError: by zero" in (engine.home / NAME).read_text()
    assert wait(good).status == "done"


def test_finished_jobs_are_forgotten_after_a_while(jobs):
    for number in range(60):
        last = submit(jobs, str(number), kind="quick")
    wait(last)
    assert [job.title for job in jobs.jobs()] == [str(number) for number in range(10, 60)]


def test_browsers_take_turns():
    def row(number, browser, status=WAITING, turn=None, position=None):
        row = JobRow(datetime_utc="", kind="", title="", settings={}, key="", browser=browser,
                     status=status, turn=turn, position=position or number)
        row.id = number
        return row

    rows = [row(1, "a", "running", 7), row(2, "a"), row(3, "a"), row(4, "a"), row(5, "b"),
            row(6, "b"), row(7, "c"), row(8, "d", "done", 3), row(9, "d")]
    assert [row.id for row in fair_order(rows)] == [5, 7, 9, 2, 6, 3, 4]
    rows[1].position, rows[3].position = 4, 2
    assert [row.id for row in fair_order(rows)] == [5, 7, 9, 4, 6, 3, 2]
    assert fair_order([]) == []


def test_waiting_jobs_change_places_within_their_browser(jobs):
    first = submit(jobs, "first", "a")
    until(lambda: first.status == "running")
    for name, browser in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")):
        submit(jobs, name, browser)
    assert titles(jobs) == ["first", "b1", "a1", "a2", "a3"]
    ids = {job.title: job.id for job in jobs.active()}
    jobs.move(ids["a3"], -1)
    jobs.move(ids["a3"], -1)
    jobs.move(ids["a3"], -1)  # it is the first already
    assert titles(jobs) == ["first", "b1", "a3", "a1", "a2"]
    jobs.move(ids["a3"], 1)
    jobs.move(ids["first"], 1)  # it runs
    assert titles(jobs) == ["first", "b1", "a1", "a3", "a2"]


def test_pause_lets_the_next_begin_and_resume_goes_on(jobs, open_queue):
    one, two = submit(jobs, "one", total=2), submit(jobs, "two")
    until(lambda: one.status == "running")
    one.pause()
    assert one.stopping == PAUSE
    open_queue.let("one")
    until(lambda: two.status == "running")
    assert one.status == PAUSED and one.active and not one.busy
    two.pause()
    two.resume()  # before it came to a halt
    open_queue.let("two")
    assert wait(two).status == "done"
    one.resume()
    open_queue.let("one", 2)
    assert wait(one).status == "done"
    front, waiting = submit(jobs, "front"), submit(jobs, "waiting")
    until(lambda: front.status == "running")
    waiting.pause()
    assert waiting.status == PAUSED
    waiting.cancel()
    assert waiting.status == "cancelled"


def test_two_programs_share_the_queue(jobs, open_queue):
    other = open_queue()
    names = [str(number) for number in range(8)]
    mine = [submit(jobs, name, total=3) for name in names]
    until(lambda: sum(job.status == "running" for job in mine) == 2)
    assert [job.title for job in other.active()] == [job.title for job in jobs.active()]
    assert {queue.work.title for queue in (jobs, other)} == {"0", "1"}
    for queue in (jobs, other):  # a wish reaches whoever does the job
        other_one = other if queue is jobs else jobs
        other_one.get(queue.work.id).cancel()
    for name in names[:2]:
        open_queue.let(name, 3)
    # The wish is read when progress is written.
    until(lambda: {job.title: job.status for job in mine}["2"] != WAITING)
    for name in names[2:]:
        open_queue.let(name, 3)
    assert {wait(job).status for job in mine[2:]} == {"done"}
    assert {wait(job).status for job in mine[:2]} <= {"done", "cancelled"}


def left_by_a_killed_program(engine, jobs, status, **columns):
    """A row as a process leaves it that is killed."""
    with Presence(engine.home) as gone:
        row = JobRow(datetime_utc="2026-01-01", kind="quick", title=f"was {status}", total=1,
                     settings={"name": ""}, key=f"{status} {columns}", status=status,
                     owner=gone.owner, **columns)
        jobs.log.add(row)
    return row.id


def test_what_a_program_leaves_is_interrupted_until_somebody_lets_it_go_on(
    engine, jobs, open_queue
):
    ids = [left_by_a_killed_program(engine, jobs, status)
           for status in ("running", WAITING, PAUSED, "done")]
    cancelling = left_by_a_killed_program(engine, jobs, "running", wish="cancel")
    mine = submit(jobs, "mine")
    until(lambda: mine.status == "running")
    queue = open_queue()
    assert [queue.get(job).status for job in ids] == [INTERRUPTED, INTERRUPTED, PAUSED, "done"]
    assert queue.get(cancelling).status == "cancelled"
    assert mine.status == "running", "its program is there"
    queue.resume_all()
    assert [wait(queue.get(job)).status for job in ids[:2]] == ["done", "done"]
    assert not set(jobs.engine.home.joinpath("locks").iterdir()) ^ {
        jobs.engine.home / "locks" / f"{q._presence.owner}.lock" for q in (jobs, queue)}


def test_a_start_can_go_on_with_what_was_interrupted(engine, jobs, open_queue):
    job = left_by_a_killed_program(engine, jobs, "running")
    jobs.close()
    assert wait(open_queue(resume=True).get(job)).status == "done"


@pytest.mark.parametrize("settings, kind, told", [
    ({}, "generate", "its settings are not what it takes"),
    ({"requests": [{"prompt": 5}], "stages": [], "parent_id": None}, "generate", "prompt"),
    ({"base": {"scheduler": "euler_2030"}, "axes": [], "skip": [], "shared": True, "fresh": False},
     "compare", "euler_2030"),
        ({"repeats": "many"}, "timings", "its settings are not what it takes"),
    ({}, "animate", "received the kind 'animate', accepted generate, inpaint, compare"),
])
def test_a_job_that_this_version_cannot_read_says_so(jobs, settings, kind, told):
    job = wait(jobs.submit(kind, "from 2030", 1, settings))
    assert job.status == "failed" and told in job.error and f"job {job.id}" in job.error


def test_a_damaged_row_is_a_failed_job(engine, jobs):
    job = submit(jobs, "whole", kind="quick")
    wait(job)
    with engine.run_log.database.session(write=True) as session:
        session.connection().exec_driver_sql(
            "UPDATE jobs SET status = 'dancing', total = 'x', settings = '[1'")
    (job,) = jobs.jobs()
    assert job.status == "failed" and "dancing" in job.error and "total" in job.error
    assert wait(submit(jobs, "next", kind="quick")).status == "done"


def test_progress_counts_evaluations_and_tells_the_time_left(engine, jobs):
    request = BASE.changed(num_inference_steps=5, scheduler="heun")
    job = submit_generation(jobs, [request, request.changed(seed=1)])
    assert job.total == 18
    assert wait(job).status == "done", job.error
    assert job.done == 18 and job.message == "2 of 2 pictures"
    assert [run.seed for run in job.runs] == [0, 1]
    assert engine.run_log.count() == 2
    again = submit_generation(jobs, [request])
    assert again.eta_seconds() > 0, "by the runs of this machine"
    assert wait(again).status == "done"


def test_a_comparison_is_found_in_the_log_while_it_runs(engine, jobs, open_queue):
    comparison = Comparison.parse(BASE, ["seed=0,1"])
    submit(jobs, "in front")
    job = submit_comparison(jobs, comparison)
    assert submit_comparison(jobs, comparison) == job
    open_queue.let("in front")
    assert wait(job).status == "done", job.error
    assert engine.run_log.comparison(job.comparison_id).status == "done"
    assert engine.run_log.count(comparison_id=job.comparison_id) == 2
    assert job.done == job.total == 4


@pytest.mark.parametrize("way", ["cancel", "cancel_after", "pause"])
def test_a_comparison_that_is_stopped_keeps_its_cells(engine, jobs, way):
    def compare(work, settings):
        advance = work.advance

        def advance_and_stop(units=1):
            advance(units)
            if not work.wish and engine.run_log.count(status="ok"):
                getattr(jobs.get(work.id), way)()

        work.advance = advance_and_stop
        KINDS["compare"](work, settings)

    jobs.kinds["compare"] = compare
    shared = way == "cancel"  # the others let what has begun come to its end
    comparison = Comparison.parse(
        BASE, ["num_inference_steps=1,5..8" if shared else "seed=0..4"])
    job = submit_comparison(jobs, comparison, shared)
    status = "paused" if way == "pause" else "cancelled"
    assert wait(job).status == status
    assert engine.run_log.comparison(job.comparison_id).status == status
    count = engine.run_log.count(status="ok")
    assert 1 <= count < len(comparison.cells) and engine.run_log.count() == count
    assert all(run.steps_sha256 for run in engine.run_log.runs())
    if way == "pause":
        jobs.kinds["compare"] = KINDS["compare"]
        job.resume()
        assert wait(job).status == "done"
        assert engine.run_log.count() == 5


def test_a_cancelled_generation_is_in_the_log(engine, jobs):
    """Side by side: the pictures that were under way."""
    requests = [BASE.changed(num_inference_steps=500, seed=seed) for seed in range(2)]
    job = submit_generation(jobs, requests)
    until(lambda: job.began)
    job.cancel()
    assert wait(job).status == "cancelled"
    assert [run.status for run in engine.run_log.runs()] == ["cancelled"] * 2


def test_a_generation_goes_on_with_what_is_missing(engine, jobs):
    """Of three chains one is whole, one has its first picture, one has nothing."""
    requests = [BASE.changed(seed=seed) for seed in range(3)]
    stages = [{"strength": 0.5}]
    with Presence(engine.home) as gone:
        row = JobRow(
            datetime_utc="2026-01-01", kind="generate", title="", key="", owner=gone.owner,
            status="running", settings=json.loads(json.dumps({
                "requests": [request.model_dump(mode="json") for request in requests],
                "stages": stages, "parent_id": None})))
        jobs.log.add(row)
    whole = engine.chain(requests[0], stages)
    first = engine.run(requests[1])
    jobs.log.sweep()
    job = jobs.get(row.id)
    job.resume()
    assert wait(job).status == "done", job.error
    runs = engine.run_log.runs(ascending=True)
    assert [run.id for run in runs[:3]] == [*(run.id for run in whole), first.id]
    assert sorted((run.seed, run.task) for run in runs) == [
        (seed, task) for seed in range(3) for task in ("image-to-image", "text-to-image")]
    assert {run.id for run in job.runs} == {run.id for run in runs}


def test_the_command_jobs_lists_the_queue_and_goes_on(run, tmp_path, session_engine):
    engine = Engine(tmp_path / "home", device="cpu")
    engine.registry = session_engine.registry
    with Presence(engine.home) as gone:
        queue = JobQueue(engine, KINDS, work=False)
        request = BASE.changed(prompt="a boat")
        row = JobRow(
            datetime_utc="2026-01-01", kind="generate", title="a boat", key="", owner=gone.owner,
            status="running", asked_with="Firefox on Linux", settings={
                "requests": [request.model_dump(mode="json")], "stages": [], "parent_id": None})
        queue.log.add(row)
    code, output, _ = run("jobs")
    assert code == 0 and "interrupted" in output and "Firefox on Linux" in output
    code, output, _ = run("jobs", "--resume-jobs", "--json")
    (record,) = json.loads(output)
    assert code == 0 and record["status"] == "done" and record["run_ids"] == [1]
    assert engine.run_log.count(status="ok") == 1
    code, output, _ = run("jobs", "--resume-jobs", "--json")
    assert (code, json.loads(output)) == (0, [])
