"""Runs that were selected one by one: as a comparison, and in charts."""

import pytest

from pipelines import Comparison, RunRequest
from pipelines.errors import RequestError
from pipelines.from_runs import comparison_of
from pipelines.log_tables import Run
from pipelines.run_charts import ALONE, APART, SHARE, peak_memory, step_times, times_by_nfe
from pipelines.run_log import TimingSummary

BASE = RunRequest(prompt="a red car", num_inference_steps=2)


def run(number, shared=False, status="ok", **changes):
    request = BASE.changed(**changes)
    return Run(datetime_utc="2026-01-01", status=status, model_id="m", task=request.task,
               prompt=request.prompt, negative_prompt="", scheduler=request.scheduler, seed=0,
               num_inference_steps=2, guidance_scale=1.0, request=request.model_dump(mode="json"),
               nfe=2, total_ms=100.0 + number, step_ms=[10.0, 20.0], shared=shared,
               peak_memory_bytes=2**20 * number or None, device="cpu")


def requests(comparison):
    return [cell.request for cell in comparison.cells]


def test_runs_of_a_whole_grid_make_axes_and_others_are_linked():
    grid = [run(1, scheduler=s, seed=n) for s in ("ddim", "euler") for n in (0, 5)]
    comparison = comparison_of(grid)
    assert [axis.name for axis in comparison.axes] == ["scheduler", "seed"]
    assert requests(comparison) == [r.valid_request() for r in grid]
    linked = comparison_of(grid[:3])
    assert [axis.name for axis in linked.axes] == ["scheduler+seed"]
    assert requests(linked) == [r.valid_request() for r in grid[:3]]
    models = [run(1, model_id="a/b", revision="v1"), run(2, model_id="a/b", revision="v2")]
    assert requests(comparison_of(models)) == [r.valid_request() for r in models]
    options = [run(1, scheduler_options={"eta": 1, "use_karras_sigmas": k}) for k in (True, False)]
    assert requests(comparison_of(options)) == [r.valid_request() for r in options]


@pytest.mark.parametrize("changes, message", [
    (({}, {}), "the same"),
    (({}, {"scheduler_options": {"use_karras_sigmas": True}}), "only some of these runs set"),
    (({}, {"task": "image-to-image", "image": "0" * 64, "strength": 0.5}), "no comparison varies"),
])
def test_runs_that_make_no_comparison_say_why(changes, message):
    with pytest.raises(RequestError, match=message):
        comparison_of([run(n, **change) for n, change in enumerate(changes)])


def test_a_comparison_of_chosen_runs_comes_from_the_log(engine):
    runs = [engine.run(BASE.changed(seed=seed), keep_latents=True) for seed in (0, 4)]
    cells = engine.compare(Comparison(*(c := comparison_of(runs)) and (c.base, c.axes)))
    assert [cell.reused_from for cell in cells] == [run.id for run in runs]


def test_charts_show_what_was_measured_and_how():
    runs = [run(1), run(2, shared=True), run(3, status="failed"), run(0)]
    for number, one in enumerate(runs, 1):
        one.id = number
    assert {r["run_id"]: r["how"] for r in step_times(runs)} == {1: ALONE, 2: SHARE, 4: ALONE}
    assert [(r["step"], r["ms"]) for r in step_times(runs[:1])] == [(1, 10.0), (2, 20.0)]
    times = times_by_nfe(runs, {2: TimingSummary(7, 50.0, 40.0, 60.0)})
    assert [(r["run_id"], r["how"], r["ms"], r["repeats"]) for r in times] == [
        (1, ALONE, 101.0, 1), (2, SHARE, 102.0, 1), (2, APART, 50.0, 7), (4, ALONE, 100.0, 1)]
    assert [(r["run_id"], r["mib"], r["what"]) for r in peak_memory(runs)] == [
        (1, 1.0, "the whole process"), (2, 2.0, "the whole process, during a batch")]
