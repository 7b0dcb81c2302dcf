import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pipelines import RunRequest
from pipelines.errors import Cancelled
from pipelines.models.files import BUNDLED
from pipelines.painting.noise import make_generator, noise_sha256
from pipelines.schedulers import make_scheduler

# The seed's noise on every machine: torch's CPU generator, 1x4x16x16, float32.
SEED_0 = "6b3ba07d03f3054a7d498622b2919e5327e8ad8eb73ea49bb5d9d84bde9ba85b"


def pixels(engine, run):
    assert run.status == "ok", run.error
    return np.asarray(engine.pictures.get(run.image_sha256)).astype(int)


def test_the_same_seed_repeats_and_another_differs(engine, request_):
    first, again, other = (
        engine.run(request_.changed(seed=seed, scheduler="euler_a")) for seed in (1, 1, 2)
    )
    assert first.image_sha256 == again.image_sha256 != other.image_sha256


def test_noise_of_a_seed_is_the_same_on_every_machine(engine, request_):
    assert noise_sha256(torch.randn((1, 4, 16, 16), generator=make_generator(0))) == SEED_0
    assert engine.run(request_.changed(seed=0)).noise_sha256 == SEED_0


@pytest.fixture(scope="module")
def plain_pipe():
    from diffusers import AutoPipelineForText2Image

    return AutoPipelineForText2Image.from_pretrained(BUNDLED["postcards"], use_safetensors=True)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "euler_a", "dpmpp_2m_sde", "ddpm", "lms",
                                       "pndm"])
def test_picture_is_the_plain_pipelines(engine, request_, plain_pipe, scheduler):
    """What diffusers makes with one CPU generator of that seed, stochastic schedulers included."""
    run = engine.run(request_.changed(scheduler=scheduler))
    config = engine.registry.describe("postcards").original_scheduler_config
    plain_pipe.scheduler = make_scheduler(scheduler, config)
    plain = plain_pipe(
        request_.prompt, num_inference_steps=4, guidance_scale=request_.guidance_scale,
        generator=make_generator(request_.seed),
    ).images[0]  # fmt: skip
    assert np.abs(pixels(engine, run) - np.asarray(plain).astype(int)).max() <= 1


def test_several_seeds_in_one_batch_equal_singles(engine, request_):
    """One generator per picture, so that company cannot change a picture."""
    singles = [pixels(engine, engine.run(request_.changed(seed=seed))) for seed in (4, 5)]
    with engine.registry.borrow("postcards") as (model, _):
        pipe = model.view("text-to-image")
        pipe.scheduler = make_scheduler("dpmpp_2m", model.info.original_scheduler_config)
        batch = pipe(
            [request_.prompt] * 2, num_inference_steps=4, guidance_scale=request_.guidance_scale,
            generator=[make_generator(seed) for seed in (4, 5)],
        ).images  # fmt: skip
    for single, picture in zip(singles, batch, strict=True):
        assert np.abs(single - np.asarray(picture).astype(int)).max() <= 1


def test_counts_and_timings(engine, request_):
    engine.run(request_)
    run = engine.run(request_)
    assert run.nfe == 4
    assert run.denoiser_rows == 8
    assert engine.run(request_.changed(guidance_scale=1)).denoiser_rows == 4
    assert len(run.step_ms) == 4
    assert sum(run.step_ms) == pytest.approx(run.denoising_ms, rel=1e-3)
    parts = run.text_encoding_ms + run.denoising_ms + run.decoding_ms
    assert min(run.text_encoding_ms, run.decoding_ms) > 0
    assert 0.5 * run.total_ms < parts <= run.total_ms
    assert run.peak_memory_bytes > 50e6
    assert run.environment["torch"] == torch.__version__


def test_warm_up_is_paid_once_per_shape_and_apart(engine, request_):
    odd = request_.changed(height=72, width=104)
    first, second = engine.run(odd), engine.run(odd)
    assert first.warm_up_ms > 0
    assert second.warm_up_ms == 0
    assert first.nfe == second.nfe == 4
    assert first.image_sha256 == second.image_sha256


def test_previews_show_the_picture_coming(engine, request_):
    """The predicted x0 approaches the result, for samples in either convention of scale."""
    for scheduler in ("ddim", "euler", "heun"):
        previews = []
        run = engine.run(
            request_.changed(scheduler=scheduler, num_inference_steps=12),
            lambda step, previews=previews: previews.append(np.asarray(step.preview()).astype(int)),
        )
        final = pixels(engine, run)
        distances = [np.abs(preview - final).mean() for preview in previews]
        assert distances[-1] < 3, scheduler
        assert distances[0] > 3 * distances[-1], scheduler


def test_previews_are_left_out_of_the_timings(engine, request_):
    engine.run(request_)
    spent = 0.0

    def look(step):
        nonlocal spent
        start = time.perf_counter()
        for _ in range(20):
            step.preview()
        spent += time.perf_counter() - start

    start = time.perf_counter()
    run = engine.run(request_, look)
    elapsed = time.perf_counter() - start
    assert 0 < run.total_ms < 1000 * (elapsed - spent)
    assert sum(run.step_ms) < 1000 * (elapsed - spent)


def test_cancel_stops_between_steps_and_is_logged(engine, request_):
    seen = []

    def stop(step):
        seen.append(step.index)
        if step.index == 2:
            raise Cancelled("stopped")

    run = engine.run(request_, stop)
    assert seen == [1, 2]
    assert run.status == "cancelled"
    assert engine.run(request_).status == "ok"


def test_values_that_are_not_finite_are_an_error(engine, request_):
    options = {"solver_type": "bh1", "final_sigmas_type": "zero"}
    run = engine.run(request_.changed(scheduler="unipc", scheduler_options=options))
    assert run.status == "failed"
    assert "UniPC" in run.error
    assert "not finite" in run.error


def test_size_must_fit_the_model(engine, request_):
    run = engine.run(request_.changed(height=60))
    assert run.status == "failed"
    assert "60" in run.error
    assert "56 and 64" in run.error


def test_out_of_memory_is_named_and_the_next_run_works(engine, request_):
    with engine.registry.borrow("postcards") as (model, _):
        unet = model.view("text-to-image").unet

    def refuse(*_):
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    hook = unet.register_forward_pre_hook(refuse)
    try:
        run = engine.run(request_)
    finally:
        hook.remove()
    assert run.status == "failed"
    assert "64 x 64 px does not fit" in run.error
    assert engine.run(request_).status == "ok"


@pytest.mark.parametrize(("strength", "steps"), [(0.1, 1), (0.5, 5), (1.0, 10)])
def test_strength_decides_how_many_steps_run(engine, picture, strength, steps):
    request = RunRequest(prompt="a cat", task="image-to-image", image=picture, scheduler="ddim",
                         num_inference_steps=10, strength=strength)
    assert engine.run(request).nfe == steps


def test_white_mask_pixels_are_repainted_and_black_ones_kept(engine, picture):
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 63), fill=255)
    request = RunRequest(
        prompt="a green tree in the snow by day", task="inpainting", image=picture,
        mask_image=engine.pictures.put(mask), num_inference_steps=8, scheduler="ddim",
    )  # fmt: skip
    run = engine.run(request)
    before = np.asarray(engine.pictures.get(picture)).astype(int)
    change = np.abs(pixels(engine, run) - before).mean(axis=(0, 2))
    assert change[36:].mean() > 3 * change[:28].mean()
    assert run.noise_sha256


def test_noise_is_equal_for_tasks_that_start_from_a_picture(engine, picture):
    base = RunRequest(prompt="a cat", task="image-to-image", image=picture, strength=0.5,
                      num_inference_steps=4)
    runs = [engine.run(base.changed(scheduler=key)) for key in ("ddim", "euler", "unipc")]
    assert len({run.noise_sha256 for run in runs}) == 1
    assert runs[0].noise_sha256


def test_two_threads_on_one_model_make_what_one_makes(engine, request_):
    requests = [request_.changed(scheduler=key) for key in ("ddim", "euler", "dpmpp_2m", "heun")]
    alone = [engine.run(request).image_sha256 for request in requests]
    together: dict[int, str] = {}

    def work(numbers):
        for number in numbers:
            together[number] = engine.run(requests[number]).image_sha256

    threads = [threading.Thread(target=work, args=(n,)) for n in ([0, 1], [2, 3], [3, 2], [1, 0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[n] for n in range(4)] == alone


def test_what_has_no_effect_is_said(engine, request_):
    long = "a red car " + "on a road " * 20 + "by the zebra"
    run = engine.run(request_.changed(prompt=long, negative_prompt="clouds", guidance_scale=1,
                                      scheduler="euler", eta=0.5))
    assert run.status == "ok"
    assert len(run.notes) == 3
    assert "zebra" in run.notes[0]
    assert "negative_prompt" in run.notes[1]
    assert "EulerDiscreteScheduler knows none" in run.notes[2]
    assert engine.run(request_.changed(scheduler="ddim", eta=0.5)).notes == []
