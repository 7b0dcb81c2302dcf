"""The laboratory: closed forms, and what conformance finds in the schedulers of diffusers."""

import itertools
import json
import math

import pytest
import torch

from pipelines.cli import main
from pipelines.laboratory import driving
from pipelines.laboratory.conformance import Case, cases, examine
from pipelines.laboratory.mixture import Mixture, solve
from pipelines.schedulers import scheduler_classes

PLACES = [(1.0, 0.5), (0.8, 0.6), (0.1, 0.995), (0.0, 1.0)]


def one_gaussian(mean=(0.4, -0.3), deviation=0.25):
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(torch.tensor([mean], dtype=torch.float64), deviation * one, one)


def points(count=50):
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("signal", "noise"), PLACES)
def test_the_score_is_the_gradient_of_the_log_density(signal, noise):
    x = points().requires_grad_()
    mixture = Mixture.three()
    mixture.log_density(x, signal, noise).sum().backward()
    torch.testing.assert_close(mixture.score(x.detach(), signal, noise), x.grad)


@pytest.mark.parametrize(("signal", "noise"), PLACES)
def test_all_predictions_tell_of_one_picture(signal, noise):
    x, mixture = points(), Mixture.three()
    x0, epsilon = mixture.x0(x, signal, noise), mixture.epsilon(x, signal, noise)
    torch.testing.assert_close(signal * x0 + noise * epsilon, x)
    velocity = mixture.prediction("v_prediction", x, signal, noise)
    torch.testing.assert_close(velocity, signal * epsilon - noise * x0)
    torch.testing.assert_close(mixture.prediction("flow_prediction", x, signal, noise),
                               epsilon - x0)


def test_the_density_is_that_of_its_samples():
    mixture = Mixture.three()
    x = mixture.sample(20_000, torch.Generator().manual_seed(0))
    mean = (mixture.weights[:, None] * mixture.means).sum(0)
    torch.testing.assert_close(x.mean(0), mean, atol=0.03, rtol=0)
    one = one_gaussian()
    normal = torch.distributions.Normal(0.8 * one.means[0], math.sqrt((0.8 * 0.25)**2 + 0.6**2))
    torch.testing.assert_close(one.log_density(points(), 0.8, 0.6),
                               normal.log_prob(points()).sum(1))


def test_a_condition_keeps_its_components_only():
    some = Mixture.three().given([0, 2])
    assert some.weights.tolist() == pytest.approx([0.5 / 0.7, 0.2 / 0.7])
    assert some.means.tolist() == Mixture.three().means[[0, 2]].tolist()


def test_the_exact_end_of_one_gaussian_is_its_closed_form():
    one, sigma = one_gaussian(), 14.6
    start = sigma * points()
    shrunk = one.deviations / (one.deviations**2 + sigma**2).sqrt()
    end = solve(lambda x, at: one.epsilon(x, 1.0, at), start, sigma)
    assert (end - (one.means + shrunk * (start - one.means))).abs().max() < 1e-6
    # From pure noise, where x / signal does not exist.
    end = driving.exact_end(one, points(), None)
    assert (end - (one.means + one.deviations * points())).abs().max() < 1e-6


@pytest.mark.parametrize(("key", "spacing", "order"), [
    ("ddim", "linspace", 1), ("euler", "linspace", 1), ("heun", "linspace", 2),
    ("dpmpp_2m_karras", "linspace", 2),
])
def test_solvers_show_their_order(key, spacing, order):
    outcome = examine(next(case for case in cases([key])
                           if case.options["timestep_spacing"] == spacing))
    assert outcome.order[0] == pytest.approx(order, abs=0.45)
    assert not outcome.stochastic


def test_a_flow_matching_euler_is_of_first_order():
    outcome = examine(cases(["flow_euler"])[0])
    assert outcome.order[0] == pytest.approx(1, abs=0.3)
    assert outcome.errors[100] < 0.02


def finding(class_name, **options):
    return " / ".join(examine(Case(class_name, options)).findings)


def test_it_finds_what_is_wrong_in_diffusers():
    for name in ("LMSDiscreteScheduler", "PNDMScheduler"):
        assert "from the middle, strength 0.1" in finding(name, timestep_spacing="trailing"), name
    assert "not finite" in finding("UniPCMultistepScheduler", solver_type="bh1")
    assert not examine(Case("UniPCMultistepScheduler", {"solver_type": "bh1"})).stochastic
    assert "1000 steps" in finding("DDIMScheduler", timestep_spacing="leading", steps_offset=1)
    assert "order 0." in finding("DPMSolverMultistepScheduler", timestep_spacing="linspace")


def test_the_catalogue_starts_right_where_diffusers_does_not():
    for key in ("lms", "pndm"):
        case = next(case for case in cases([key]) if case.options == {
            "timestep_spacing": "trailing"})
        assert "from the middle" not in " / ".join(examine(case).findings)


def test_a_scheduler_with_noise_of_its_own_seed_is_stochastic():
    assert examine(cases(["dpmpp_sde"])[0]).stochastic


def test_euler_through_its_own_sigmas_is_what_first_order_steps_do():
    noise = points()
    scheduler = next(iter(cases(["euler"]))).scheduler()
    path = driving.run(scheduler, Mixture.three(), 10, noise)
    assert path.error == pytest.approx(path.first_order_error, rel=1e-3)


def test_ddim_has_no_finding():
    assert examine(Case("DDIMScheduler", {"timestep_spacing": "linspace"})).findings == []


def test_every_class_is_held_or_says_why_not():
    names = scheduler_classes()
    assert len(names) > 35
    assert {case.class_name for case in cases()} == set(names)
    reasons = {name: examine(Case(name, {})).refused
               for name in ("VQDiffusionScheduler", "RePaintScheduler") if name in names}
    assert all(reasons.values()), reasons


def test_the_command_prints_writes_and_refuses(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["conformance", "--scheduler", "ddim", "--json", "-o", str(tmp_path / "table.md")])
    assert end.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["scheduler"] for row in rows} == {"ddim"}
    assert [later < earlier for earlier, later in itertools.pairwise(
        value for steps, value in rows[0]["errors"].items() if int(steps) >= 10)] == [True] * 4
    assert "| ddim linspace |" in (tmp_path / "table.md").read_text()
    with pytest.raises(SystemExit) as end:
        main(["conformance", "--scheduler", "dimm"])
    assert end.value.code == 2 and "dimm" in capsys.readouterr().err
