"""Guidance methods: neutral settings are classifier-free guidance, the others their formulas."""

import pytest
import torch

from pipelines import Comparison, RequestError, RunRequest
from pipelines.guidance_methods import GUIDERS, GuidanceMethod, neutral_methods
from pipelines.lessons import guidance, postcards
from pipelines.models.guidance_source import guides_one_call
from pipelines.painting.guiding import combine

PROMPT = "a red car on a road at night"
BASE = RunRequest(prompt=PROMPT, num_inference_steps=4, guidance_scale=5, scheduler="ddim")
TEXTS = ["cfg", "interval", "interval:0.1:0.9", "rescale:0.5", "apg", "apg:1:0:0", "cfg-zero",
         "cfg-zero:2", "tangential", "magnitude:3", "pag", "pag:3:0.1:0.5:0", "slg"]


@pytest.fixture(scope="module")
def latents(session_engine):
    """Final latents of postcards by method, all made in one batch."""
    methods = ["cfg", *map(str, neutral_methods()), "interval:0:0.5", "apg:0:1:-0.5", "cfg-zero",
               "tangential", "magnitude", "pag", "slg:2.8:0:1"]
    comparison = Comparison.parse(BASE, [f"guidance_method={','.join(dict.fromkeys(methods))}"])
    runs = session_engine.compare(comparison, shared=True)
    failed = [run.error for run in runs if run.error]
    assert not failed
    return {cell.request.guidance_method: (session_engine.latents.get(run.latents_sha256), run)
            for cell, run in zip(comparison.cells, runs, strict=True)}


@pytest.mark.parametrize("text", TEXTS)
def test_a_method_reads_back(text):
    assert str(GuidanceMethod.parse(text)) == str(GuidanceMethod.parse(str(
        GuidanceMethod.parse(text))))
    assert RunRequest(guidance_method=text).guidance_method == str(GuidanceMethod.parse(text))


@pytest.mark.parametrize(("text", "told"), [
    ("agp", "accepted cfg, interval"), ("apg:2", "eta from 0 to 1"), ("cfg:1", "accepted cfg"),
    ("interval:0.5:0.2", "a start before the stop"), ("apg:a", "accepted cfg"),
    ("cfg-zero:1.5", "a whole number for zero_steps"), ("tangential:1", "accepted cfg")])
def test_what_is_no_method_is_refused(text, told):
    with pytest.raises(RequestError, match=told):
        RunRequest(guidance_method=text)


@pytest.mark.parametrize("method", neutral_methods(), ids=str)
def test_neutral_settings_are_classifier_free_guidance(latents, method):
    plain, made = latents["cfg"][0], latents[str(method)][0]
    assert (made - plain).abs().max() < 1e-4 * plain.abs().max()


@pytest.mark.parametrize("text", ["interval:0:0.5", "apg:0:1", "cfg-zero", "tangential",
                                  "magnitude", "pag", "slg:2.8:0:1"])
def test_the_others_are_another_picture_at_their_cost(latents, text):
    plain, run = latents[text]
    assert (plain - latents["cfg"][0]).abs().max() > 1e-3 * plain.abs().max()
    extra = 3 if GUIDERS[text.split(":")[0]].perturbed else 0  # not in the first step
    assert run.nfe == 4 + extra and run.denoiser_rows == 8 + extra
    assert run.shared


def test_a_method_alone_is_what_it_is_in_a_batch(engine, latents):
    for text in ("apg:0:1", "pag"):
        run = engine.run(BASE.changed(guidance_method=text))
        alone = engine.latents.get(run.latents_sha256) if run.latents_sha256 else None
        shared = latents[text][1]
        assert run.noise_sha256 == shared.noise_sha256 and run.nfe == shared.nfe
        if alone is not None:
            assert (alone - latents[text][0]).abs().max() < 1e-3


def predictions():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 1, 4, 3, 3, generator=generator, dtype=torch.float64)


def guided(text, scale=5.0, step=3, total=10, steps=(), weakened=None):
    guider = GuidanceMethod.parse(text).guider(scale)
    cond, uncond = predictions()
    for earlier in steps:
        combine(guider, cond, uncond, earlier, total)
    return combine(guider, cond, uncond, step, total, weakened), cond, uncond


def test_formulas_of_the_papers():
    made, cond, uncond = guided("interval:0.2:0.8", step=1)
    torch.testing.assert_close(made, cond)
    made, cond, uncond = guided("interval:0.2:0.8", step=2)
    torch.testing.assert_close(made, uncond + 5 * (cond - uncond))
    made, cond, uncond = guided("apg:0:0:0", steps=[0])  # eta 0: the orthogonal part alone
    unit = cond / cond.norm()
    difference = cond - uncond
    torch.testing.assert_close(made, cond + 4 * (difference - (difference * unit).sum() * unit))
    made, cond, uncond = guided("apg:1:0.5:0", steps=[0])  # limit: a norm of 0.5 at most
    assert ((made - cond) / 4).norm().item() == pytest.approx(0.5)
    made, cond, uncond = guided("apg:1:0:-0.5", step=1, steps=[0])  # the update less half of it
    torch.testing.assert_close(made, cond + 4 * 0.5 * (cond - uncond))
    made, cond, uncond = guided("cfg-zero", step=0)
    best = (cond * uncond).sum() / uncond.square().sum()
    torch.testing.assert_close(made, best * uncond + 5 * (cond - best * uncond), atol=1e-5,
                               rtol=1e-5)
    assert not guided("cfg-zero:1", step=0)[0].any()
    made, cond, uncond = guided("magnitude:3")
    scale = 1 + 4 * torch.exp(-3 * (cond - uncond).norm() / uncond.norm())
    torch.testing.assert_close(made, uncond + scale * (cond - uncond))
    made, cond, uncond = guided("pag:2:0:1", weakened=lambda: 0 * predictions()[0])
    torch.testing.assert_close(made, uncond + 5 * (cond - uncond) + 2 * cond)


def test_a_perturbed_layer_is_as_before_afterwards(session_engine, latents):
    with session_engine.registry.borrow("postcards") as (model, _):
        hooked = [name for name, module in model.pipe.unet.named_modules()
                  if getattr(getattr(module, "_diffusers_hook", None), "hooks", None)]
    assert not hooked


def test_a_family_that_calls_twice_is_refused(session_engine):
    assert guides_one_call("StableDiffusion3Pipeline") and guides_one_call("ExactPipeline")
    assert not guides_one_call("QwenImagePipeline") and not guides_one_call("FluxPipeline")
    with pytest.raises(RequestError, match="stands still in flow matching only"):
        session_engine.check(BASE.changed(guidance_method="cfg-zero:1"))
    with pytest.raises(RequestError, match="does not combine"):
        session_engine.check(RunRequest(model_id="postcards-ddpm", task="unconditional",
                                        guidance_method="apg"))


def test_without_guidance_a_method_says_that_it_has_no_effect(engine):
    run = engine.run(BASE.changed(guidance_scale=1, guidance_method="apg"))
    assert any("guidance_method: no effect" in note for note in run.notes)
    exact = engine.run(RunRequest(model_id="exact-2d", prompt="right", num_inference_steps=4,
                                  guidance_scale=3, guidance_method="pag"))
    assert "accepted a method that skips no layer" in exact.error


@pytest.mark.parametrize("method", ["cfg", "apg:0:0:0"])
def test_the_lesson_shows_the_parts_of_what_guidance_adds(session_engine, latents, method):
    with session_engine.registry.borrow(postcards.MODEL) as (model, _):
        way = postcards.denoise(model, [PROMPT], postcards.noise([0]), "ddim", 4, 5.0,
                                guidance_method=method)
    parts = guidance.geometry(way)
    difference = (way.conditional - way.unconditional).flatten(2)[:, 0]
    for step, (parallel, orthogonal) in enumerate(zip(
            parts["parallel part"], parts["orthogonal part"], strict=True)):
        whole = 4 * difference[step].norm().item()
        if method == "cfg":
            assert (parallel**2 + orthogonal**2) ** 0.5 == pytest.approx(whole, rel=1e-4)
            assert parallel > 1e-3 * whole
        else:
            assert parallel < 1e-3 * orthogonal <= whole
    if method == "cfg":  # and it is the way of a run
        assert (way.latents[0] - latents["cfg"][0]).abs().max() < 1e-3
