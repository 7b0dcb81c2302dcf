"""Scheduler classes of diffusers by name, that the catalogue does not have."""

import json

import pytest

from pipelines import Comparison, RequestError, RunRequest
from pipelines.analysis import is_stochastic, nominal_order
from pipelines.axes import label
from pipelines.laboratory.classes import check_class
from pipelines.schedulers import expected_evaluations, known_scheduler, scheduler_info

DIFFUSION = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
             "beta_schedule": "scaled_linear", "_class_name": "DDIMScheduler"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
BASE = RunRequest(prompt="a red car", num_inference_steps=3, guidance_scale=3, seed=2)


@pytest.fixture(scope="module")
def runs(session_engine):
    keys = ("ddim", "class:DDIMScheduler", "class:DDIMParallelScheduler",
            "class:DDPMParallelScheduler", "class:HeunDiscreteScheduler")
    comparison = Comparison.parse(BASE, [f"scheduler={','.join(keys)}"])
    return dict(zip(keys, session_engine.compare(comparison, shared=True), strict=True))


def test_a_class_runs_in_a_comparison_as_its_entry_does(runs, session_engine):
    assert not any(run.error for run in runs.values())
    same = {runs[key].latents_sha256 for key in list(runs)[:3]}
    pictures = {runs[key].image_sha256 for key in list(runs)[:3]}
    assert len(pictures) == 1 and len(same) == 1
    assert runs["class:DDPMParallelScheduler"].image_sha256 not in pictures
    assert len({run.noise_sha256 for run in runs.values()}) == 1
    for key, run in runs.items():
        assert run.scheduler == key and run.nfe == expected_evaluations(key, 3), key


def test_what_is_known_of_a_class():
    heun = scheduler_info("class:HeunDiscreteScheduler")
    assert (heun.label, heun.order, heun.evaluations_per_step) == ("HeunDiscreteScheduler", 2, 2)
    assert not scheduler_info("class:DPMSolverMultistepScheduler").options
    assert is_stochastic(BASE.changed(scheduler="class:DDPMParallelScheduler"))
    assert nominal_order(BASE.changed(scheduler="class:SomeNewScheduler")) is None
    assert label("scheduler", "class:DDIMParallelScheduler") == "DDIMParallelScheduler"
    assert known_scheduler("class:../x") is None and known_scheduler("clas:X") is None
    with pytest.raises(RequestError, match="or class:NAME"):
        RunRequest(scheduler="DDIMScheduler")


@pytest.mark.parametrize(("name", "config", "told"), [
    ("NoSuchScheduler", DIFFUSION, "no scheduler class of diffusers"),
    ("DDIMInverseScheduler", DIFFUSION, "timesteps rise"),
    ("EDMEulerScheduler", DIFFUSION, "EDM's preconditioning"),
    ("FlowMatchEulerDiscreteScheduler", DIFFUSION, "for models of flow matching"),
    ("EulerDiscreteScheduler", FLOW, "for models of diffusion"),
    ("CogVideoXDPMScheduler", DIFFUSION, "cannot run as pipelines do it"),
    ("AmusedScheduler", DIFFUSION, "mask_token_id"),
    ("ScoreSdeVeScheduler", DIFFUSION, "a way of its own")])
def test_a_class_that_cannot_run_is_refused_with_a_reason(name, config, told):
    with pytest.raises(RequestError, match=told):
        check_class(f"class:{name}", config, {})


def test_options_of_a_class_are_checked_and_act(session_engine, monkeypatch):
    request = BASE.changed(scheduler="class:EulerDiscreteScheduler")
    session_engine.check(request.changed(scheduler_options={"use_karras_sigmas": True}))
    with pytest.raises(RequestError, match="EulerDiscreteScheduler knows no solver_order"):
        session_engine.check(request.changed(scheduler_options={"solver_order": 2}))
    # A solver that stays where it is does not lead to the data.
    monkeypatch.setattr("diffusers.EulerDiscreteScheduler.step",
                        lambda self, output, timestep, sample, **_: (sample,))
    with pytest.raises(RequestError, match="does not lead to the data"):
        check_class("class:EulerDiscreteScheduler", {**DIFFUSION, "steps_offset": 1}, {})


def test_the_command_line_takes_a_class(run):
    code, out, _ = run("generate", "a red car", "--scheduler", "class:CogVideoXDDIMScheduler",
                       "--num-inference-steps", "2", "--json")
    assert code == 0 and json.loads(out)["nfe"] == 2
    code, _, err = run("generate", "a red car", "--scheduler", "class:UnCLIPScheduler")
    assert code == 2 and "squaredcos_cap_v2" in err
