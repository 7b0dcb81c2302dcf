"""Chains: the picture of one stage is the input of the next."""

import json

import pytest
from PIL import Image

from pipelines import RequestError, RunRequest, cli
from pipelines.chain import parse_stage


def test_sdxl_turbo_into_kandinsky(tiny_folder, engine):
    turbo, kandinsky = (str(tiny_folder(name)) for name in ("sdxl_turbo", "kandinsky_22"))
    first = RunRequest(model_id=turbo, prompt="a cat", num_inference_steps=2,
                       guidance_scale=0, height=64, width=96, seed=3)
    stage = {"model_id": kandinsky, "strength": "0.5", "num_inference_steps": 4}
    one, two = engine.chain(first, [stage])
    assert (one.status, two.status) == ("ok", "ok"), (one.error, two.error)
    assert (one.parent_id, two.parent_id) == (None, one.id)
    assert two.task == "image-to-image"
    assert two.request["image"] == one.image_sha256
    assert (two.prompt, two.seed, two.guidance_scale) == ("a cat", 3, 4.0)  # Kandinsky's default
    assert engine.pictures.get(two.image_sha256).size == (96, 64)
    assert engine.run_log.run(two.id).parent_id == one.id


def test_a_stage_of_the_same_model_keeps_its_settings(engine, request_):
    one, two = engine.chain(request_, [{"strength": 0.5, "prompt": "a blue car"}])
    assert two.status == "ok", two.error
    assert (two.num_inference_steps, two.prompt) == (4, "a blue car")
    assert two.nfe == 2
    assert two.image_sha256 != one.image_sha256


def test_a_chain_ends_where_a_stage_fails_and_starts_only_where_it_can_end(tiny_folder, engine):
    first = RunRequest(prompt="a cat", num_inference_steps=2)
    with pytest.raises(RequestError, match="takes no picture"):
        engine.chain(first, [{"model_id": str(tiny_folder("pixart_sigma"))}])
    assert engine.run_log.count() == 0
    runs = engine.chain(first.changed(height=12), [{}])
    assert [run.status for run in runs] == ["failed"]


@pytest.mark.parametrize("size", [(50, 33), (64, 64), (7, 90)])
def test_image_to_image_takes_pictures_of_any_size(engine, size):
    sha = engine.pictures.put(Image.linear_gradient("L").resize(size))
    run = engine.run(RunRequest(prompt="a cat", task="image-to-image", image=sha, strength=0.5,
                                num_inference_steps=2))
    assert run.status == "ok", run.error
    assert (run.width, run.height) == tuple(max(8, side // 8 * 8) for side in size)


def test_stage_texts():
    assert parse_stage("model_id=a/b,prompt=a cat, and a dog, strength=0.5") == {
        "model_id": "a/b", "prompt": "a cat, and a dog", "strength": "0.5"}
    assert parse_stage("") == {}
    with pytest.raises(RequestError, match="'image=x', accepted NAME=VALUE"):
        parse_stage("image=x")


def test_the_command_writes_every_stage(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "home"))
    out = tmp_path / "out.png"
    command = ["generate", "a red car", "--num-inference-steps", "3", "-o", str(out), "--json",
               "--then", "strength=0.4,prompt=a red car in the snow", "--then", "strength=0.4"]
    with pytest.raises(SystemExit, match="0"):
        cli.main(command)
    record = json.loads(capsys.readouterr().out)
    assert [stage["status"] for stage in record["stages"]] == ["ok"] * 3
    assert record["parent_id"] == record["stages"][1]["run_id"]
    assert all((tmp_path / name).is_file() for name in ("out-1.png", "out-2.png", "out.png"))
