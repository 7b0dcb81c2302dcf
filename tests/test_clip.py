"""CLIP's measures, with a tiny CLIP of random weights in a folder."""

import json
import math
import shutil

import numpy as np
import pytest
import tiny
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines import Comparison, RunRequest, cli, measuring
from pipelines.analysis import methods
from pipelines.clip import CHECKPOINTS, Clip, find_clip
from pipelines.errors import LoadError
from pipelines.guidance import guidance

BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=2)
RED, BLUE = (Image.new("RGB", (48, 32), colour) for colour in ("red", "blue"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    text = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513, "hidden_size": 32,
            "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
            "vocab_size": 514}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
              "num_hidden_layers": 2, "image_size": 32, "patch_size": 8}
    model = transformers.CLIPModel(transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=16)).eval()
    path = tmp_path_factory.mktemp("clip") / "tiny"
    for part in (model, tiny.clip_tokenizer(), transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})):
        part.save_pretrained(path)
    return path


@pytest.fixture
def clip(folder, monkeypatch):
    monkeypatch.setenv("CONTACT_SHEET_CLIP", str(folder))
    return find_clip("cpu")


def test_the_cosines_are_the_model_s_own(clip, folder):
    model = transformers.CLIPModel.from_pretrained(folder)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    with torch.no_grad():
        output = model(**tokenizer("a red car", return_tensors="pt"),
                       **processor([RED, BLUE], return_tensors="pt"))
    red, blue = output.image_embeds
    assert clip.distance(("r", RED), ("b", BLUE)) == pytest.approx(1 - float(red @ blue), abs=1e-5)
    assert clip.distance(("r", RED), ("r", RED)) == pytest.approx(0, abs=1e-6)
    expected = 100 * max(0, float(red @ output.text_embeds[0]))
    assert clip.score(("r", RED), "a red car") == pytest.approx(expected, abs=1e-3)
    assert 0 <= clip.score(("b", BLUE), "a long prompt of words " * 100) <= 100


def test_none_where_no_weights_are_and_a_wrong_name_is_said(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.delenv("CONTACT_SHEET_CLIP", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert find_clip("cpu") is None
    snapshot = tmp_path / f"models--{CHECKPOINTS[0].replace('/', '--')}" / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1" * 40)
    for name in ("config.json", "preprocessor_config.json", "pytorch_model.bin"):
        (snapshot / name).write_text("{}")
    assert find_clip("cpu") is None, "a pickle is not read"
    (snapshot / "model.safetensors").write_bytes(b"")
    assert find_clip("cpu").name == CHECKPOINTS[0]
    monkeypatch.setenv("CONTACT_SHEET_CLIP", str(tmp_path / "nowhere"))
    with pytest.raises(LoadError, match="nowhere'.*model.safetensors"):
        find_clip("cpu")


def test_cells_measured_before_the_weights_came_are_measured_again(engine, monkeypatch, folder):
    comparison = Comparison.parse(BASE, ["guidance_scale=1,5", "seed=0,1"])
    runs = engine.compare(comparison, shared=True)
    monkeypatch.delenv("CONTACT_SHEET_CLIP", raising=False)
    monkeypatch.setattr("pipelines.clip.CHECKPOINTS", ())
    reference = "guidance_scale=1"
    before = measuring.measure(engine, comparison, runs, reference)
    assert {d.clip_distance for d in before} == {None}
    assert before[2].psnr
    points = guidance(comparison, runs, engine.pictures, measuring.clip_scores(engine, runs))
    assert [point.clip_score for point in points] == [None, None]
    monkeypatch.setenv("CONTACT_SHEET_CLIP", str(folder))
    seen = []
    after = measuring.measure(engine, comparison, runs, reference, seen.append)
    assert len(seen) == 4
    assert [d.clip_distance == pytest.approx(0, abs=1e-6) for d in after] == [
        True, True, False, False]
    assert {d.clip_model for d in after} == {str(folder)}
    assert [d.psnr for d in after] == [d.psnr for d in before]
    clip = find_clip("cpu")
    pictures = [(r.image_sha256, engine.pictures.get(r.image_sha256)) for r in runs]
    scores = [clip.score(picture, BASE.prompt) for picture in pictures]
    assert [d.clip_score for d in after] == pytest.approx(scores, abs=1e-3)
    points = guidance(comparison, runs, engine.pictures, measuring.clip_scores(engine, runs))
    assert [point.clip_score for point in points] == pytest.approx(
        [np.mean(scores[:2]), np.mean(scores[2:])])
    assert [point.scored for point in points] == [2, 2]
    seen.clear()
    assert measuring.measure(engine, comparison, runs, reference, seen.append)[0].clip_score
    assert seen == [], "nothing is measured twice"
    found = methods(comparison, runs, after)
    assert found[0].clip_distance == pytest.approx(np.mean([d.clip_distance for d in after]))


def test_the_command_line_gives_them(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "home"))
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", BASE.prompt, "--num-inference-steps", "2",
                  "--axis", "scheduler=ddim,euler_a", "--reference", "scheduler=ddim",
                  "-o", str(tmp_path / "sheet.png"), "--csv", str(tmp_path / "cells.csv"),
                  "--html", str(tmp_path / "sheet.html"), "--json"])
    assert end.value.code == 0
    one, two = json.loads(capsys.readouterr().out)["cells"]
    assert one["clip_distance"] == pytest.approx(0, abs=1e-6)
    assert two["clip_distance"] > 0 and math.isfinite(two["clip_score"])
    assert two["clip_model"] == clip.name
    assert "clip_distance,clip_score,clip_model" in (tmp_path / "cells.csv").read_text()
    assert "CLIP distance" in (tmp_path / "sheet.html").read_text()


def test_a_clip_that_lacks_tensors_measures_nothing(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    save_file({name: tensors[name] for name in sorted(tensors)[2:]}, broken / "model.safetensors",
              {"format": "pt"})
    with pytest.raises(LoadError, match=r"lacks 2 of its \d+ tensors"):
        Clip(broken, "tiny", "cpu").score(("r", RED), "a red car")


def test_a_clip_that_fails_costs_neither_the_other_measures_nor_the_sheet(
    folder, tmp_path, monkeypatch, capsys
):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"0" * 100)
    monkeypatch.setenv("CONTACT_SHEET_CLIP", str(broken))
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "home"))
    command = ["compare", BASE.prompt, "--num-inference-steps", "2", "--axis",
               "scheduler=ddim,euler_a", "--reference", "scheduler=ddim", "--json",
               "-o", str(tmp_path / "sheet.png")]
    with pytest.raises(SystemExit) as end:
        cli.main(command)
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert end.value.code == 0
    assert cells[1]["psnr"] and cells[1]["clip_distance"] is None
    for cell in cells:
        assert len(cell["notes"]) == 1 and "clip_score: missing, since" in cell["notes"][0]

    monkeypatch.setenv("CONTACT_SHEET_CLIP", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as end:
        cli.main([*command[:-1], str(tmp_path / "second.png")])
    captured = capsys.readouterr()
    assert end.value.code == 1
    assert "note: reference: missing" in captured.err and "nowhere" in captured.err
    assert (tmp_path / "second.png").exists()
    assert [cell["status"] for cell in json.loads(captured.out)["cells"]] == ["ok", "ok"]
