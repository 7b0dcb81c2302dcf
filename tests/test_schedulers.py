import pytest
import torch

from pipelines import CATALOGUE, RequestError, RunRequest
from pipelines.painting.noise import make_generator
from pipelines.schedulers import (
    accepted_options,
    compatible_schedulers,
    make_scheduler,
    own_scheduler,
    scheduler_class,
)

FITTING = [info for info in CATALOGUE if not info.flow_matching]
KEYS = [info.key for info in FITTING]


def original_config(engine):
    return engine.registry.describe("postcards").original_scheduler_config


@pytest.fixture(scope="module")
def runs(session_engine):
    """Each scheduler's run of 10 steps from one seed."""
    base = RunRequest(prompt="a yellow house in the snow", num_inference_steps=10, seed=3)
    return {key: session_engine.run(base.changed(scheduler=key)) for key in KEYS}


@pytest.mark.parametrize("info", FITTING, ids=KEYS)
def test_every_scheduler_runs_and_its_evaluations_are_as_said(runs, info):
    run = runs[info.key]
    assert run.status == "ok", run.error
    assert run.nfe == info.evaluations(10)


def test_initial_noise_is_equal_for_all_of_them(runs):
    assert len({run.noise_sha256 for run in runs.values()}) == 1


@pytest.mark.parametrize("info", FITTING, ids=KEYS)
def test_stochastic_means_that_steps_draw_noise(session_engine, info):
    """Same latents, another generator: the result changes where it is stochastic, only there."""
    with session_engine.registry.borrow("postcards") as (model, _):
        latents = torch.randn((1, 4, 16, 16), generator=make_generator(0))
        outcomes = []
        for seed in (1, 2):
            pipe = model.view("text-to-image")
            pipe.scheduler = make_scheduler(
                info.key, model.info.original_scheduler_config, seed=seed
            )
            outcomes.append(
                pipe("a cat", latents=latents.clone(), num_inference_steps=4,
                     generator=make_generator(seed), output_type="latent").images
            )  # fmt: skip
    assert outcomes[0].equal(outcomes[1]) != info.stochastic


def test_settings_of_one_never_leak_into_the_next(engine):
    config = original_config(engine)
    plain = make_scheduler("dpmpp_2m", config).config
    make_scheduler("dpmpp_2m_sde_karras", config, {"solver_order": 3})
    assert dict(make_scheduler("dpmpp_2m", config).config) == dict(plain)
    # The checkpoint's own solver options are not the next scheduler's.
    leaky = {**config, "use_karras_sigmas": True, "solver_order": 3, "algorithm_type": "x"}
    euler = make_scheduler("euler", leaky).config
    assert euler["use_karras_sigmas"] is False
    assert make_scheduler("deis", leaky).config["algorithm_type"] == "deis"


def test_the_models_own_values_reach_every_scheduler(engine):
    config = original_config(engine)
    for key in KEYS:
        made = make_scheduler(key, config)
        for name in ("beta_start", "beta_end", "prediction_type", "timestep_spacing"):
            if name in made.config:
                assert made.config[name] == config[name], (key, name)
        assert not made.config.get("clip_sample"), key


def test_unknown_option_names_the_known_ones(engine):
    with pytest.raises(RequestError, match="knows no colour; it knows .*use_karras_sigmas"):
        make_scheduler("euler", original_config(engine), {"colour": 1})


def test_refused_value_of_an_option_is_a_request_error(engine):
    with pytest.raises(RequestError, match="DPM"):
        make_scheduler("dpmpp_2m", original_config(engine), {"algorithm_type": "magic"})


def test_catalogue_covers_what_diffusers_calls_compatible(engine):
    compatible = {cls.__name__ for cls in scheduler_class("ddim")().compatibles}
    missing = compatible - {info.class_name for info in CATALOGUE}
    assert missing <= {"EDMEulerScheduler"}  # its noise level, sigma 80, is not this model's


def test_options_exclude_what_is_the_models():
    options = accepted_options("dpmpp_2m")
    assert "solver_order" in options
    assert "timestep_spacing" in options
    assert not {"beta_start", "prediction_type", "self"} & set(options)


def test_one_step_is_enough_for_all_of_them(session_engine):
    """The warm-up runs one step with the request's own scheduler."""
    base = RunRequest(prompt="a cat", num_inference_steps=1)
    for key in KEYS:
        run = session_engine.run(base.changed(scheduler=key))
        assert run.status == "ok", run.error


def test_flow_matching_goes_with_flow_matching_only(engine):
    config = original_config(engine)
    with pytest.raises(RequestError, match="'flow_euler', accepted for this model: ddim"):
        make_scheduler("flow_euler", config)
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    assert make_scheduler("flow_heun", flow).config["shift"] == 3.0
    with pytest.raises(RequestError, match="flow-matching model: flow_euler"):
        make_scheduler("ddim", flow)


FLOW = {"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_flow_sigmas_lead_to_the_picture(steps):
    """Where all data are one point, each straight line ends there, in any number of steps."""
    fitting = compatible_schedulers(FLOW)
    assert [info.key for info in fitting if info.flow_sigmas] == [
        "dpmpp_2m", "dpmpp_3m", "dpmpp_2s", "dpmpp_2m_sde", "unipc"]
    assert all(info.flow_matching or info.flow_sigmas for info in fitting)
    point = torch.full((1, 4, 8, 8), 0.7)
    for info in fitting:
        if info.flow_matching:
            continue
        scheduler = make_scheduler(info.key, FLOW)
        scheduler.set_timesteps(steps)
        sample = torch.randn(point.shape, generator=torch.Generator().manual_seed(0))
        sample = sample * scheduler.init_noise_sigma
        for step, timestep in enumerate(scheduler.timesteps):
            velocity = (sample - point) / scheduler.sigmas[step]
            sample = scheduler.step(velocity, timestep, sample).prev_sample
        assert (sample - point).abs().max() < 1e-4, info.key


def test_default_is_the_checkpoints_own_scheduler_with_its_own_options(engine):
    config = original_config(engine)
    assert own_scheduler(config) == ("dpmpp_2m", {})
    karras = {**config, "use_karras_sigmas": True, "solver_order": 3}
    assert own_scheduler(karras) == ("dpmpp_2m", {"use_karras_sigmas": True, "solver_order": 3})
    assert own_scheduler({"_class_name": "UnCLIPScheduler"}) == ("default", {})
