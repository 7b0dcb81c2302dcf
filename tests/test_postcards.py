"""The postcards model: words, painter, the shipped weights, figures of the model card."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from pipelines.models.files import BUNDLED
from pipelines.postcards import figures, judge, vocabulary
from pipelines.postcards.painter import paint, paint_background, paint_with_mask
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
    behind = np.asarray(paint_background(scene, Random(3), 128)).astype(int)
    assert behind.shape == np.asarray(red).shape
    assert (np.abs(behind - np.asarray(red)).max(-1) > 8)[mask == 0].mean() < 0.2  # its shadow


# The shipped weights


@pytest.fixture(scope="module")
def pipe():
    from diffusers import AutoPipelineForText2Image

    pipe = AutoPipelineForText2Image.from_pretrained(WEIGHTS, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_folders_are_small_and_safe_and_open_with_diffusers_alone():
    from diffusers import DiffusionPipeline

    folders = [folder for name, folder in BUNDLED.items() if name.startswith("postcards")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert (WEIGHTS / "judge.safetensors").stat().st_size < 1.5e6
    for folder in folders:
        opened = DiffusionPipeline.from_pretrained(folder, use_safetensors=True)
        assert type(opened).__module__.startswith("diffusers.")


def test_turbo_paints_in_few_evaluations_what_its_teacher_does_not(session_engine):
    wanted = judge.held_out_captions(16, seed=7)
    captions = [want.caption for want in wanted]

    def shares(model_id, guidance_scale, steps):
        with session_engine.registry.borrow(model_id) as (model, _):
            pictures = judge.generate(model, captions, guidance_scale, steps)
        return judge.accuracy(pictures, wanted)

    teacher = shares("postcards", 5, 2)
    for steps in (1, 2, 4):
        assert min(shares("postcards-turbo", 1, steps).values()) >= 0.94, steps
    assert min(teacher.values()) < 0.8


def test_inpaint_removes_what_the_base_paints_anew(session_engine):
    """The table of its card, small: the error under the mask, and in its rim."""
    from pipelines.postcards.family import inpaint_table

    rows = [row.split("|") for row in inpaint_table(session_engine, "postcards-inpaint", 4, 3)[4:]]
    under, rim = ([float(row[place].split()[0]) for row in rows] for place in (6, 7))
    assert [row[1].strip() for row in rows] == ["postcards", "postcards", "postcards-inpaint"]
    assert under[2] < min(under[:2]) / 2 and rim[2] < min(rim[:2])


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
    assert len(lines) == len(curves) == 7
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
