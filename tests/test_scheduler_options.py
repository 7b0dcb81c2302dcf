"""What an option of a scheduler may be: refused or understood before anything runs."""

import pytest

from pipelines import CATALOGUE, Comparison, RequestError, RunRequest
from pipelines.painting.resolve import resolve
from pipelines.schedulers import accepted_options, checked_options, make_scheduler, own_scheduler

KEYS = [info.key for info in CATALOGUE]


@pytest.mark.parametrize("text", ["no", "off", "false", "False", "0", 0, False])
def test_a_text_for_no_is_no(text):
    assert checked_options("dpmpp_2m", {"thresholding": text}) == {"thresholding": False}


@pytest.mark.parametrize("text", ["yes", "on", "true", "TRUE", "1", 1, True])
def test_a_text_for_yes_is_yes(text):
    assert checked_options("lms", {"use_karras_sigmas": text}) == {"use_karras_sigmas": True}


@pytest.mark.parametrize(
    ("key", "options", "accepted"),
    [
        ("dpmpp_2m", {"thresholding": "maybe"}, "true or false"),
        ("euler", {"use_karras_sigmas": 2}, "true or false"),
        ("dpmpp_2m", {"lower_order_final": 0.5}, "true or false"),
        *(("dpmpp_2m", {"solver_order": value}, "a whole number from 1 to 3")
          for value in (0, 4, 9, -1, 2.5, True, "two", "", 1e400, 10**400)),
        ("dpmpp_2s", {"solver_order": 4}, "from 1 to 3"),
        ("deis", {"solver_order": 0}, "from 1 to 3"),
        ("unipc", {"solver_order": 0}, "from 1"),
        ("sa_solver", {"predictor_order": 5}, "from 1 to 4"),
        ("sa_solver", {"corrector_order": 0}, "from 1 to 4"),
        ("sa_solver", {"algorithm_type": "dpmsolver"}, "data_prediction, noise_prediction"),
        ("deis", {"solver_type": "midpoint"}, "logrho"),
        ("unipc", {"solver_type": "heun"}, "bh1, bh2"),
        ("dpmpp_2m", {"algorithm_type": "magic"}, "dpmsolver, dpmsolver"),
        ("euler", {"final_sigmas_type": "one"}, "zero, sigma_min"),
        ("euler", {"interpolation_type": "cubic"}, "linear, log_linear"),
        *((key, {"timestep_spacing": "wide"}, "linspace, leading, trailing|trailing, linspace")
          for key in ("ddim", "euler_a", "kdpm2", "lcm", "sa_solver", "heun", "pndm")),
        ("euler", {"sigma_min": "small"}, "a number of at least"),
        ("euler", {"sigma_max": -3}, "a number of at least"),
        ("unipc", {"sigma_max": True}, "a number of at least"),
        ("ddim", {"dynamic_thresholding_ratio": 1.5}, "a number from 0 to 1"),
        ("ddim", {"sample_max_value": 0.5}, "at least 1"),
        ("lcm", {"original_inference_steps": 0}, "from 1 to 1000"),
        ("ddpm", {"variance_type": "huge"}, "fixed_small"),
        ("unipc", {"disable_corrector": 0}, "neither a text nor a number|cannot be set"),
        ("euler", {"colour": 1}, "knows no colour; it knows .*use_karras_sigmas"),
    ],
)
def test_what_an_option_cannot_be(key, options, accepted):
    with pytest.raises(RequestError, match=accepted) as error:
        checked_options(key, options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("dpmpp_2m", {"solver_order": "3"}, 3),
        ("dpmpp_2m", {"solver_order": 3.0}, 3),
        ("euler", {"sigma_max": "14.5"}, 14.5),
        ("unipc", {"sigma_max": 20}, 20),
        ("dpmpp_2m", {"lambda_min_clipped": -5.1}, -5.1),
        ("unipc", {"solver_order": 4}, 4),
    ],
)
def test_numbers_may_come_as_text(key, given, value):
    (taken,) = checked_options(key, given).values()
    assert taken == value and type(taken) is type(value)


@pytest.mark.parametrize("key", KEYS)
def test_defaults_are_what_they_accept_themselves(key):
    """So that no annotation is read wrongly."""
    for name, option in accepted_options(key).items():
        if option.kind and option.default is not None:
            assert option.value(option.default) == option.default, name


def test_what_is_asked_for_is_in_the_scheduler_that_runs(engine):
    info = engine.registry.describe("postcards")
    base = RunRequest(prompt="a cat", scheduler="dpmpp_2m", num_inference_steps=4)
    for given, value in (("no", False), ("yes", True)):
        request = resolve(base.changed(scheduler_options={"thresholding": given}), info)
        assert request.scheduler_options == {"thresholding": value}
        made = make_scheduler(request.scheduler, info.original_scheduler_config,
                              request.scheduler_options)
        assert made.config.thresholding is value
    for options in ({"solver_order": 9}, {"thresholding": "perhaps"}):
        with pytest.raises(RequestError, match="scheduler_options: received"):
            engine.check(base.changed(scheduler_options=options))


def test_no_and_yes_make_two_columns(engine, request_):
    comparison = Comparison.parse(request_.changed(scheduler="dpmpp_2m"),
                                  ["scheduler_options.thresholding=no,yes"])
    no, yes = engine.compare(comparison)
    assert no.image_sha256 == engine.run(request_.changed(scheduler="dpmpp_2m")).image_sha256
    assert yes.image_sha256 != no.image_sha256


def test_options_of_a_scheduler_of_its_own_kind_are_refused(engine, tiny_folder):
    with pytest.raises(RequestError, match="received use_karras_sigmas, accepted none"):
        engine.check(RunRequest(model_id=str(tiny_folder("playground_v25")), prompt="x",
                                scheduler_options={"use_karras_sigmas": True}))


@pytest.mark.parametrize(
    ("scheduler", "options", "part"),
    [
        ("dpmpp_2s", {"lower_order_final": False}, "took lower_order_final=True in place of False"),
        ("lcm", {"timestep_spacing": "leading"}, "timestep_spacing has no effect, LCMScheduler"),
        ("tcd", {"thresholding": True}, "thresholding has no effect, TCDScheduler"),
    ],
)
def test_options_that_are_replaced_or_never_read_are_noted(
    engine, request_, scheduler, options, part
):
    run = engine.run(request_.changed(scheduler=scheduler, scheduler_options=options))
    assert run.status == "ok", run.error
    (note,) = run.notes
    assert part in note


def test_a_checkpoints_own_options_are_those_that_its_class_takes():
    config = {"_class_name": "DEISMultistepScheduler", "solver_type": "midpoint",
              "algorithm_type": "dpmsolver++", "solver_order": 3}
    assert own_scheduler(config) == ("deis", {"solver_order": 3})
