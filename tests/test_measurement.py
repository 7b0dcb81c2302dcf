import math

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import Comparison, RequestError, RunRequest, measuring
from pipelines.errors import Cancelled
from pipelines.measuring import CONVERGED, reference_cells
from pipelines.models.files import BUNDLED
from pipelines.stores import LatentStore

BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=4)


@pytest.fixture
def quick(monkeypatch):
    """A reference of few steps, where the test is not about how good it is."""
    monkeypatch.setattr("pipelines.measuring.CONVERGED_BY", ("dpmpp_2m_karras", {}, 12))


def compare(engine, *axes, base=BASE, **options):
    comparison = Comparison.parse(base, axes)
    return comparison, engine.compare(comparison, **options)


def test_latents_of_a_comparison_are_kept_and_make_its_pictures(engine):
    _, runs = compare(engine, "scheduler=ddim,euler_a", shared=True)
    with engine.registry.borrow("postcards") as (model, _):
        pipe = model.pipe
        for run in runs:
            latents = engine.latents.get(run.latents_sha256)[None]
            decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
            image = np.asarray(pipe.image_processor.postprocess(decoded.detach())[0], int)
            assert np.abs(image - engine.pictures.get(run.image_sha256)).max() <= 1  # of 255
    assert engine.run(BASE).latents_sha256 is None


def test_latents_of_inpainting_are_those_that_were_decoded(engine, picture):
    corner = Image.new("L", (64, 64))
    corner.paste(255, (0, 0, 16, 16))
    base = BASE.changed(task="inpainting", image=picture, strength=0.9,
                        mask_image=engine.pictures.put(corner))
    _, (one, other) = compare(engine, "scheduler=ddim,euler", base=base)
    apart = engine.latents.get(one.latents_sha256) - engine.latents.get(other.latents_sha256)
    assert apart[:, -4:, -4:].abs().max() == 0, "the known area was put back"
    assert apart.abs().max() > 0


def test_a_latent_is_stored_once_in_its_own_dtype(tmp_path):
    store = LatentStore(tmp_path)
    latents = torch.randn(4, 2, 2).half()
    assert store.put(latents) == store.put(latents.clone())
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert torch.equal(store.get(store.put(latents)), latents)


def test_distances_to_a_cell(engine):
    comparison, runs = compare(engine, "scheduler=ddim,euler", "guidance_scale=1,5")
    assert reference_cells(comparison, "scheduler=euler") == [2, 3, 2, 3]
    assert reference_cells(comparison, "scheduler=euler, guidance_scale=5") == [3] * 4
    found = measuring.measure(engine, comparison, runs, "scheduler=euler,guidance_scale=5")
    assert (found[3].rms_latents, found[3].psnr, found[3].ssim) == (0.0, None, pytest.approx(1))
    latents = [engine.latents.get(runs[n].latents_sha256) for n in (0, 3)]
    assert found[0].rms_latents == pytest.approx((latents[0] - latents[1]).pow(2).mean().sqrt())
    pixels = [np.asarray(engine.pictures.get(runs[n].image_sha256)).astype(float) for n in (0, 3)]
    mean_square = ((pixels[0] - pixels[1]) ** 2).mean()
    assert found[0].psnr == pytest.approx(10 * math.log10(255**2 / mean_square))
    assert 0 < found[0].ssim < 1
    assert (found[3].flip, found[0].flip) == (0, pytest.approx(measuring.flip(
        *(engine.pictures.get(runs[n].image_sha256) for n in (0, 3)))))


def test_flip_knows_equal_pictures_opposite_ones_and_what_lies_between():
    """Andersson et al. 2020: 0 for equal pictures, and no more than 1."""
    black, white = (Image.new("RGB", (32, 32), colour) for colour in ("black", "white"))
    green, blue = (Image.new("RGB", (32, 32), colour) for colour in ((0, 255, 0), (0, 0, 255)))
    grey = Image.new("RGB", (32, 32), (20, 20, 20))
    assert measuring.flip(grey, grey) == 0
    assert 0 < measuring.flip(grey, black) < measuring.flip(white, black) <= 1
    assert measuring.flip(green, blue) > 0.9, "the largest distance of colours"
    assert measuring.flip(black, Image.new("RGB", (16, 32))) is None


def test_distances_of_an_older_version_get_what_it_did_not_measure(engine):
    comparison, runs = compare(engine, "scheduler=ddim,euler")
    (_, before) = measuring.measure(engine, comparison, runs, "scheduler=ddim")
    value, before.flip = before.flip, None
    engine.run_log.keep_distance(before)
    assert measuring.distances(engine, comparison, runs, "scheduler=ddim")[1].flip is None
    assert measuring.measure(engine, comparison, runs, "scheduler=ddim")[1].flip == value > 0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "accepted 'converged' or a cell of the axes scheduler, prompt"),
        ("converge", "'converge'"),
        ("guidance_scale=5", "axes scheduler, prompt"),
        ("scheduler=heun", "no 'heun'; it has ddim, euler"),
        ("scheduler=eular", "'eular'"),
    ],
)
def test_a_reference_that_is_no_cell(engine, text, part):
    comparison = Comparison.parse(BASE, ["scheduler=ddim,euler", "prompt=a car, red || a cat"])
    with pytest.raises(RequestError, match=part):
        reference_cells(comparison, text)
    assert reference_cells(comparison, "prompt=a car, red,scheduler=euler") == [2] * 4


def test_the_converged_picture_is_made_once_per_guidance_scale(engine, quick):
    axes = ("scheduler=ddim,euler", "guidance_scale=1,5")
    comparison, runs = compare(engine, *axes)
    assert measuring.distances(engine, comparison, runs, CONVERGED) == [None] * 4
    first = measuring.measure(engine, comparison, runs, CONVERGED)
    made = engine.run_log.runs(scheduler="dpmpp_2m_karras")
    assert sorted(r.num_inference_steps for r in made) == [6, 12, 12]
    assert [r.comparison_id for r in made] == [None] * 3
    assert {run.noise_sha256 for run in made} == {runs[0].noise_sha256}
    assert first[0].reference_id == first[2].reference_id != first[1].reference_id
    again, runs = compare(engine, *axes)
    measuring.measure(engine, again, runs, CONVERGED)
    assert engine.run_log.count(scheduler="dpmpp_2m_karras") == 3
    known = measuring.distances(engine, again, runs, CONVERGED)
    assert [d.rms_latents for d in known] == [d.rms_latents for d in first]


def test_the_reference_tells_its_own_error(engine, quick):
    comparison, runs = compare(engine, "seed=0")
    assert measuring.floor(engine, runs) == 0
    wanted = measuring.references_to_make(engine, comparison, runs, CONVERGED)
    assert [request.num_inference_steps for request in wanted] == [12, 6]
    measuring.measure(engine, comparison, runs, CONVERGED)
    half, whole = sorted(engine.run_log.runs(scheduler="dpmpp_2m_karras"),
                         key=lambda run: run.num_inference_steps)
    apart = (engine.latents.get(half.latents_sha256) - engine.latents.get(whole.latents_sha256))
    assert measuring.floor(engine, runs) == pytest.approx(apart.pow(2).mean().sqrt().item())
    assert measuring.references_to_make(engine, comparison, runs, CONVERGED) == []


def test_cells_of_changed_weights_keep_their_distance_and_get_no_new_one(engine, quick, tmp_path):
    """The same path, the same request, and weights that were trained on in between."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(BUNDLED["postcards"], tmp_path / "model")
    base = BASE.changed(model_id=str(folder))
    measured = compare(engine, "seed=0", base=base)
    before = measuring.measure(engine, *measured, CONVERGED)
    late = compare(engine, "seed=1", base=base)
    weights = next((folder / "unet").glob("*.safetensors"))
    save_file({name: value * 1.01 for name, value in load_file(weights).items()}, weights)
    assert measuring.distances(engine, *measured, CONVERGED)[0].rms_latents == before[0].rms_latents
    (made,) = engine.run_log.runs(scheduler="dpmpp_2m_karras", limit=1)
    older = {name: value for name, value in made.request.items() if name != "eta"}
    engine.run_log.update(made, request=older)  # written before the request had that field
    assert measuring.distances(engine, *measured, CONVERGED) != [None]
    assert measuring.measure(engine, *late, CONVERGED) == [None], "it cannot be made now"
    assert measuring.references_to_make(engine, *late, CONVERGED) == []
    with engine.registry.borrow(str(folder)) as (_, fresh):
        assert fresh, "a loaded model whose files changed is loaded again"
    again = compare(engine, "seed=1", base=base)
    assert again[1][0].image_sha256 != late[1][0].image_sha256
    engine.registry.unload(str(folder))


def test_cancel_while_the_converged_picture_is_made(engine, quick):
    comparison, runs = compare(engine, "seed=0")

    def stop(_step):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        measuring.measure(engine, comparison, runs, CONVERGED, stop)
    assert measuring.distances(engine, comparison, runs, CONVERGED) == [None]


def test_cells_of_other_sizes_and_failed_cells_have_no_distance(engine):
    comparison, runs = compare(engine, "height=64,72,60")
    found = measuring.measure(engine, comparison, runs, "height=64")
    assert found[0].rms_latents == 0
    assert (found[1].rms_latents, found[1].psnr, found[1].ssim) == (None, None, None)
    assert found[2] is None


def test_a_file_that_is_gone_costs_its_cell_only(engine):
    comparison, runs = compare(engine, "seed=0,1,2")
    engine.pictures.path(runs[1].image_sha256).unlink()
    found = measuring.measure(engine, comparison, runs, "seed=0")
    assert [d is None for d in found] == [False, True, False]


def test_multistep_solvers_are_closer_at_ten_evaluations(engine):
    """Lu et al. 2022 and Zhao et al. 2023, here; with the real reference."""
    base = RunRequest(prompt="a cat", seed=3, num_inference_steps=10, guidance_scale=1)
    comparison, runs = compare(engine, "scheduler=ddim,euler,dpmpp_2m,unipc", base=base,
                               shared=True)
    found = measuring.measure(engine, comparison, runs, CONVERGED)
    assert {run.nfe for run in runs} == {10}
    for name, sign in (("rms_latents", -1), ("psnr", 1), ("ssim", 1)):
        ddim, euler, dpmpp_2m, unipc = (sign * getattr(d, name) for d in found)
        assert min(dpmpp_2m, unipc) > max(ddim, euler), name
