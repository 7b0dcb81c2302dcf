"""The postcards model: words, painter, training, judge and the shipped weights."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from pipelines.postcards import behaviour, figures, judge, vocabulary
from pipelines.postcards.painter import paint, paint_with_mask
from pipelines.postcards.vocabulary import Scene

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "pipelines" / "postcards" / "weights"
DDPM = ROOT / "pipelines" / "postcards" / "weights-ddpm"
RED_CAR = Scene("car", "red", "road", "night", extras=frozenset({"moon"}))


# Words and scenes


def test_importing_the_package_stays_light():
    code = "import sys, pipelines.postcards.judge, pipelines.postcards.vocabulary as v; "
    code += "print(len(v.known_words()), 'torch' in sys.modules, 'streamlit' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[1:] == ["False", "False"]


def test_held_out_combinations_never_occur_in_training():
    held_out = set(vocabulary.held_out_combinations())
    rng = Random(0)
    seen = [vocabulary.sample_scene(rng) for _ in range(5000)]
    assert not held_out & {(scene.subject, scene.colour, scene.place) for scene in seen}
    scenes = [want.scene for want in judge.held_out_captions(400)]
    asked = {(scene.subject, scene.colour, scene.place) for scene in scenes}
    assert asked == held_out
    for index in range(3):
        values = (vocabulary.SUBJECTS, vocabulary.COLOURS, vocabulary.PLACES)[index]
        assert {combination[index] for combination in held_out} == set(values)


def test_captions_use_known_words_and_are_true():
    rng = Random(1)
    for _ in range(2000):
        scene = vocabulary.sample_scene(rng)
        text = vocabulary.caption(scene, rng)
        assert vocabulary.unknown_words(text) == []
        others = set(vocabulary.COLOURS) - {scene.colour, "orange", "white", "blue", "green"}
        assert not others & set(text.replace(",", "").split())


def test_extras_are_named_in_a_minority_of_captions():
    rng = Random(2)
    sunny = replace(RED_CAR, time="day", extras=frozenset({"sun"}))
    named = sum("sun" in vocabulary.caption(sunny, rng).split() for _ in range(2000)) / 2000
    assert 0.2 < named < 0.4


def test_unknown_words_are_found_in_order_and_once():
    assert vocabulary.unknown_words("A Dragon on a ROAD, dragon near a castle!") == [
        "dragon",
        "near",
        "castle",
    ]
    for prompt in vocabulary.EXAMPLE_PROMPTS:
        assert vocabulary.unknown_words(prompt) == []


# Painter


def test_the_painter_repeats_for_a_seed():
    first, again = (np.asarray(paint(RED_CAR, Random(5))) for _ in range(2))
    other = np.asarray(paint(RED_CAR, Random(6)))
    assert first.shape == (64, 64, 3)
    assert (first == again).all()
    assert (first != other).any()
    assert paint(RED_CAR, Random(5), size=128).size == (128, 128)


@pytest.mark.parametrize("subject", vocabulary.SUBJECTS)
def test_the_mask_covers_what_the_subject_changes(subject):
    scene = replace(RED_CAR, subject=subject, time="day", extras=frozenset())
    red, mask = paint_with_mask(scene, Random(3), 128)
    blue, same = paint_with_mask(replace(scene, colour="blue"), Random(3), 128)
    mask, same = np.asarray(mask), np.asarray(same)
    assert (mask == same).all()
    changed = np.abs(np.asarray(red).astype(int) - np.asarray(blue)).max(-1) > 8
    assert changed.any()
    assert not (changed & (mask == 0)).any()
    assert changed.sum() > 0.25 * (mask > 128).sum()
    assert 0.03 < (mask > 128).mean() < 0.45


# Model and training


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


# The shipped weights


@pytest.fixture(scope="module")
def pipe():
    from diffusers import AutoPipelineForText2Image

    pipe = AutoPipelineForText2Image.from_pretrained(WEIGHTS, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_folder_is_small_and_safe():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 16e6
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert (WEIGHTS / "judge.safetensors").stat().st_size < 1.5e6


def test_the_scheduler_config_suits_every_compatible_class():
    config = json.loads((WEIGHTS / "scheduler" / "scheduler_config.json").read_text())
    wanted = {
        "_class_name": "DPMSolverMultistepScheduler",
        "timestep_spacing": "trailing",
        "prediction_type": "v_prediction",
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
    assert {key: config[key] for key in wanted} == wanted


def test_the_folder_serves_three_tasks(pipe):
    import torch
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

    scene = replace(RED_CAR, colour="yellow")
    picture, mask = paint_with_mask(scene, Random(7))
    options = {"num_inference_steps": 4, "image": picture, "strength": 0.8}
    options["generator"] = torch.Generator().manual_seed(0)
    image_to_image = AutoPipelineForImage2Image.from_pipe(pipe)
    inpainting = AutoPipelineForInpainting.from_pipe(pipe)
    assert image_to_image("a blue car", **options).images[0].size == (64, 64)
    repainted = inpainting("a blue car on a road at night", mask_image=mask, **options).images[0]
    far = np.asarray(mask) == 0
    far[:, :][_grown(np.asarray(mask) > 0, 12)] = False
    difference = np.abs(np.asarray(repainted).astype(int) - np.asarray(picture)).mean(-1)
    assert difference[far].mean() < 0.5 * difference[np.asarray(mask) > 128].mean()


def _grown(mask, pixels):
    rows, columns = np.nonzero(mask)
    grown = np.zeros_like(mask)
    for row, column in zip(rows, columns, strict=True):
        grown[max(0, row - pixels) : row + pixels, max(0, column - pixels) : column + pixels] = True
    return grown


# Judge


@pytest.fixture(scope="module")
def model(session_engine):
    with session_engine.registry.borrow("postcards") as (model, _):
        return model


def test_the_model_paints_what_it_is_asked_for(capsys):
    code = judge.main(["--json", "--count", "24", "--num-inference-steps", "12"])
    shown = capsys.readouterr()
    assert code == 0
    assert len(shown.out.splitlines()) == 1
    report = json.loads(shown.out)
    assert set(report["generated"]) == set(report["real"]) == {"subject", "colour", "scene"}
    assert (report["guidance_scale"], report["captions"], report["seed"]) == (5, 24, 0)
    assert min(report["real"].values()) > 0.95
    assert report["generated"]["subject"] > 0.85
    assert report["generated"]["colour"] > 0.85
    assert report["generated"]["scene"] > 0.9


def test_the_judge_sees_what_was_not_asked_for():
    wanted = judge.held_out_captions(59)
    pictures = judge.paint_wanted(wanted)
    assert min(judge.accuracy(pictures, wanted).values()) > 0.95
    assert max(judge.accuracy(pictures, wanted[1:] + wanted[:1]).values()) < 0.4


def test_the_judge_takes_captions_from_a_file(tmp_path, capsys):
    path = tmp_path / "captions.jsonl"
    rows = [
        {"caption": "a red car on a road", "subject": "car", "colour": "red", "scene": "road"},
        {"caption": "a white cat in snow", "subject": "cat", "colour": "white", "scene": "snow"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    options = ["--captions", str(path), "--num-inference-steps", "2", "--json"]
    sheet = tmp_path / "sheet.png"
    assert judge.main([*options, "--scheduler", "DDIMScheduler", "--sheet", str(sheet)]) == 0
    assert Image.open(sheet).size == (132, 66)
    report = json.loads(capsys.readouterr().out)
    assert report["captions"] == 2
    assert report["generated"].keys() == report["real"].keys() == {"subject", "colour", "scene"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("{broken", ["line 2", "subject: car, house", "colour: red"]),
        ('["a red car"]', ["line 2", "caption"]),
        ('{"caption": "x", "subject": "car", "colour": "red"}', ["line 2", "scene", "meadow"]),
        (
            '{"caption": "x", "subject": "dragon", "colour": "red", "scene": "sea"}',
            ["line 2", "'dragon'", "mushroom"],
        ),
        (
            '{"caption": "x", "subject": "car", "colour": "teal", "scene": "sea"}',
            ["line 2", "'teal'", "purple"],
        ),
    ],
)
def test_a_bad_caption_line_is_named(tmp_path, capsys, line, wanted):
    path = tmp_path / "captions.jsonl"
    good = '{"caption": "a red car", "subject": "car", "colour": "red", "scene": "road"}'
    path.write_text(f"{good}\n{line}\n")
    assert judge.main(["--captions", str(path), "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    for part in wanted:
        assert part in shown.err


def test_the_judge_takes_the_catalogues_keys_and_class_names(model, capsys):
    made = [
        judge.generate(model, ["a red car"], num_inference_steps=2, scheduler=name)[0].tobytes()
        for name in ("ddim", "DDIMScheduler", "euler")
    ]
    assert made[0] == made[1] != made[2]
    assert judge.main(["--count", "1", "--scheduler", "NoSuchScheduler"]) == 2
    assert "'NoSuchScheduler', accepted ddim, ddpm, pndm" in capsys.readouterr().err


def test_the_judge_sees_every_detail_of_a_painted_picture():
    wanted = judge.detailed_captions(240)
    assert {name for want in wanted for name in want.named} == set(vocabulary.ATTRIBUTES)
    for want in wanted:
        assert vocabulary.unknown_words(want.caption) == []
    real = judge.accuracy(judge.paint_wanted(wanted), wanted)
    assert min(real.values()) > 0.9
    bare = [replace(want, scene=replace(want.scene, extras=frozenset())) for want in wanted]
    without = judge.accuracy(judge.paint_wanted(bare), wanted)
    assert max(without[extra] for extra in vocabulary.EXTRAS) < 0.2


def test_the_judge_prints_its_tables_as_markdown(monkeypatch, capsys):
    monkeypatch.setattr(judge, "TABLE_GUIDANCE_SCALES", (1, 5))
    monkeypatch.setattr(judge, "TABLE_SCHEDULERS", ("ddim",))
    monkeypatch.setattr(judge, "TABLE_STEPS", (1, 2))
    options = ["--count", "4", "--num-inference-steps", "2", "--table"]
    for kind, wanted in (
        ("guidance", ["guidance_scale", "---", "1", "5", "painted pictures"]),
        ("schedulers", ["scheduler", "---", "ddim"]),
    ):
        assert judge.main([*options, kind]) == 0
        rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
        assert [row.split("|")[1].strip() for row in rows] == wanted
        assert len({row.count("|") for row in rows}) == 1
    with pytest.raises(SystemExit):
        judge.main([*options, "guidance", "--json"])
    assert "--table" in capsys.readouterr().err


def test_the_judge_refuses_a_model_without_prompts(capsys):
    assert judge.main(["--count", "1", "--model", "postcards-ddpm"]) == 2
    assert "unconditional" in capsys.readouterr().err


# Behaviour: what the model card promises


def test_guidance_trades_variety_for_colour(model):
    low, middle, high = (
        behaviour.guidance_figures(model, scale, 16, num_inference_steps=10) for scale in (1, 3, 15)
    )
    assert low[0] > middle[0]
    assert low[1] < middle[1] < high[1]
    assert high[2] > 2 * middle[2]


def test_more_steps_come_closer_to_many_steps(model):
    few, more, most = behaviour.distances_to_many_steps(model, "ddim", (2, 10, 50), count=2)
    assert few > 2 * more > 4 * most > 0


@pytest.mark.parametrize("extra", vocabulary.EXTRAS)
def test_a_negative_prompt_removes_a_thing_in_the_scene(model, extra):
    without, with_it = behaviour.extra_shares(model, extra, count=40, num_inference_steps=5)
    assert without >= 2 / 40
    assert with_it <= without / 2


def test_inpainting_paints_another_subject_into_the_mask(model):
    shares, change = behaviour.inpainting_figures(model, count=6)
    assert shares["subject"] > 0.8
    assert change < 6


def test_a_picture_takes_well_under_a_second_of_one_core(model):
    judge.generate(model, ["a red car"])
    started = time.process_time()
    judge.generate(model, ["a red car on a road at night"], guidance_scale=5)
    assert time.process_time() - started < 1


# Figures of the model card


def test_the_nearest_training_picture_is_found():
    rng = np.random.default_rng(0)
    training = rng.integers(0, 256, (1200, 8, 8, 4), np.uint8)
    distances, indices = figures.nearest(training[[1100, 3], ..., :3], training)
    assert indices.tolist() == [1100, 3]
    assert distances == pytest.approx([0, 0], abs=0.1)
    brighter = np.minimum(training[[7], ..., :3], 250) + 5
    distances, _ = figures.nearest(brighter, np.minimum(training, 250))
    assert distances == pytest.approx([5], abs=0.1)


def test_every_curve_is_drawn():
    from xml.etree import ElementTree

    drawing = ElementTree.fromstring(figures.draw_curves(figures.CURVES))
    lines = drawing.findall("{*}polyline")
    names = " ".join(text.text for text in drawing.findall("{*}text"))
    curves = [path.stem.removesuffix("-training") for path in figures.CURVES.glob("*.csv")]
    assert len(lines) == len(curves) == 5
    for name in curves:
        assert name in names


def test_a_sheet_holds_each_picture_with_its_text():
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    sheet = figures.draw_sheet(pictures, ["one", "", "two"], columns=2)
    for index, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        x, y = 20 + index % 2 * 136, 20 + index // 2 * (136 + 3 * 14)
        assert sheet.getpixel((x, y)) == colour
    assert len(sheet.crop((8, 138, 136, 170)).getcolors()) > 1
    assert len(sheet.crop((144, 138, 272, 170)).getcolors()) == 1


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
