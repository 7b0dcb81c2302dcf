import time

import diffusers
import numpy as np
import pytest
import torch

from pipelines import Comparison, RunRequest
from pipelines.errors import Cancelled, StorageError
from pipelines.making import make_picture
from pipelines.painting.previews import (
    LONGEST_SIDE,
    MAX_KEPT,
    StepKeeper,
    draw_strip,
    kept_steps,
    predicted_x0,
)
from pipelines.painting.resolve import resolve

BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=6)


def frames(engine, run):
    """The strip as one array per kept step."""
    strip = np.asarray(engine.pictures.get(run.steps_sha256)).astype(int)
    return np.split(strip, len(run.steps_shown), axis=1)


@pytest.mark.parametrize("total", [1, 2, 7, MAX_KEPT, MAX_KEPT + 1, 999])
def test_steps_are_kept_evenly_and_the_last_among_them(total):
    kept = kept_steps(total)
    assert kept == sorted(set(kept))
    assert len(kept) == min(total, MAX_KEPT)
    assert kept[-1] == total
    assert total == 1 or kept[0] == 1
    assert max(np.diff(kept), default=1) <= -(-total // MAX_KEPT) + 1


@pytest.mark.parametrize("scheduler", ["ddim", "heun", "euler_a"])
def test_a_run_keeps_a_strip_that_ends_in_its_picture(engine, scheduler):
    run = engine.run(BASE.changed(scheduler=scheduler))
    assert run.steps_shown == list(range(1, run.nfe + 1))
    final = np.asarray(engine.pictures.get(run.image_sha256)).astype(int)
    distances = [np.abs(frame - final).mean() for frame in frames(engine, run)]
    assert distances[-1] < 3 < distances[0] / 3


def test_a_long_run_keeps_a_bounded_strip(engine, monkeypatch):
    monkeypatch.setattr("pipelines.painting.previews.MAX_KEPT", 4)
    run = engine.run(BASE.changed(num_inference_steps=8))
    assert run.steps_shown == [1, 3, 6, 8]
    assert engine.pictures.get(run.steps_sha256).size == (64 * 4, 64)


def test_shared_cells_keep_the_same_strips(engine):
    base = BASE.changed(num_inference_steps=3)
    comparison = Comparison.parse(base, ["scheduler=ddim,heun", "guidance_scale=1,5"])
    alone, shared = engine.compare(comparison), engine.compare(comparison, shared=True)
    for one, other in zip(alone, shared, strict=True):
        assert engine.run_log.run(other.id).steps_shown == one.steps_shown == other.steps_shown
        for ours, theirs in zip(frames(engine, one), frames(engine, other), strict=True):
            assert np.abs(ours - theirs).max() <= 3


def test_a_strip_where_decoding_costs_too_much(engine):
    """The linear map is told from one picture; it shows that picture and no other one."""
    with engine.registry.borrow("postcards") as (model, _):
        pipe = model.view("text-to-image")
        last, pictures = [], []
        for prompt in ("a red car on a road at night", "a yellow balloon in the desert"):
            result = make_picture(model, resolve(BASE.changed(prompt=prompt), model.info))
            strip = draw_strip(pipe, result.steps, result.image, result.timings, quick=True)
            assert strip.size == (LONGEST_SIDE * 6, LONGEST_SIDE)
            frame = strip.crop((LONGEST_SIDE * 5, 0, *strip.size)).resize((64, 64))
            last.append(np.asarray(frame).astype(int))
            pictures.append(np.asarray(result.image).astype(int))
    for mine, other in ((0, 1), (1, 0)):
        assert np.abs(last[mine] - pictures[mine]).mean() < 15
        assert np.abs(last[mine] - pictures[other]).mean() > 30


def test_keeping_steps_is_in_no_timing(engine, monkeypatch):
    look = StepKeeper.look

    def slow(*arguments):
        time.sleep(0.2)
        look(*arguments)

    engine.run(BASE)
    monkeypatch.setattr(StepKeeper, "look", slow)
    started = time.perf_counter()
    run = engine.run(BASE)
    elapsed = 1000 * (time.perf_counter() - started)
    assert elapsed > 6 * 200
    assert max(sum(run.step_ms), run.total_ms) <= elapsed - 6 * 200


def test_after_a_cancel_the_steps_are_drawn_the_quick_way(engine):
    made = []

    def stop():
        if made:
            raise Cancelled("stopped")

    comparison = Comparison.parse(BASE, ["seed=0,1"])
    engine.compare(comparison, None, lambda number, _: made.append(number), "c", shared=True,
                   check=stop)
    for run in engine.run_log.runs(comparison_id="c"):
        assert run.steps_shown == [1, 2, 3, 4, 5, 6]
        assert engine.pictures.get(run.steps_sha256).height == LONGEST_SIDE
    assert engine.run_log.comparison("c").status == "done"


def test_a_strip_that_fails_costs_no_picture(engine, monkeypatch):
    monkeypatch.setattr("pipelines.painting.previews._pictures", lambda _: 1 / 0)
    run = engine.run(BASE)
    assert (run.status, run.steps_sha256, run.steps_shown) == ("ok", None, [])
    assert run.notes == [
        "steps: missing, since computing it failed (ZeroDivisionError: division by zero)"]


@pytest.mark.parametrize("extra", [
    "previews.StepKeeper.look", "previews.StepKeeper.finish", "probe.decoded",
    "generation.noise_sha256", "generation.effect_notes", "timing.MemoryWatch.look",
    "timing.MemoryWatch.peak_bytes",
])  # fmt: skip
def test_what_fails_beside_a_picture_is_a_note(engine, monkeypatch, extra):
    """The fault is put where the extra is computed; without it the run has the same picture."""
    whole = engine.run(BASE)

    def fails(*_arguments):
        raise TypeError("expected m1 and m2 to have the same dtype")

    monkeypatch.setattr(f"pipelines.painting.{extra}", fails)
    run = engine.run(BASE, lambda step: step.preview())
    assert (run.status, run.error) == ("ok", None)
    assert run.image_sha256 == whole.image_sha256
    assert len([note for note in run.notes if "missing, since" in note and "m1 and m2" in note]) > 0
    assert len(set(run.notes)) == len(run.notes)


def test_a_strip_or_latents_that_cannot_be_stored_cost_no_picture(engine, monkeypatch):
    def full(*_arguments):
        raise StorageError("no space left")

    monkeypatch.setattr("pipelines.stores.LatentStore.put", full)
    monkeypatch.setattr("pipelines.strips.draw_strip", full)
    run = engine.run(BASE, keep_latents=True)
    assert run.status == "ok"
    assert engine.pictures.get(run.image_sha256)
    assert [note.split(":")[0] for note in run.notes] == ["latents", "steps"]


def test_a_preview_may_still_be_cancelled(engine, monkeypatch):
    def stopped(*_arguments):
        raise Cancelled("stopped")

    monkeypatch.setattr("pipelines.painting.probe.decoded", stopped)
    assert engine.run(BASE, lambda step: step.preview()).status == "cancelled"


@pytest.mark.parametrize("betas", [{}, {"rescale_betas_zero_snr": True}])
def test_float64_noise_schedules_have_a_predicted_x0(betas):
    """CogView3Plus has one of CogVideoX's schedulers."""
    scheduler = diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", **betas)
    noise = torch.ones(2, 1, 4, 8, 8)
    x0 = predicted_x0(scheduler, noise, torch.tensor([500, 999]), noise)
    assert x0.dtype == torch.float32
    assert x0.isfinite().all()


def test_a_denoiser_of_an_unknown_name_costs_its_count_only(engine, monkeypatch):
    monkeypatch.setattr("pipelines.painting.probe.denoiser_of", lambda _pipe: None)
    run = engine.run(BASE)
    assert (run.status, run.nfe, len(run.step_ms)) == ("ok", 0, 6)
