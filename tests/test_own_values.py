"""What a request leaves out is the model's own, filled in when it runs."""

import pytest

from pipelines import Comparison, RequestError, RunRequest
from pipelines.comparison import forecast
from pipelines.sheet.draw import subtitle

BASE = RunRequest(prompt="a cat", height=64, width=64)


@pytest.fixture
def turbo(tiny_folder):
    return str(tiny_folder("sdxl_turbo"))


def test_a_distilled_model_runs_its_own_few_steps_without_guidance(engine, turbo):
    run = engine.run(BASE.changed(model_id=turbo))
    assert run.status == "ok", run.error
    assert (run.num_inference_steps, run.guidance_scale, run.nfe) == (4, 0.0, 4)
    assert run.request["num_inference_steps"] == 4  # the row says what ran, for good
    assert run.denoiser_rows == 4


def test_each_model_of_an_axis_runs_its_own(engine, turbo):
    comparison = Comparison.parse(BASE, [f"model_id={turbo},postcards"])
    forecasted = forecast([cell.request for cell in comparison.cells], engine.run_log,
                          engine.registry)
    runs = engine.compare(comparison)
    assert [(run.num_inference_steps, run.guidance_scale) for run in runs] == [(4, 0.0), (20, 5.0)]
    assert forecasted.nfe == 24 == sum(run.nfe for run in runs)
    assert "num_inference_steps the model's own" in subtitle(comparison, runs)
    assert engine.in_log(comparison) == [0, 1]
    one = Comparison.parse(BASE, ["seed=0,1"])
    assert "num_inference_steps the model's own" in subtitle(one, [])
    assert "num_inference_steps 20" in subtitle(one, runs[1:])


def test_left_out_and_written_out_are_the_same_picture(engine):
    explicit = BASE.changed(num_inference_steps=20, guidance_scale=5.0)
    assert engine.identity(BASE) == engine.identity(explicit)
    assert engine.check(BASE).num_inference_steps == 20


def test_a_stage_with_another_model_starts_at_its_own(engine, turbo):
    first = BASE.changed(num_inference_steps=2, guidance_scale=3)
    one, two = engine.chain(first, [{"model_id": turbo, "strength": 1}])
    assert (one.num_inference_steps, two.num_inference_steps, two.guidance_scale) == (2, 4, 0.0)


def test_too_small_a_strength_of_the_models_own_steps_is_refused(engine, picture):
    request = RunRequest(prompt="a cat", task="image-to-image", image=picture, strength=0.04)
    with pytest.raises(RequestError, match=r"20 steps leaves no step.*at least 0\.05"):
        engine.check(request)


@pytest.mark.parametrize(("values", "steps"), [({"model_id": "no/such-model"}, 0),
                                               ({"height": 12}, 20)])
def test_a_run_that_fails_early_is_a_row_all_the_same(engine, values, steps):
    run = engine.run(BASE.changed(**values))
    assert (run.status, run.num_inference_steps) == ("failed", steps)
    assert engine.registry.steps_to_run(BASE.changed(**values)) == steps
