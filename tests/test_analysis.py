import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from pipelines import Comparison, RunRequest
from pipelines.analysis import (
    Method,
    convergence,
    is_stochastic,
    methods,
    nominal_order,
    pareto_front,
    verdict,
)
from pipelines.flags import flags, picture_facts
from pipelines.guidance import guidance, named_in
from pipelines.log_tables import Distance
from pipelines.run_log import TimingSummary

BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=2)


def method(name="DDIM", nfe=10.0, rms=0.1, ms=None, **values):
    known = {"line": name, "scheduler": "ddim", "stochastic": False, "order": 1,
             "num_inference_steps": int(nfe), "psnr": None, "ssim": None,
             "clip_distance": None, "ms_low": ms,
             "ms_high": ms, "cells": (0,), "run_id": 1}  # fmt: skip
    return Method(name=name, nfe=nfe, rms_latents=rms, ms=ms, **{**known, **values})


def compare(engine, *axes, base=BASE, **options):
    comparison = Comparison.parse(base, axes)
    return comparison, engine.compare(comparison, **options)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_fitted_order_is_that_of_the_error(order):
    (line,) = convergence([method(nfe=n, rms=5.0 * n**-order) for n in (40, 10, 20)])
    assert line.fitted == pytest.approx(order)
    assert [m.nfe for m in line.points] == [10, 20, 40]


def test_points_at_the_references_own_error_are_in_no_fit():
    found = [method(nfe=n, rms=max(n**-2, 0.001)) for n in (5, 10, 20, 80, 160)]
    (line,) = convergence(found, floor=0.001)
    assert line.fitted == pytest.approx(2)
    (line,) = convergence(found, floor=0.01)
    assert (line.fitted, "fewer than 3" in line.why) == (None, True)


def test_stochastic_samplers_have_no_order():
    found = [method(nfe=n, rms=1 / n, stochastic=True, order=None) for n in (5, 10, 20)]
    (line,) = convergence(found)
    assert line.fitted is None
    assert "does not converge" in line.why


@pytest.mark.parametrize(
    ("values", "stochastic", "order"),
    [
        ({"scheduler": "ddim"}, False, 1),
        ({"scheduler": "ddim", "eta": 0.5}, True, None),
        ({"scheduler": "euler_a"}, True, None),
        ({"scheduler": "dpmpp_2m"}, False, 2),
        ({"scheduler": "dpmpp_2m", "scheduler_options": {"solver_order": 3}}, False, 3),
        ({"scheduler": "dpmpp_2m", "scheduler_options": {"algorithm_type": "sde-dpmsolver++"}},
         True, None),
        ({"scheduler": "dpmpp_2m_sde"}, True, None),
        ({"scheduler": "dpmpp_2m_sde", "scheduler_options": {"algorithm_type": "dpmsolver++"}},
         False, 2),
    ],
)  # fmt: skip
def test_what_draws_noise_on_the_way(values, stochastic, order):
    request = BASE.changed(**values)
    assert is_stochastic(request) == stochastic
    assert nominal_order(request) == order


def over_prompts(name, rms, ms=None, spread=0.1, prompts=20, repeats=7, **values):
    """A method with a distance for each of some prompts, which are alike for all methods."""
    rng = np.random.default_rng(len(name))
    alike = np.random.default_rng(0).normal(0, 0.5, prompts)
    by_prompt = {f"p{n}": {(): rms * math.exp(alike[n] + rng.normal(0, spread))}
                 for n in range(prompts)}
    return method(name, rms=rms, ms=ms, by_prompt=by_prompt, repeats=repeats,
                  **{"ms_low": ms and 0.9 * ms, "ms_high": ms and 1.1 * ms, **values})


def test_one_prompt_names_no_winner():
    """Six schedulers at 20 steps, as somebody saw them on a machine that did other work too."""
    found = [over_prompts("Euler", 0.0591, 1170, prompts=1, ms_high=1900),
             over_prompts("DDIM", 0.0541, 1650, prompts=1, ms_low=1100)]
    assert verdict(found, "converged") == (
        "One prompt cannot tell which method is closer to the converged picture: another prompt or "
        "seed may turn the order. In time Euler and DDIM (1.17 s to 1.65 s) cannot be told apart: "
        "the ranges of their repeats overlap.")
    assert pareto_front(found) == found
    apart = [over_prompts("Euler", 0.5, 100, prompts=1), over_prompts("Heun", 0.1, 200, prompts=1),
             over_prompts("PNDM", 0.1, 210, prompts=1)]
    assert verdict(apart, "seed=1").endswith(
        "In time Euler (100 ms), faster than Heun and PNDM (200 ms to 210 ms). Methods named "
        "together cannot be told apart.")
    assert "the reference cell" in verdict(apart, "seed=1")
    few = [dataclasses.replace(m, repeats=3) for m in apart]
    assert "cannot be told apart: the ranges" in verdict(few, "converged"), "too few repeats"
    assert verdict(found[:1], "converged") == ""
    assert verdict([dataclasses.replace(m, ms=None) for m in found], "converged") == ""


def test_many_prompts_tell_what_is_closer():
    found = [over_prompts("Euler", 0.2, 100), over_prompts("DPM++ 2M", 0.1, 101),
             over_prompts("UniPC", 0.1, 300)]
    text = verdict(found, "converged")
    assert text.startswith("Over 20 prompts")
    assert "comes closest to the converged picture: 0.1" in text
    assert "cannot be told apart from it. In time Euler and DPM++ 2M" in text
    assert [m.name for m in pareto_front(found)] == ["Euler", "DPM++ 2M", "UniPC"]
    worse = over_prompts("Heun", 0.3, 300)
    assert worse not in pareto_front([*found, worse]), "Euler is faster and closer"
    fewer = over_prompts("PNDM", 0.3, 300, prompts=19)
    assert "19 prompts" in verdict([*found, fewer], "converged")


def test_methods_are_means_over_what_is_asked(engine):
    comparison, runs = compare(engine, "scheduler=ddim,heun", "guidance_scale=1,5", "seed=0,1")
    distances = [Distance(run_id=run.id, reference_id=1, rms_latents=0.1 * 4 ** (n % 2),
                          psnr=30.0 + n % 2) for n, run in enumerate(runs)]
    timings = [TimingSummary(3, 100.0 + n, 90.0, 120.0) for n in range(8)]
    ddim, heun = methods(comparison, runs, distances, timings)
    assert (ddim.name, heun.name) == ("DDIM", "Heun")
    assert (ddim.nfe, heun.nfe) == (2, 3)
    assert ddim.rms_latents == pytest.approx(0.2)  # the geometric mean
    assert ddim.psnr == 30.5
    assert len(ddim.cells) == 4
    assert ddim.ms == pytest.approx(sum(timings[n].median_ms for n in ddim.cells) / 4)
    assert ddim.by_prompt.keys() == {BASE.prompt} and len(ddim.by_prompt[BASE.prompt]) == 4
    assert (ddim.repeats, ddim.rms_low) == (3, None)
    timings[ddim.cells[0]] = None
    assert methods(comparison, runs, distances, timings)[0].ms is None


def test_an_option_without_effect_is_flagged(engine):
    comparison, runs = compare(engine, "eta=0,1", "scheduler=ddim,euler")
    (flag,) = flags(comparison, runs, engine.pictures)
    assert flag.text == "eta: 0 and 1 make the same picture in 1 of 2 places."
    assert {comparison.cells[n].axes["scheduler"] for n in flag.cells} == {"euler"}
    comparison, runs = compare(engine, "memory_policy=auto,device")
    assert flags(comparison, runs, engine.pictures) == [], "meant to change the cost only"


def test_cells_that_diverge_and_empty_pictures_are_flagged(engine):
    base = BASE.changed(scheduler="unipc", num_inference_steps=4,
                        scheduler_options={"final_sigmas_type": "zero"})
    comparison, runs = compare(engine, "scheduler_options.solver_type=bh1,bh2", base=base)
    runs[1].image_sha256 = engine.pictures.put(Image.new("RGB", (64, 64)))
    kinds = {flag.kind: flag.cells for flag in flags(comparison, runs, engine.pictures)}
    assert kinds == {"not finite": (0,), "empty": (1,)}


def test_saturated_pictures_at_high_guidance_are_flagged(engine):
    comparison, runs = compare(engine, "guidance_scale=1,3,30")
    harsh = np.zeros((64, 64, 3), np.uint8)
    harsh[:, :32] = 255
    runs[2].image_sha256 = engine.pictures.put(Image.fromarray(harsh))
    (flag,) = flags(comparison, runs, engine.pictures)
    assert (flag.kind, flag.cells) == ("saturated", (2,))
    assert "guidance_scale 30" in flag.text


def test_picture_facts(tmp_path):
    path = tmp_path / "a.png"
    rows = [[[0, 9, 9], [100, 100, 100], [200, 10, 10], [255, 255, 255]]]
    Image.fromarray(np.array(rows, np.uint8)).save(path)
    assert picture_facts(path).saturated == 0.5
    assert picture_facts(path).spread > 10


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a red car on a road at night",
         {"subject": "car", "colour": "red", "scene": "road", "time": "night"}),
        ("Two blue boats, at sunset!", {"subject": "boat", "colour": "blue", "time": "sunset"}),
        ("a bird near a green tree", {"subject": "bird"}),
        ("a pink hot air balloon under a blue sky",
         {"subject": "balloon", "colour": "pink", "time": "day"}),
        ("something else", {}),
    ],
)
def test_what_a_prompt_names(prompt, named):
    assert named_in(prompt) == named


def test_guidance_judges_prompts_and_compares_seeds(engine):
    base = BASE.changed(num_inference_steps=8)
    comparison, runs = compare(engine, "guidance_scale=1,5", "seed=0,1,2", base=base, shared=True)
    low, high = guidance(comparison, runs, engine.pictures)
    assert (low.guidance_scale, high.guidance_scale) == (1, 5)
    assert low.judged == high.judged == 3
    assert 0 <= low.accuracy <= high.accuracy <= 1
    assert high.accuracy > 0.5
    assert low.pairs == 3
    assert 0 < high.diversity < 1
    no_scale, runs = compare(engine, "seed=0,1")
    assert guidance(no_scale, runs, engine.pictures) == []
    assert not math.isnan(low.diversity)
