"""Training of the bundled models: it survives a kill, and ends in a folder that loads."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.postcards import figures, vocabulary

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "pipelines" / "postcards" / "weights"
DDPM = ROOT / "pipelines" / "postcards" / "weights-ddpm"


@pytest.fixture(scope="module")
def tokenizer():
    from pipelines.postcards.model import make_tokenizer

    return make_tokenizer()


def test_each_known_word_is_one_token(tokenizer):
    assert [w for w in vocabulary.known_words() if len(tokenizer.tokenize(w)) != 1] == []
    assert len(tokenizer.tokenize("dragon")) > 1
    ids = tokenizer("a red car").input_ids
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_the_shipped_tokenizer_is_the_one_that_the_code_builds(tokenizer):
    from transformers import CLIPTokenizer

    shipped = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    for prompt in (*vocabulary.EXAMPLE_PROMPTS, "an unknown castle"):
        assert shipped(prompt).input_ids == tokenizer(prompt).input_ids


def test_orthogonalised_updates_have_equal_singular_values():
    import torch

    from pipelines.postcards.optimiser import orthogonalise

    torch.manual_seed(0)
    for shape in ((2, 8, 40), (2, 40, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5


def _loop(work, module, minutes):
    from pipelines.postcards.loop import Loop

    return Loop("toy", {"toy": module}, work, minutes, learning_rate=0.01, average=0.9)


def test_a_loop_goes_on_where_its_checkpoint_ended(tmp_path):
    import torch

    torch.manual_seed(0)
    module = torch.nn.Linear(4, 4)
    loop = _loop(tmp_path, module, minutes=60)
    inputs = torch.randn(32, 4)
    losses = []
    for _ in loop:
        loss = (module(inputs) - inputs).square().mean()
        losses.append(loss.item())
        loop.update(loss, 32)
        if len(losses) == 40:
            loop.save()
            break
    assert losses[-1] < losses[0]

    resumed = torch.nn.Linear(4, 4)
    loop_again = _loop(tmp_path, resumed, minutes=60)
    assert torch.equal(resumed.weight, module.weight)
    assert (loop_again.pictures, loop_again.optimiser.steps) == (40 * 32, 40)
    assert loop_again.seconds == pytest.approx(loop.seconds)
    for key, tensor in loop.optimiser.state().items():
        assert torch.equal(loop_again.optimiser.state()[key], tensor)


def test_training_survives_a_kill_and_gives_a_loadable_folder(tmp_path):
    from diffusers import AutoPipelineForText2Image

    from pipelines.postcards import train

    out, work = tmp_path / "out", tmp_path / "work"
    options = ["--out", str(out), "--work", str(work), "--pictures", "48", "--workers", "1"]
    command = [sys.executable, "-m", "pipelines.postcards.train", *options, "--minutes", "10"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("vae-training: checkpoint"):
                break
        process.kill()
    assert (work / "vae-training.safetensors").exists()
    assert not (work / "vae").exists()
    painted = (work / "training.npy").stat().st_mtime_ns

    train.main([*options, "--minutes", "0.01"])
    assert (work / "training.npy").stat().st_mtime_ns == painted
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]
    pipe = AutoPipelineForText2Image.from_pretrained(out, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red car", num_inference_steps=2).images[0].size == (64, 64)
    curve = (out.parent / "out-curves" / "unet-training.csv").read_text().splitlines()
    assert curve[0].startswith("seconds,steps,pictures,loss")

    with pytest.raises(SystemExit, match="holds a training of"):
        train.main([*options, "--pictures", "49", "--minutes", "0.01"])


def test_the_faster_precision_is_taken_once_each_was_tried():
    import torch

    from pipelines.postcards.loop import Precision

    seconds = {torch.float32: 1.0, torch.bfloat16: 12.0}
    precision, turns = Precision(), []
    while not precision.chosen:
        turns.append(precision.dtype)
        precision.record(seconds[precision.dtype] + 30 * (len(turns) == 1))  # the first warms up
    assert precision.dtype == torch.float32
    assert turns.count(torch.float32) == turns.count(torch.bfloat16) == Precision.TRIALS


def test_turbo_starts_from_postcards_and_ends_in_a_folder_of_few_steps(tmp_path, capsys):
    from diffusers import AutoPipelineForText2Image, LCMScheduler
    from safetensors.torch import load_file

    from pipelines.postcards import train

    train.main(["--model", "postcards-turbo", "--out", str(tmp_path / "turbo"), "--work",
                str(tmp_path / "work"), "--pictures", "48", "--workers", "1", "--minutes", "0.03"])
    pipe = AutoPipelineForText2Image.from_pretrained(tmp_path / "turbo", use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.scheduler) is LCMScheduler
    assert pipe("a red car", num_inference_steps=2, guidance_scale=1).images[0].size == (64, 64)
    for part, changed in (("unet", True), ("vae", False)):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        before, after = load_file(WEIGHTS / name), load_file(tmp_path / "turbo" / name)
        assert any((before[key] != after[key]).any() for key in before) == changed
    with pytest.raises(SystemExit, match="holds a training of"):
        train.main(["--out", str(tmp_path / "other"), "--work", str(tmp_path / "work"),
                    "--pictures", "48", "--workers", "1"])


def test_flow_learns_straight_lines_and_ends_in_a_folder_that_paints(tmp_path):
    from diffusers import AutoPipelineForText2Image

    from pipelines.postcards import train

    train.main(["--model", "postcards-flow", "--out", str(tmp_path / "flow"), "--work",
                str(tmp_path / "work"), "--pictures", "48", "--workers", "1", "--minutes", "0.03"])
    pipe = AutoPipelineForText2Image.from_pretrained(tmp_path / "flow", use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.scheduler.config.prediction_type == "flow_prediction"
    assert pipe("a red car", num_inference_steps=2).images[0].size == (64, 64)


def test_inpaint_sees_what_is_kept_and_ends_in_a_folder_that_repaints(tmp_path):
    from diffusers import AutoPipelineForInpainting
    from PIL import Image
    from safetensors.torch import load_file

    from pipelines.postcards import train

    train.main(["--model", "postcards-inpaint", "--out", str(tmp_path / "inpaint"), "--work",
                str(tmp_path / "work"), "--pictures", "48", "--workers", "1", "--minutes", "0.03"])
    pipe = AutoPipelineForInpainting.from_pretrained(tmp_path / "inpaint", use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.unet.config.in_channels == 9
    picture, mask = Image.new("RGB", (64, 64), "red"), Image.new("L", (64, 64), 255)
    made = pipe("a red car", picture, mask, height=64, width=64, num_inference_steps=2).images[0]
    assert made.size == (64, 64)
    conv_in = load_file(tmp_path / "inpaint/unet/diffusion_pytorch_model.safetensors")[
        "conv_in.weight"]
    assert conv_in[:, 4:].abs().amax((0, 2, 3)).min() > 0


def test_masks_hide_subjects_boxes_and_everything():
    import torch

    from pipelines.postcards.inpaint import sample_masks

    torch.manual_seed(0)
    subjects = torch.zeros(400, 1, 64, 64)
    subjects[:, :, 20:40, 10:50] = 1
    masks = sample_masks(subjects)
    assert masks.shape == subjects.shape and set(masks.unique().tolist()) == {0, 1}
    covers = (masks * subjects).sum((1, 2, 3)) == subjects.sum((1, 2, 3))
    assert 0.55 < covers.float().mean() < 0.85
    assert 0.02 < (masks.mean((1, 2, 3)) == 1).float().mean() < 0.09
    assert sample_masks(torch.zeros(40, 1, 64, 64)).mean((1, 2, 3)).min() > 0


@pytest.mark.parametrize("name", ["line", "teapot"])
def test_an_adapter_is_trained_and_goes_on_postcards(tmp_path, name):
    """It changes what is painted, and nothing when its weight is 0."""
    import torch
    from diffusers import AutoPipelineForText2Image

    from pipelines.postcards import train

    train.main(["--model", f"postcards-{name}", "--out", str(tmp_path / name), "--work",
                str(tmp_path / "work"), "--minutes", "0.02", "--pictures", "48", "--workers", "1"])
    pipe = AutoPipelineForText2Image.from_pretrained(WEIGHTS, use_safetensors=True)

    def painted():
        return pipe(f"a red {name}", num_inference_steps=1, output_type="latent",
                    generator=torch.Generator().manual_seed(0)).images

    before = painted()
    pipe.load_lora_weights(tmp_path, weight_name=f"{name}.safetensors", adapter_name=name)
    assert len(pipe.get_list_adapters()["unet"]) == 1
    assert (painted() - before).abs().max() > 1e-4
    pipe.set_adapters([name], [0.0])
    assert (painted() - before).abs().max() < 1e-5


def test_captions_of_the_new_subject_are_those_of_others():
    from random import Random

    from pipelines.postcards.lora import new_subject_caption, new_subject_scene

    for seed in range(300):
        rng = Random(seed)
        scene = new_subject_scene(rng)
        assert vocabulary.unknown_words(new_subject_caption(scene, rng)) in (
            [], ["teapot"], ["teapots"])


# The unconditional DDPM


@pytest.fixture(scope="module")
def ddpm_pictures():
    from pipelines.models.registry import Registry

    registry = Registry("cpu")
    return registry, figures.sample_ddpm(registry, 24, scheduler="ddim", num_inference_steps=20)


def test_the_ddpm_is_a_small_standard_folder():
    from diffusers import DiffusionPipeline

    files = [path for path in DDPM.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6e6
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    pipe = DiffusionPipeline.from_pretrained(DDPM, use_safetensors=True)
    assert type(pipe).__name__ == "DDPMPipeline"
    assert pipe.scheduler.config.clip_sample is True
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(num_inference_steps=2).images[0]
    assert picture.size == (32, 32)


def test_the_ddpm_paints_postcards_of_many_kinds(ddpm_pictures):
    from pipelines.postcards.classifier import classify, load_classifier

    pictures = np.stack([np.asarray(picture) for picture in ddpm_pictures[1]]).astype(float)
    contrast = pictures.std((1, 2, 3))
    roughness = np.abs(np.diff(pictures, axis=1)).mean((1, 2, 3))
    assert contrast.min() > 20
    assert (roughness / contrast).max() < 0.6  # noise: above 1
    seen = classify(load_classifier(), ddpm_pictures[1])
    assert len({row["subject"] for row in seen}) >= 6
    assert {row["time"] for row in seen} == set(vocabulary.TIMES)


def test_the_ddpm_repeats_for_a_seed(ddpm_pictures):
    registry, pictures = ddpm_pictures
    again = figures.sample_ddpm(registry, 2, scheduler="ddim", num_inference_steps=20)
    other = figures.sample_ddpm(registry, 1, 100, scheduler="ddim", num_inference_steps=20)
    difference = np.abs(np.asarray(again[1]).astype(int) - np.asarray(pictures[1]))
    assert difference.max() <= 2  # batches of other sizes round otherwise
    assert np.abs(np.asarray(other[0]).astype(int) - np.asarray(pictures[0])).mean() > 10


def test_the_ddpm_is_trained_by_the_same_command(tmp_path):
    from diffusers import DDPMPipeline

    from pipelines.postcards import train

    out, work = tmp_path / "out", tmp_path / "work"
    options = ["--model", "postcards-ddpm", "--out", str(out), "--work", str(work)]
    train.main([*options, "--pictures", "48", "--workers", "1", "--minutes", "0.01"])
    pipe = DDPMPipeline.from_pretrained(out, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    assert pipe(num_inference_steps=1).images[0].size == (32, 32)
    shipped = json.loads((DDPM / "scheduler" / "scheduler_config.json").read_text())
    assert json.loads((out / "scheduler" / "scheduler_config.json").read_text()) == shipped
    curve = (tmp_path / "out-curves" / "ddpm-training.csv").read_text().splitlines()
    assert curve[0].startswith("seconds,steps,pictures,loss")
