"""Noise schedules of a run: those of the literature, followed or refused, an axis like others."""

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from diffusers.schedulers import AysSchedules

from pipelines import Comparison, RequestError, RunRequest
from pipelines.measuring import converged_request
from pipelines.painting.resolve import resolve
from pipelines.schedulers import make_scheduler
from pipelines.sigma_schedules import SigmaSchedule, follow, levels_of, request_sigmas

LOW, HIGH = 0.0291675, 14.6146
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
EXACT = RunRequest(model_id="exact-latents", scheduler="euler", num_inference_steps=8)


def levels(text, steps=10):
    return SigmaSchedule.parse(text).levels(steps, LOW, HIGH, flow=False)


@pytest.mark.parametrize(("text", "convert"), [
    ("karras", "_convert_to_karras"), ("exponential", "_convert_to_exponential"),
    ("beta", "_convert_to_beta"),
])
def test_a_schedule_is_that_of_diffusers(text, convert):
    expected = getattr(EulerDiscreteScheduler(), convert)(torch.tensor([HIGH, LOW]), 10)
    np.testing.assert_allclose(levels(text), np.asarray(expected), rtol=1e-5)


def test_the_others_are_those_of_their_papers():
    np.testing.assert_allclose(np.array(levels("linear-quadratic")) / HIGH,
                               linear_quadratic_schedule(10, 0.025), atol=1e-6)
    np.testing.assert_allclose(levels("ays"), AysSchedules["StableDiffusionSigmas"][:-1], rtol=1e-3)
    assert len(levels("ays-xl", 25)) == 25
    steeper = levels("karras:3")
    assert steeper[5] > levels("karras")[5] > levels("exponential")[5]
    for text in ("karras:2", "exponential", "beta:1:1", "linear-quadratic:0.1"):
        for steps in (1, 2, 3, 7):
            fallen = levels(text, steps)
            assert fallen[0] == pytest.approx(HIGH) and sorted(fallen, reverse=True) == fallen


@pytest.mark.parametrize(("text", "usual"), [
    ("karras:7", "karras"), ("karras:5.0", "karras:5"), ("beta:0.6", "beta"),
    ("sigmas:14, 5,1 0", "sigmas:14 5 1"), ("timesteps:999 0", "timesteps:999 0"),
])
def test_a_schedule_has_one_way_to_be_written(text, usual):
    assert RunRequest(sigma_schedule=text).sigma_schedule == usual
    assert RunRequest(sigma_schedule=usual).sigma_schedule == usual


@pytest.mark.parametrize("text", [
    "cosine", "karras:0", "karras:x", "karras:7:7", "beta:-1", "sigmas:", "sigmas:1 2", "sigmas:0",
    "sigmas:nan", "sigmas:inf 1", "timesteps:10 10", "timesteps:5 -1", "default:1", "",
])
def test_other_texts_are_refused(text):
    with pytest.raises(RequestError, match="sigma_schedule: received .*, accepted "):
        RunRequest(sigma_schedule=text)


def followed(key, text, config=None, steps=8, **options):
    scheduler = make_scheduler(key, config or {"beta_schedule": "scaled_linear",
                                               "beta_start": 0.00085, "beta_end": 0.012}, options)
    follow(scheduler, text)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize(("key", "text", "message"), [
    ("ddim", "karras", "DDIMScheduler takes neither sigmas nor timesteps"),
    ("unipc", "karras", "UniPCMultistepScheduler refuses: Passing `sigmas` is only supported"),
    ("dpmpp_2m_karras", "ays", "DPMSolverMultistepScheduler refuses: Cannot use `timesteps`"),
    ("dpmpp_2m", "exponential", "some of the 200 of 'exponential' are the same"),
    ("euler", "sigmas:20 1", "received the sigma 20, accepted from 0.02917 to 14.61"),
    ("euler", "timesteps:1000 1", "received the timestep 1000, accepted up to 999"),
])
def test_what_a_scheduler_cannot_follow_is_refused(key, text, message):
    with pytest.raises(RequestError, match=message):
        followed(key, text, steps=200)


def test_flow_matching_takes_the_levels_as_they_are_asked_for():
    for key in ("flow_euler", "flow_lcm"):
        scheduler = followed(key, "sigmas:1 0.8 0.3", FLOW)
        assert scheduler.sigmas.tolist() == pytest.approx([1, 0.8, 0.3, 0])
        assert scheduler.timesteps.tolist() == pytest.approx([1000, 800, 300])
    assert levels_of(followed("flow_euler", "karras", FLOW))[-1] == pytest.approx(0.001)
    with pytest.raises(RequestError, match="this model is of flow matching"):
        followed("flow_euler", "ays", FLOW)
    # As a pipeline calls it that has sigmas of its own.
    scheduler = make_scheduler("flow_euler", {**FLOW, "use_dynamic_shifting": True})
    follow(scheduler, "exponential")
    scheduler.set_timesteps(sigmas=np.linspace(1, 0.25, 4), mu=0.7)
    np.testing.assert_allclose(scheduler.sigmas[:-1], np.geomspace(1, 0.001, 4), rtol=1e-4)
    assert isinstance(scheduler, FlowMatchEulerDiscreteScheduler)


def test_a_followed_schedule_makes_the_picture_of_the_scheduler_that_has_it(engine):
    by_schedule = engine.run(EXACT.changed(sigma_schedule="karras"), keep_latents=True)
    by_option = engine.run(EXACT.changed(scheduler="euler_karras"), keep_latents=True)
    both = [engine.latents.get(run.latents_sha256) for run in (by_schedule, by_option)]
    torch.testing.assert_close(*both, atol=2e-4, rtol=0)
    plain = engine.run(EXACT, keep_latents=True)
    assert (engine.latents.get(plain.latents_sha256) - both[0]).abs().max() > 0.01


def test_a_schedule_is_an_axis(engine):
    comparison = Comparison.parse(EXACT, [
        "sigma_schedule=default,karras:3,ays,sigmas:14 5 1 0.2", "scheduler=euler,dpmpp_2m"])
    runs = engine.compare(comparison, shared=True)
    assert {run.status for run in runs} == {"ok"}, [run.error for run in runs]
    assert len({run.noise_sha256 for run in runs}) == 1
    assert len({run.latents_sha256 for run in runs}) == len(runs)
    assert [run.nfe for run in runs] == [8] * 6 + [4] * 2
    assert runs[-1].num_inference_steps == 4
    assert "num_inference_steps: 4, as many as sigma_schedule lists" in runs[-1].notes
    assert not any("differ" in note for run in runs[::2] for note in run.notes)
    assert any("takes whole timesteps; its sigmas differ from those of karras:3" in note
               for note in runs[3].notes)


def test_the_sigmas_of_a_request_are_told_before_it_runs(engine):
    info = engine.registry.describe("postcards")
    for fields, first, last, count in (
        ({"scheduler": "ddim"}, HIGH, 0.693, 4), ({"scheduler": "heun"}, HIGH, 0.693, 4),
        ({"scheduler": "euler", "sigma_schedule": "karras"}, HIGH, LOW, 4),
        ({"scheduler": "euler", "sigma_schedule": "sigmas:9 0.5"}, 9, 0.5, 2),
    ):
        request = resolve(RunRequest(num_inference_steps=4, **fields), info)
        sigmas = request_sigmas(request, info.original_scheduler_config)
        assert len(sigmas) == count
        assert sigmas[0] == pytest.approx(first, rel=0.01)
        assert sigmas[-1] == pytest.approx(last, rel=0.01)


def test_postcards_follow_a_schedule_and_say_what_they_cannot(engine):
    request = RunRequest(prompt="a red car", scheduler="heun", sigma_schedule="ays",
                         num_inference_steps=3)
    run = engine.run(request)
    assert run.status == "ok" and run.nfe == 5
    failed = engine.run(request.changed(scheduler="pndm"))
    assert "PNDMScheduler takes neither sigmas nor timesteps" in failed.error
    with pytest.raises(RequestError, match="PNDM"):
        engine.check(request.changed(scheduler="pndm"))
    assert converged_request(run.valid_request()).sigma_schedule == "default"
