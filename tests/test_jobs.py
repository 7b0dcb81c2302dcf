import threading

import pytest

from pipelines import Comparison, JobQueue, RequestError, RunRequest
from pipelines.jobs import submit_comparison, submit_generation


@pytest.fixture
def jobs():
    return JobQueue()


def wait(job):
    assert job.finished.wait(60), job.status
    return job


def test_jobs_run_one_after_the_other(jobs):
    order, gate = [], threading.Event()

    def first(job):
        gate.wait(10)
        order.append("first")

    one = jobs.submit("test", "one", 1, first)
    two = jobs.submit("test", "two", 1, lambda job: order.append("second"))
    assert [job.title for job in jobs.active()] == ["one", "two"]
    gate.set()
    wait(one)
    wait(two)
    assert order == ["first", "second"]
    assert jobs.active() == []
    assert jobs.latest("test") is two


def test_a_key_that_is_active_is_not_added_twice(jobs):
    gate = threading.Event()
    one = jobs.submit("test", "one", 1, lambda job: gate.wait(10), key="same")
    assert jobs.submit("test", "again", 1, lambda job: None, key="same") is one
    gate.set()
    wait(one)
    assert jobs.submit("test", "later", 1, lambda job: None, key="same") is not one


def test_cancel_before_and_during(jobs):
    started, gate = threading.Event(), threading.Event()

    def work(job):
        started.set()
        gate.wait(10)
        job.advance()

    running = jobs.submit("test", "running", 3, work)
    waiting = jobs.submit("test", "waiting", 3, lambda job: pytest.fail("must not start"))
    assert started.wait(10)
    running.cancel()
    waiting.cancel()
    assert running.cancelling
    gate.set()
    assert wait(running).status == wait(waiting).status == "cancelled"


def test_what_was_cancelled_can_be_submitted_again(jobs):
    started, gate = threading.Event(), threading.Event()

    def work(job):
        started.set()
        gate.wait(10)
        job.advance()

    first = jobs.submit("test", "first", 1, work, key="same")
    waiting = jobs.submit("test", "waiting", 1, lambda job: None, key="other")
    assert started.wait(10)
    first.cancel()
    waiting.cancel()
    assert waiting.status == "cancelled"
    assert waiting.finished.is_set()
    again = [jobs.submit("test", "again", 1, lambda job: None, key=key)
             for key in ("same", "other")]
    assert first not in again
    assert waiting not in again
    gate.set()
    assert [wait(job).status for job in again] == ["done", "done"]
    assert first.status == "cancelled"


def test_failures_are_shown_and_the_queue_goes_on(jobs):
    def fail(error):
        raise error

    bad = jobs.submit("test", "bad", 1, lambda job: fail(RequestError("no such thing")))
    worse = jobs.submit("test", "worse", 1, lambda job: fail(ZeroDivisionError("by zero")))
    good = jobs.submit("test", "good", 1, lambda job: 42)
    assert (wait(bad).status, bad.error) == ("failed", "no such thing")
    assert (wait(worse).status, worse.error) == ("failed", "ZeroDivisionError: by zero")
    assert (wait(good).status, good.result) == ("done", 42)


def test_finished_jobs_are_forgotten_after_a_while(jobs):
    for number in range(80):
        wait(jobs.submit("test", str(number), 1, lambda job: None))
    assert 50 <= len(jobs.jobs()) <= 52
    assert jobs.jobs()[-1].title == "79"


def test_progress_counts_evaluations_and_tells_the_time_left(engine, jobs):
    request = RunRequest(prompt="a cat", num_inference_steps=5, scheduler="heun")
    job = submit_generation(jobs, engine, [request, request.changed(seed=1)])
    assert job.total == 18
    assert wait(job).status == "done", job.error
    assert job.done == 18
    assert job.eta_seconds() == pytest.approx(0)
    assert [run.seed for run in job.result] == [0, 1]
    assert engine.run_log.count() == 2


def test_a_comparison_is_found_in_the_log_while_it_runs(engine, jobs):
    comparison = Comparison.parse(RunRequest(prompt="a cat", num_inference_steps=2), ["seed=0,1"])
    gate = threading.Event()
    jobs.submit("test", "in front", 1, lambda job: gate.wait(10))
    job = submit_comparison(jobs, engine, comparison)
    assert submit_comparison(jobs, engine, comparison) is job
    gate.set()
    assert wait(job).status == "done", job.error
    assert engine.run_log.comparison(job.result).status == "done"
    assert engine.run_log.count(comparison_id=job.result) == 2
    assert job.done == job.total == 4


def test_a_cancelled_comparison_keeps_its_cells(engine, jobs):
    comparison = Comparison.parse(
        RunRequest(prompt="a cat", num_inference_steps=2), ["seed=" + ",".join(map(str, range(60)))]
    )
    job = submit_comparison(jobs, engine, comparison)
    while engine.run_log.count(status="ok") < 2:
        assert job.active
    job.cancel()
    assert wait(job).status == "cancelled"
    assert 2 <= engine.run_log.count(status="ok") < 60


def test_a_cancelled_generation_is_in_the_log(engine, jobs):
    """Side by side: the pictures that were under way."""
    requests = [RunRequest(prompt="a cat", num_inference_steps=500, seed=seed)
                for seed in range(2)]
    job = submit_generation(jobs, engine, requests)
    while job.first_step is None:
        assert job.active
    job.cancel()
    assert wait(job).status == "cancelled"
    assert [run.status for run in engine.run_log.runs()] == ["cancelled"] * 2
