import numpy as np
import pytest

from pipelines import CATALOGUE, Comparison, RunRequest
from pipelines.errors import Cancelled
from pipelines.generation import generate, resolve
from pipelines.shared import generate_shared

FITTING = [info.key for info in CATALOGUE if not info.flow_matching]
BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=6)


def shared(model, requests, **options):
    results = {}
    generate_shared(model, requests, lambda number, result: results.update({number: result}),
                    **options)
    return [results[number] for number in range(len(requests))]


def difference(one, other):
    return np.abs(np.asarray(one.image).astype(int) - np.asarray(other.image).astype(int)).max()


def unet_rows(model, work):
    """The rows that the UNet computes during `work()`."""
    rows = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        work()
    finally:
        hook.remove()
    return sum(rows)


@pytest.fixture
def model(session_engine):
    with session_engine.registry.borrow("postcards") as (model, _):
        generate(model, resolve(BASE, model.info))
        yield model


@pytest.mark.parametrize("scheduler", FITTING)
def test_pictures_are_those_of_the_plain_pipeline(model, scheduler):
    """Three guidance scales, two seeds, two prompts, in one batch and in batches of three rows."""
    base = resolve(BASE.changed(scheduler=scheduler), model.info)
    requests = [
        base.changed(guidance_scale=1), base.changed(guidance_scale=5, seed=1),
        base.changed(guidance_scale=9, prompt="a cat", negative_prompt="snow"),
        base.changed(guidance_scale=5, guidance_rescale=0.7),
    ]  # fmt: skip
    plain = [generate(model, request) for request in requests]
    for max_rows in (64, 3):
        for ours, theirs in zip(shared(model, requests, max_rows=max_rows), plain, strict=True):
            assert difference(ours, theirs) <= 2
            assert ours.noise_sha256 == theirs.noise_sha256
            assert (ours.nfe, ours.denoiser_rows) == (theirs.nfe, theirs.denoiser_rows)
            assert ours.shared
            assert not theirs.shared


def test_mixed_schedulers_steps_and_eta_in_one_batch(model):
    requests = [
        resolve(BASE.changed(**values), model.info)
        for values in (
            {"scheduler": "ddim", "num_inference_steps": 3}, {"scheduler": "ddim", "eta": 1.0},
            {"scheduler": "heun"}, {"scheduler": "euler_a", "seed": 4}, {"scheduler": "lcm"},
            {"scheduler": "dpmpp_2m", "scheduler_options": {"use_karras_sigmas": True}},
        )
    ]  # fmt: skip
    plain = [generate(model, request) for request in requests]
    for ours, theirs in zip(shared(model, requests), plain, strict=True):
        assert difference(ours, theirs) <= 2, ours.request.scheduler


def test_equal_first_evaluations_are_computed_once(model):
    """Three guidance scales from one noise: 2 first rows for all, then 1 + 2 + 2 a step."""
    base = resolve(BASE.changed(scheduler="ddim"), model.info)
    requests = [base.changed(guidance_scale=scale) for scale in (1, 3, 7)]
    assert unet_rows(model, lambda: shared(model, requests)) == 2 + 5 * 5
    assert unet_rows(model, lambda: shared(model, requests, max_rows=2)) == 2 + 5 * 5


def test_a_cell_that_diverges_leaves_the_others(model):
    bad = {"solver_type": "bh1", "final_sigmas_type": "zero"}
    requests = [resolve(BASE.changed(scheduler="unipc", scheduler_options=options), model.info)
                for options in ({}, bad)]
    good, failed = shared(model, requests)
    assert good.image.size == (good.request.width, good.request.height)
    assert "not finite" in str(failed)


def test_a_shared_comparison_is_logged_and_marked(engine):
    comparison = Comparison.parse(BASE, ["scheduler=ddim,euler", "guidance_scale=1,5"])
    seen = []
    runs = engine.compare(comparison, on_cell=lambda number, run: seen.append(number),
                          shared=True)
    assert sorted(seen) == [0, 1, 2, 3]
    assert all(run.status == "ok" and run.shared and run.total_ms > 0 for run in runs)
    assert [run.axes for run in runs] == [cell.axes for cell in comparison.cells()]
    assert len({run.noise_sha256 for run in runs}) == 1
    assert not engine.run(BASE).shared


def test_cells_that_cannot_share_run_alone(engine, picture):
    base = BASE.changed(task="image-to-image", image=picture, strength=0.5)
    runs = engine.compare(Comparison.parse(base, ["seed=0,1"]), shared=True)
    assert [(run.status, run.shared) for run in runs] == [("ok", False)] * 2


def test_a_bad_cell_in_a_shared_comparison_shows_its_error(engine):
    runs = engine.compare(Comparison.parse(BASE, ["height=64,60", "seed=0,1"]), shared=True)
    assert [run.status for run in runs] == ["ok", "ok", "failed", "failed"]


def test_cancel_in_a_shared_batch(engine):
    def stop(_number, _step):
        raise Cancelled("stopped")

    comparison = Comparison.parse(BASE, ["seed=0,1,2"])
    runs = engine.compare(comparison, stop, comparison_id="c", shared=True)
    assert runs == [None] * 3
    assert engine.run_log.comparison("c").status == "cancelled"
