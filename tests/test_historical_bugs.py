"""Bugs that schedulers of diffusers had, put back one by one: conformance finds each.

Each was mended in the pull request that the test names.
"""

import inspect
import sys
import textwrap
from pathlib import Path

import diffusers
import pytest

from pipelines.cli.conformance import markdown
from pipelines.laboratory import conformance


def put_back(monkeypatch, class_name, method, *changes):
    """The source of a method with some of its text replaced, in place of the method."""
    cls = getattr(diffusers, class_name)
    source = textwrap.dedent(inspect.getsource(vars(cls)[method]))
    for new, old in changes:
        assert new in source, f"{class_name}.{method} reads otherwise now"
        source = source.replace(new, old)
    scope = dict(vars(sys.modules[cls.__module__]))
    exec(source, scope)
    monkeypatch.setattr(cls, method, scope[method])


@pytest.fixture(autouse=True)
def fewer_places(monkeypatch):
    monkeypatch.setattr(conformance, "STEPS", (5, 10, 20, 40, 80))
    monkeypatch.setattr(conformance, "STRENGTHS", (0.3,))


def findings(class_name, options):
    outcome = conformance.examine(conformance.Case(class_name, options))
    return " / ".join([*outcome.findings, *filter(None, [outcome.refused])])


BUGS = {
    # Heun's second evaluation took the sigma of the first for v-predictions.
    "1512": ("HeunDiscreteScheduler", {"prediction_type": "v_prediction"}, "step",
             [("sigma_hat if self.state_in_first_order else sigma_next", "sigma_hat"),
              ("pred_original_sample) / sigma_next", "pred_original_sample) / sigma_hat")],
             "nominal 2"),
    # DDIM took a predicted sample for the predicted noise.
    "2094": ("DDIMScheduler", {"prediction_type": "sample", "timestep_spacing": "trailing"}, "step",
             [("pred_original_sample = model_output\n        pred_epsilon = (sample - "
               "alpha_prod_t ** (0.5) * pred_original_sample) / beta_prod_t ** (0.5)",
               "pred_original_sample = model_output\n        pred_epsilon = model_output")],
             "order"),
    # The singlestep solver took the logarithm of the sigma 0 with 3 n - 1 steps.
    "9104": ("DPMSolverSinglestepScheduler", {"solver_order": 3}, "get_order_list",
             [('if self.config.final_sigmas_type == "zero":', "if False:")],
             "5 steps, 20 steps, 80 steps: not finite"),
    # UniPC's schedule of flow matching lacked the sigma at its end.
    "10267": ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction",
                                          "use_flow_sigmas": True}, "set_timesteps",
              [("sigmas = np.concatenate([sigmas, [sigma_last]]).astype(np.float32)",
                "sigmas = sigmas.astype(np.float32)")], "IndexError"),
    # LMS took noise for as large as it is where the variance is kept.
    "253": ("LMSDiscreteScheduler", {}, "add_noise",
            [("original_samples + noise * sigma",
              "(original_samples + noise * sigma) / (1 + sigma**2) ** 0.5")],
            "another noise level"),
}


@pytest.mark.parametrize("pull_request", BUGS)
def test_a_bug_that_is_put_back_is_found(monkeypatch, pull_request):
    class_name, options, method, changes, finding = BUGS[pull_request]
    before = findings(class_name, options)
    put_back(monkeypatch, class_name, method, *changes)
    after = findings(class_name, options)
    assert finding in after
    assert finding not in before


def test_starting_at_every_entry_of_a_second_order_schedule_is_found(monkeypatch):
    """Pull request 3128: image-to-image began in the middle of a step of two evaluations."""
    options = {"timestep_spacing": "trailing"}
    before = findings("HeunDiscreteScheduler", options)
    monkeypatch.setattr(diffusers.HeunDiscreteScheduler, "order", 1)
    assert "from the middle" not in before
    assert "from the middle" in findings("HeunDiscreteScheduler", options)


def test_the_document_says_since_when():
    document = Path(__file__).parents[1] / "docs" / "conformance.md"
    assert document.read_text("utf-8").startswith(markdown([]))
    assert "PR 9982" in markdown([])
