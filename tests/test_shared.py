import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from pipelines import CATALOGUE, Comparison, RunRequest
from pipelines.errors import Cancelled, DeviceMemoryError
from pipelines.models.registry import Registry
from pipelines.painting.generation import generate
from pipelines.painting.resolve import resolve
from pipelines.painting.shared import fits, generate_shared, likely_rows

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
        for scale in (1, 5):  # both are warm
            generate(model, resolve(BASE.changed(guidance_scale=scale), model.info))
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
            assert (ours.latents - theirs.latents).square().mean().sqrt() <= 1e-3
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
    assert [run.axes for run in runs] == [cell.axes for cell in comparison.cells]
    assert len({run.noise_sha256 for run in runs}) == 1
    assert not engine.run(BASE).shared


def test_cells_that_cannot_share_run_alone(engine, picture):
    mask = engine.pictures.put(Image.linear_gradient("L").resize((64, 64)))
    base = BASE.changed(task="inpainting", image=picture, mask_image=mask, strength=0.5)
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


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    root = tmp_path_factory.mktemp("shared")
    for name in ("sd", "sdxl", "lcm"):
        tiny.build(name).save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def family_registry():
    return Registry("cpu")


PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")


@pytest.mark.parametrize("task", ["text-to-image", "image-to-image"])
@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_families_and_image_to_image_share_with_the_plain_pictures(
    families, family_registry, name, task
):
    images = {"image": PICTURE} if task == "image-to-image" else {}
    base = RunRequest(model_id=str(families / name), prompt="a cat", task=task, height=64,
                      width=64, num_inference_steps=5, image="0" * 64 if images else None)
    with family_registry.borrow(base.model_id) as (model, _):
        requests = [
            resolve(base.changed(**values), model.info)
            for values in (
                {"scheduler": "ddim", "guidance_scale": 1}, {"scheduler": "ddim"},
                {"scheduler": "ddim", "seed": 4, "negative_prompt": "a dog"},
                {"scheduler": "heun", "guidance_rescale": 0.5}, {"scheduler": "euler_a"},
                {"scheduler": "dpmpp_2m", "strength": 0.5 if images else 1.0},
                {"scheduler": "unipc"}, {"scheduler": "pndm"},
            )
        ]  # fmt: skip
        assert all(fits(model, request) for request in requests)
        plain = [generate(model, request, images) for request in requests]
        for ours, theirs in zip(shared(model, requests, images=images), plain, strict=True):
            assert difference(ours, theirs) <= 2, ours.request.scheduler
            assert ours.noise_sha256 == theirs.noise_sha256
            assert ours.nfe == theirs.nfe
            assert torch.allclose(ours.latents, theirs.latents, atol=1e-3)


def test_a_comparison_of_strengths_shares(engine, picture):
    base = BASE.changed(task="image-to-image", image=picture, num_inference_steps=4)
    comparison = Comparison.parse(base, ["strength=0.5,1", "guidance_scale=1,5"])
    runs = engine.compare(comparison, shared=True)
    assert all(run.status == "ok" and run.shared for run in runs), [run.error for run in runs]
    assert [run.nfe for run in runs] == [2, 2, 4, 4]
    alone = engine.run(RunRequest(**runs[1].request))
    ours, theirs = (np.asarray(engine.pictures.get(run.image_sha256)).astype(int)
                    for run in (runs[1], alone))
    assert np.abs(ours - theirs).max() <= 2


def test_an_embedded_guidance_scale_does_not_share(families, family_registry):
    with family_registry.borrow(str(families / "lcm")) as (model, _):
        assert not fits(model, RunRequest())


def test_rows_are_halved_until_they_fit(model):
    base = resolve(BASE.changed(num_inference_steps=2), model.info)
    requests = [base.changed(seed=seed) for seed in range(6)]
    seen = []

    def limited(_, args):
        seen.append(len(args[0]))
        if len(args[0]) > limit:
            raise torch.OutOfMemoryError("out of memory")

    try:
        for limit, rows in ((5, 3), (1, 2)):
            seen.clear()
            hook = model.pipe.unet.register_forward_pre_hook(limited)
            try:
                if limit > 1:
                    pictures = shared(model, requests, max_rows=12)
                    assert max(seen[-4:]) <= limit
                    assert model.shared_rows == rows
                else:
                    with pytest.raises(DeviceMemoryError, match="does not fit"):
                        shared(model, requests)
            finally:
                hook.remove()
        plain = [generate(model, request) for request in requests]
        assert all(difference(*pair) <= 2 for pair in zip(pictures, plain, strict=True))
    finally:
        model.shared_rows = None


def test_likely_rows_shrink_with_the_picture(model):
    small, large = (resolve(BASE.changed(height=side, width=side), model.info)
                    for side in (64, 4096))
    assert likely_rows(model, small) == 32
    assert 2 <= likely_rows(model, large) < 32
