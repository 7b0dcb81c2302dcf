"""Starting in the middle of a schedule: near strength 0 a picture stays as it is."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import CATALOGUE, Comparison, RunRequest
from pipelines.models.registry import Registry
from pipelines.painting.call import set_scheduler
from pipelines.schedulers import make_scheduler, scheduler_info

KEYS = [info.key for info in CATALOGUE if not info.flow_matching]
MULTISTEP = [info.key for info in CATALOGUE if not info.flow_matching and info.order > 1
             and info.evaluations_per_step == 1]
STRENGTHS = (0.1, 0.3, 0.5)
NEAR = 35.0  # dB to the picture at strength 0.1, which no scheduler of the catalogue falls below


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.square(first - second).mean())


def distances(engine, task, keys):
    """(scheduler, strength) -> PSNR to the picture that it started from, and the run's calls."""
    made = engine.run(RunRequest(prompt="a red car on a road", num_inference_steps=20))
    pictures = {"image": made.image_sha256}
    if task == "inpainting":
        pictures["mask_image"] = engine.pictures.put(Image.new("L", (64, 64), 255))
    base = RunRequest(prompt="a red car on a road", task=task, num_inference_steps=10, **pictures)
    comparison = Comparison.parse(base, [f"scheduler={','.join(keys)}",
                                         f"strength={','.join(map(str, STRENGTHS))}"])
    runs = engine.compare(comparison, shared=True)
    before = np.asarray(engine.pictures.get(made.image_sha256)).astype(float)
    found = {}
    for cell, run in zip(comparison.cells, runs, strict=True):
        assert run.status == "ok", (cell.axes, run.error)
        after = np.asarray(engine.pictures.get(run.image_sha256)).astype(float)
        found[tuple(cell.axes.values())] = psnr(before, after), run.nfe
    return found


@pytest.fixture(scope="module")
def from_a_picture(session_engine):
    return distances(session_engine, "image-to-image", KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_low_strength_gives_about_the_picture(from_a_picture, key):
    near, middle, far = (from_a_picture[key, strength][0] for strength in STRENGTHS)
    assert near > NEAR
    assert near > middle > far > 25


@pytest.mark.parametrize("key", KEYS)
def test_evaluations_of_a_run_from_the_middle_are_as_said(from_a_picture, key):
    for strength, steps in zip(STRENGTHS, (1, 3, 5), strict=True):
        assert from_a_picture[key, strength][1] == scheduler_info(key).evaluations(steps), strength


def test_inpainting_from_the_middle_does_the_same(session_engine, from_a_picture):
    """With a white mask; solvers that go by the steps before."""
    inpainted = distances(session_engine, "inpainting", MULTISTEP)
    for place, (near, calls) in inpainted.items():
        assert near == pytest.approx(from_a_picture[place][0], abs=2), place
        assert calls == from_a_picture[place][1], place


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("prk", [True, False], ids=["runge-kutta", "plain"])
def test_pndm_lists_the_timesteps_of_a_whole_run_from_there(session_engine, strength, prk):
    with session_engine.registry.borrow("postcards") as (model, _):
        pipe = model.view("image-to-image")
        config = {**model.info.original_scheduler_config, "skip_prk_steps": not prk}
        scheduler = make_scheduler("pndm", config)
        set_scheduler(pipe, scheduler)
        scheduler.set_timesteps(10)
        whole, steps = scheduler.timesteps.tolist(), round(10 * strength)
        timesteps = pipe.get_timesteps(10, strength, "cpu")[0].tolist()
    if strength == 1:
        assert timesteps == whole
        return
    distinct = sorted(set(timesteps))
    assert distinct == [min(whole) + 100 * number for number in range(steps)]
    assert timesteps == sorted([*distinct, *distinct[-2:-1]], reverse=True)


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("key", [info.key for info in CATALOGUE if info.flow_matching])
def test_flow_solvers_from_the_middle_reach_what_the_model_means(tiny_folder, key, strength):
    """With a velocity that always points to the same latents, a solver ends there."""
    with Registry("cpu").borrow(str(tiny_folder("sd3"))) as (model, _):
        pipe = model.view("image-to-image")
        scheduler = make_scheduler(key, model.info.original_scheduler_config)
        set_scheduler(pipe, scheduler)
        scheduler.set_timesteps(10)
        timesteps, _ = pipe.get_timesteps(10, strength, "cpu")
    target, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.manual_seed(0))
    sample = scheduler.scale_noise(target, timesteps[:1], noise)
    assert sample.sub(target).std() > 0.005
    for timestep in timesteps:
        velocity = (sample - target) / (timestep / 1000)
        sample = scheduler.step(velocity, timestep, sample).prev_sample
    assert torch.allclose(sample, target, atol=1e-4)
