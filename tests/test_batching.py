"""Cells that share network calls: their pictures are those of plain pipeline calls."""

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from pipelines import CATALOGUE, Comparison, Engine, RunRequest
from pipelines.cli.check import small_inputs, two_step_request
from pipelines.errors import Cancelled, DeviceMemoryError
from pipelines.making import make_picture, make_pictures
from pipelines.models.registry import Registry
from pipelines.painting.call import call_arguments, picture_of, run_scheduler, set_scheduler
from pipelines.painting.resolve import fit, resolve
from pipelines.painting.result import RunResult

FITTING = [info.key for info in CATALOGUE if not info.flow_matching]
BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=6)
PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")


def together(model, requests, images=None, **options):
    results = {}
    make_pictures(model, requests, lambda request: images or {},
                  lambda number, result: results.update({number: result}), **options)
    return [results[number] for number in range(len(requests))]


def plain(model, request, images=None):
    """What a notebook gets: one call of the pipeline."""
    pipe = model.view(request.task)
    set_scheduler(pipe, run_scheduler(model, request))
    torch.manual_seed(request.seed)
    with torch.no_grad():
        return picture_of(pipe(**call_arguments(pipe, model.info, request, images or {})))


def difference(ours, theirs):
    assert isinstance(ours, RunResult), ours
    return np.abs(np.asarray(ours.image).astype(int) - np.asarray(theirs).astype(int)).max()


def counted_rows(network, work):
    """The rows of each call of a network during `work()`."""
    rows, forward = [], network.forward

    def counted(sample, *args, **kwargs):
        rows.append(len(sample))
        return forward(sample, *args, **kwargs)

    network.forward = counted
    try:
        work()
    finally:
        del network.forward
    return rows


@pytest.fixture
def model(session_engine):
    with session_engine.registry.borrow("postcards") as (model, _):
        yield model


@pytest.fixture
def new_model():
    """A model of which nothing is learnt yet."""
    with Registry("cpu").borrow("postcards") as (model, _):
        yield model


def test_a_call_that_is_spread_over_cores_gives_the_plain_pictures(new_model, two_cores):
    """Its first call is computed whole, then in parts; later ones as was faster."""
    requests = [resolve(BASE.changed(seed=seed, num_inference_steps=12), new_model.info)
                for seed in range(3)]
    results = []
    rows = counted_rows(new_model.pipe.unet,
                        lambda: results.extend(together(new_model, requests)))
    assert rows[:3] == [2, 1, 1], rows  # a cell's own call, then its halves
    for request, result in zip(requests, results, strict=True):
        assert difference(result, plain(new_model, request)) <= 2


@pytest.mark.parametrize("scheduler", FITTING)
def test_pictures_are_those_of_the_plain_pipeline(model, scheduler):
    """Guidance scales, seeds and prompts in one batch."""
    base = resolve(BASE.changed(scheduler=scheduler), model.info)
    requests = [
        base.changed(guidance_scale=1), base.changed(guidance_scale=5, seed=1),
        base.changed(guidance_scale=9, prompt="a cat", negative_prompt="snow"),
        base.changed(guidance_scale=5, guidance_rescale=0.7),
    ]
    for request, ours in zip(requests, together(model, requests), strict=True):
        alone = make_picture(model, request)
        assert difference(ours, plain(model, request)) <= 2
        assert difference(alone, plain(model, request)) <= 2
        assert (ours.latents - alone.latents).square().mean().sqrt() <= 1e-3
        assert ours.noise_sha256 == alone.noise_sha256
        assert (ours.nfe, ours.denoiser_rows) == (alone.nfe, alone.denoiser_rows)
        assert ours.shared
        assert not ours.notes
        assert not alone.shared


def test_schedulers_steps_eta_sizes_and_tasks_in_one_batch(model):
    requests = [
        resolve(BASE.changed(**values), model.info)
        for values in (
            {"scheduler": "ddim", "num_inference_steps": 3}, {"scheduler": "ddim", "eta": 1.0},
            {"scheduler": "heun"}, {"scheduler": "euler_a", "seed": 4}, {"scheduler": "lcm"},
            {"scheduler": "dpmpp_2m", "scheduler_options": {"use_karras_sigmas": True}},
            {"height": 96}, {"height": 96, "seed": 3},
            {"task": "image-to-image", "image": "0" * 64, "strength": 0.5},
            {"task": "image-to-image", "image": "0" * 64, "strength": 0.8, "scheduler": "unipc"},
        )
    ]
    images = {"image": PICTURE}
    for request, ours in zip(requests, together(model, requests, images), strict=True):
        assert difference(ours, plain(model, request, images)) <= 2, request
        assert ours.shared


def test_equal_rows_are_computed_once(model):
    """Three guidance scales from one noise: 2 first rows for all, then 1 + 2 + 2 a step."""
    base = resolve(BASE.changed(scheduler="ddim"), model.info)
    requests = [base.changed(guidance_scale=scale) for scale in (1, 3, 7)]
    together(model, requests)  # what is learnt takes calls of its own
    unet, text = model.pipe.unet, model.pipe.text_encoder
    assert sum(counted_rows(unet, lambda: together(model, requests))) == 2 + 5 * 5
    assert sum(counted_rows(text, lambda: together(model, requests))) == 2  # prompt and ""


def test_equal_input_pictures_are_encoded_once(model):
    base = resolve(BASE.changed(task="image-to-image", image="0" * 64, strength=0.5), model.info)
    requests = [base.changed(seed=seed) for seed in range(3)]
    images = {"image": PICTURE}
    together(model, requests, images)
    encoder = model.pipe.vae.encoder
    assert sum(counted_rows(encoder, lambda: together(model, requests, images))) == 1


def test_a_cell_that_diverges_leaves_the_others(model):
    bad = {"solver_type": "bh1", "final_sigmas_type": "zero"}
    requests = [resolve(BASE.changed(scheduler="unipc", scheduler_options=options), model.info)
                for options in ({}, bad)]
    good, failed = together(model, requests)
    assert good.image.size == (good.request.width, good.request.height)
    assert "not finite" in str(failed)


def test_a_network_whose_rows_depend_on_each_other_is_not_batched(new_model):
    """Proved on the model itself: the pictures stay right, and the runs say so."""
    unet = new_model.pipe.unet

    hook = unet.mid_block.register_forward_hook(
        lambda _module, _args, output: output + output.mean(0, keepdim=True))
    try:
        requests = [resolve(BASE.changed(seed=seed), new_model.info) for seed in range(3)]
        for request, ours in zip(requests, together(new_model, requests), strict=True):
            assert difference(ours, plain(new_model, request)) <= 2
            assert "unet: computed alone, its rows depend on the others" in ours.notes[0]
    finally:
        hook.remove()


def test_a_network_that_fails_with_a_batch_is_not_batched(new_model):
    def only_a_pair(_module, args):
        if len(args[0]) > 2:
            raise ValueError("two rows at most")

    hook = new_model.pipe.unet.conv_in.register_forward_pre_hook(only_a_pair)
    try:
        requests = [resolve(BASE.changed(seed=seed), new_model.info) for seed in range(3)]
        for request, ours in zip(requests, together(new_model, requests), strict=True):
            assert difference(ours, plain(new_model, request)) <= 2
            assert "two rows at most" in ours.notes[0]
    finally:
        hook.remove()


def test_rows_that_memory_does_not_hold_are_halved(new_model):
    """No cell starts again, and one that does not fit alone says what would."""
    requests = [resolve(BASE.changed(seed=seed, num_inference_steps=3), new_model.info)
                for seed in range(6)]
    pictures = [plain(new_model, request) for request in requests]
    unet, limit = new_model.pipe.unet, 5

    def limited(_module, args):
        if len(args[0]) > limit:
            raise torch.OutOfMemoryError("out of memory")

    hook = unet.conv_in.register_forward_pre_hook(limited)
    try:
        rows = counted_rows(unet, lambda: [
            pytest.fail(f"differs: {request}")
            for request, ours, theirs in zip(requests, together(new_model, requests), pictures,
                                             strict=True)
            if difference(ours, theirs) > 2])
        assert max(rows[-4:]) <= 5 < max(rows)
        limit = 0
        errors = together(new_model, requests)
        assert all(isinstance(error, DeviceMemoryError) for error in errors)
        assert "does not fit" in str(errors[0])
    finally:
        hook.remove()


def test_a_cell_keeps_its_own_global_random_numbers(model):
    """Some pipelines draw without their generator; the order of the cells must not matter."""
    requests = [resolve(BASE.changed(seed=seed, num_inference_steps=2), model.info)
                for seed in range(2)]
    drawn = {0: [], 1: []}
    together(model, requests,
             on_step=lambda number, step: drawn[number].append(torch.rand(1).item()))
    for number, request in enumerate(requests):
        alone = drawn.setdefault((number, "alone"), [])
        make_picture(model, request,
                     on_step=lambda step, alone=alone: alone.append(torch.rand(1).item()))
        assert drawn[number] == alone


def test_cancel_acts_within_one_network_call(model):
    requests = [resolve(BASE.changed(seed=seed), model.info) for seed in range(3)]
    together(model, requests)
    seen = []

    def check():
        if len(seen) == 4:
            raise Cancelled("stopped")

    def work():
        with pytest.raises(Cancelled):
            together(model, requests, check=check,
                     on_step=lambda number, step: seen.append(number) if number == 0 else None)

    assert sum(counted_rows(model.pipe.unet, work)) <= 4 * 6
    assert "forward" not in vars(model.pipe.unet)  # all is as it was
    assert torch.is_grad_enabled()


def test_a_shared_comparison_is_logged_and_marked(engine):
    comparison = Comparison.parse(BASE, ["scheduler=ddim,euler", "guidance_scale=1,5"])
    seen = []
    runs = engine.compare(comparison, on_cell=lambda number, run: seen.append(number),
                          shared=True)
    assert sorted(seen) == [0, 1, 2, 3]
    assert all(run.status == "ok" and run.shared and run.total_ms > 0 for run in runs)
    assert all(run.steps_sha256 for run in runs)
    assert [run.axes for run in runs] == [cell.axes for cell in comparison.cells]
    assert len({run.noise_sha256 for run in runs}) == 1
    assert not engine.run(BASE).shared


def test_the_first_cells_of_a_long_grid_come_within_a_third_of_it(model):
    """Counted in network calls: as if each row took a second."""
    requests = [resolve(BASE.changed(seed=seed), model.info) for seed in range(24)]
    calls, first = [], []
    for network in model.networks.values():
        network.row_seconds = 1.0 if network.denoises else network.row_seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.painting.batching.LONG_SECONDS", 0.0)
        rows = counted_rows(model.pipe.unet, lambda: make_pictures(
            model, requests, lambda request: {},
            lambda number, result: first or first.append(len(calls)),
            on_step=lambda number, step: calls.append(number)))
    assert first[0] <= len(calls) / 3 + 1
    assert max(rows) >= 8


def test_in_painting_cells_share(engine, picture):
    mask = engine.pictures.put(Image.linear_gradient("L").resize((64, 64)))
    base = BASE.changed(task="inpainting", image=picture, mask_image=mask)
    comparison = Comparison.parse(base, ["strength=0.5,1", "guidance_scale=1,5", "seed=0,1"])
    runs = engine.compare(comparison, shared=True)
    assert all(run.status == "ok" and run.shared for run in runs), [run.error for run in runs]
    assert [run.changed_unmasked_pixels for run in runs] == [0] * 8
    alone = engine.run(RunRequest(**runs[5].request))
    assert difference_of(engine, runs[5], alone) <= 2


def difference_of(engine, *runs):
    ours, theirs = (np.asarray(engine.pictures.get(run.image_sha256)).astype(int)
                    for run in runs)
    return np.abs(ours - theirs).max()


def test_a_bad_cell_in_a_shared_comparison_shows_its_error(engine):
    runs = engine.compare(Comparison.parse(BASE, ["height=64,60", "seed=0,1"]), shared=True)
    assert [run.status for run in runs] == ["ok", "ok", "failed", "failed"]


def test_cells_that_run_alone_say_so(engine):
    comparison = Comparison.parse(BASE, ["attention_backend=native,sliced", "seed=0,1"])
    runs = engine.compare(comparison, shared=True)
    assert [run.shared for run in runs] == [True, True, False, False]
    assert [any("not batched" in note for note in run.notes) for run in runs] == [
        False, False, True, True]


def test_cancel_in_a_shared_batch(engine):
    def stop(_number, _step):
        raise Cancelled("stopped")

    comparison = Comparison.parse(BASE, ["seed=0,1,2"])
    runs = engine.compare(comparison, stop, comparison_id="c", shared=True)
    assert runs == [None] * 3
    assert engine.run_log.comparison("c").status == "cancelled"


@pytest.fixture(scope="module")
def family_engine(tmp_path_factory):
    return Engine(tmp_path_factory.mktemp("home"), device="cpu")


CHANGES = ({"guidance_scale": 1.0}, {"guidance_scale": 4.0}, {"guidance_scale": 4.0, "seed": 1},
           {"num_inference_steps": 3, "seed": 2})


@pytest.mark.parametrize("name", sorted(tiny.FAMILIES))
def test_every_family_and_task_shares_with_the_plain_pictures(tiny_folder, family_engine, name):
    """Guidance scales, seeds and step counts, in each task that the family has."""
    engine = family_engine
    folder = str(tiny_folder(name))
    with engine.registry.borrow(folder) as (model, _), small_inputs(model.info):
        for task in model.tasks:
            base = two_step_request(engine, model.info, task)
            images = engine.images(base)
            requests = [resolve(base.changed(**change), model.info, engine.image_size(base))
                        for change in CHANGES]
            results = together(model, requests, images)
            for request, ours in zip(requests, results, strict=True):
                theirs = make_picture(model, request, images)
                if task != "inpainting":  # whose result is pasted
                    assert difference(theirs, plain(model, request, fit(request, images))) <= 2
                assert difference(ours, theirs.image) <= 2, (task, request)
                assert ours.shared, ours.notes
                assert ours.noise_sha256 == theirs.noise_sha256
                assert (ours.nfe, ours.denoiser_rows) == (theirs.nfe, theirs.denoiser_rows)
                assert not any("computed alone" in note for note in ours.notes), ours.notes
    engine.registry.unload(folder)
