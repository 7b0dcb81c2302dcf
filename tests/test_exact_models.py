"""The models that are known in closed form: the same path as any other, exact at its end."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from pipelines import Comparison, RunRequest
from pipelines.laboratory import build, driving
from pipelines.laboratory.mixture import solve
from pipelines.measuring import floor, measure
from pipelines.models.files import BUNDLED
from pipelines.painting.noise import make_generator

KINDS = ("epsilon", "v_prediction", "sample", "flow_prediction")
MODELS = {"exact-2d": (1, 2, 4, 4), "exact-latents": (1, 4, 16, 16)}  # at 64 x 64 pixels
SIZE = {"height": 64, "width": 64}
# diffusers' classes for these know no network that predicts the sample.
NO_SAMPLE = {"pndm", "euler_a", "kdpm2", "kdpm2_a", "dpmpp_sde", "dpmpp_sde_karras"}


def solution(denoiser, noise, guidance_scale=1.0, components=()):
    """Where the ODE takes the points of a seed's noise, by SciPy's steps; (count, D)."""
    mixture, scale = denoiser.mixture, denoiser.scale
    chosen = mixture.given(components) if components else mixture
    start = denoiser.points(noise)
    if denoiser.config.prediction_type == "flow_prediction":
        assert guidance_scale == 1
        return driving.exact_end(chosen, start, None)
    signal, part = scale.signal_and_noise(torch.tensor(999))

    def epsilon(x, at):
        plain = mixture.epsilon(x, 1.0, at)
        return plain + guidance_scale * (chosen.epsilon(x, 1.0, at) - plain)

    return solve(epsilon, start / signal, part / signal)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_id", MODELS)
def test_the_converged_solution_is_exact(engine, model_id, kind):
    request = RunRequest(model_id=model_id, revision=kind, scheduler="exact", seed=5,
                         num_inference_steps=32, **SIZE)
    run = engine.run(request, keep_latents=True)
    assert run.status == "ok", run.error
    assert run.nfe == 12 * 32 + 1
    with engine.registry.borrow(model_id, kind) as (model, _):
        denoiser = model.pipe.denoiser
    noise = torch.randn(MODELS[model_id], generator=make_generator(5))
    ends = denoiser.points(engine.latents.get(run.latents_sha256)[None])
    assert (ends - solution(denoiser, noise)).abs().max() < 1e-6


def test_guidance_between_components_is_exact_too(engine):
    request = RunRequest(model_id="exact-2d", scheduler="exact", seed=5, num_inference_steps=32,
                         prompt="top", guidance_scale=3, **SIZE)
    run = engine.run(request, keep_latents=True)
    with engine.registry.borrow("exact-2d") as (model, _):
        denoiser = model.pipe.denoiser
    noise = torch.randn(MODELS["exact-2d"], generator=make_generator(5))
    ends = denoiser.points(engine.latents.get(run.latents_sha256)[None])
    assert (ends - solution(denoiser, noise, 3.0, [1])).abs().max() < 1e-6
    assert run.denoiser_rows == 2 * run.nfe


def compared(engine, model_id, steps):
    """Every scheduler that goes with a model, side by side; and their keys."""
    info = engine.registry.describe(model_id)
    keys = [scheduler.key for scheduler in info.schedulers
            if not (info.prediction_type == "sample" and scheduler.key in NO_SAMPLE)]
    assert len(keys) == {"sample": 20, "flow_prediction": 4}.get(info.prediction_type, 26)
    base = RunRequest(model_id=model_id, num_inference_steps=steps, **SIZE)
    comparison = Comparison.parse(base, [f"scheduler={','.join(keys)}"])
    runs = engine.compare(comparison, shared=True)
    assert {run.status for run in runs} == {"ok"}, [run.error for run in runs]
    assert len({run.noise_sha256 for run in runs}) == 1
    assert all(run.shared for run in runs)
    return comparison, keys, runs


@pytest.mark.parametrize("model_id", ["exact-latents@v_prediction", "exact-2d@sample"])
def test_all_schedulers_share_calls_and_noise(engine, model_id):
    compared(engine, model_id, 2)


@pytest.mark.parametrize("model_id", ["exact-2d", "exact-latents@flow_prediction"])
def test_their_distances_to_the_exact_solution_are_measured(engine, model_id):
    comparison, keys, runs = compared(engine, model_id, 8)
    info = engine.registry.describe(model_id)
    distances = dict(zip(keys, measure(engine, comparison, runs, "converged"), strict=True))
    assert floor(engine, runs) < 1e-6
    assert distances["exact"].rms_latents < 1e-4  # in 8 steps
    euler = distances["flow_euler" if info.flow_matching else "ddim"]
    assert 1e-3 < euler.rms_latents < 0.3


def test_a_shared_run_is_as_one_alone(engine):
    base = RunRequest(model_id="exact-2d", prompt="right or top", guidance_scale=2, seed=1,
                      num_inference_steps=6, **SIZE)
    comparison = Comparison.parse(base, ["scheduler=euler,heun,unipc"])
    together = engine.compare(comparison, shared=True)
    for cell, run in zip(comparison.cells, together, strict=True):
        alone = engine.run(cell.request, keep_latents=True)
        assert not alone.shared
        both = [engine.latents.get(one.latents_sha256) for one in (run, alone)]
        torch.testing.assert_close(*both, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_denoiser_answers_with_the_score_of_what_is_left(engine, kind):
    with engine.registry.borrow("exact-2d", kind) as (model, _):
        denoiser = model.pipe.denoiser
    x = torch.randn(3, 2, 1, 1, dtype=torch.float64, generator=make_generator(2))
    masks = torch.tensor([[True, True, True], [False, True, False], [True, False, True]])
    times = torch.tensor([700.0, 20.5, 300.0], dtype=torch.float64)
    answers = denoiser(x, times, components=masks)[0]
    for point, time, mask, answer in zip(x, times, masks, answers, strict=True):
        mixture = denoiser.mixture.given(mask.nonzero()[:, 0].tolist())
        signal, noise = denoiser.scale.signal_and_noise(time)
        seen = point.reshape(1, 2).requires_grad_()
        mixture.log_density(seen, signal, noise).sum().backward()
        epsilon = -noise * seen.grad
        x0 = (seen.detach() - noise * epsilon) / signal
        wanted = {"epsilon": epsilon, "sample": x0, "v_prediction": signal * epsilon - noise * x0,
                  "flow_prediction": epsilon - x0}[kind]
        torch.testing.assert_close(answer.reshape(1, 2), wanted)


@pytest.mark.parametrize(("fields", "message"), [
    ({"model_id": "exact-latents", "width": 128}, "accepted for a mixture of whole pictures: 64 x"),
    ({"model_id": "exact-2d@fp16"}, "revision: received 'fp16', accepted for exact-2d: epsilon"),
    ({"model_id": "postcards", "scheduler": "exact"}, "'exact', accepted for postcards"),
])
def test_what_does_not_fit_is_refused(engine, fields, message):
    run = engine.run(RunRequest(**{"model_id": "exact-2d", "num_inference_steps": 2, **fields}))
    assert run.status == "failed"
    assert re.search(message, run.error)


def test_a_prompt_that_names_no_component_is_noted(engine):
    base = RunRequest(model_id="exact-2d", num_inference_steps=2, **SIZE)
    plain, other = engine.run(base), engine.run(base.changed(prompt="a cat"))
    assert other.image_sha256 == plain.image_sha256
    assert other.notes == ["prompt: no effect, it names none of the components right, top, bottom; "
                           "all are left"]
    assert not engine.run(base.changed(prompt="A Top")).notes


def test_the_command_line_takes_them_without_a_prompt(run):
    code, out, err = run("generate", "--model-id", "exact-latents@flow_prediction",
                         "--num-inference-steps", "4", "--json")
    assert code == 0, err
    assert json.loads(out)["nfe"] == 4


def test_the_folders_are_as_they_are_built(tmp_path):
    build.build(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    shipped = sorted(path.relative_to(build.FOLDER) for path in build.FOLDER.rglob("*")
                     if path.is_file())
    assert files == shipped and len(files) == 48
    assert BUNDLED["exact-2d"] == build.FOLDER / "exact-2d" / "epsilon"
    for file in files:
        fresh, kept = tmp_path / file, build.FOLDER / file
        if file.suffix == ".json":
            assert json.loads(fresh.read_text()) == json.loads(kept.read_text()), file
        else:
            torch.testing.assert_close(load_file(fresh), load_file(kept), atol=1e-7, rtol=0)
