"""A model's revision and variant travel with it: in an id, on the model axis, in a recipe."""

import json

import diffusers
import pytest
import tiny
import torch
from huggingface_hub import constants

from pipelines import Comparison, Engine, RunRequest, cli
from pipelines.axes import label, parse_axis
from pipelines.errors import UnknownModelError
from pipelines.provenance.encode import Truth, encode
from pipelines.request import join_model_id, split_model_id
from pipelines.sheet.draw import draw
from pipelines.sheet.recipe import read_recipe, recipe

OLD, NEW = "1" * 40, "2" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A Hugging Face cache with two commits of one small model, and a folder for the engine."""
    repo = tmp_path / "hub" / "models--ada--small"
    for seed, commit in enumerate((OLD, NEW)):
        torch.manual_seed(seed)
        pipe = diffusers.DDIMPipeline(unet=tiny.pixel_unet(), scheduler=diffusers.DDIMScheduler())
        pipe.save_pretrained(repo / "snapshots" / commit, variant="fp16" if seed else None)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(OLD)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "home"))
    return repo


BASE = RunRequest(model_id="ada/small", task="unconditional", num_inference_steps=2)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("ada/sd", ("ada/sd", None, None)), ("ada/sd@v2", ("ada/sd", "v2", None)),
     ("ada/sd@refs/pr/1:fp16", ("ada/sd", "refs/pr/1", "fp16")),
     ("ada/sd@:fp16", ("ada/sd", None, "fp16")), ("postcards", ("postcards", None, None))],
)  # fmt: skip
def test_an_id_may_name_revision_and_variant(text, parts):
    assert split_model_id(text) == parts
    assert join_model_id(*parts) == text
    request = RunRequest(model_id=text)
    assert (request.model_id, request.revision, request.variant) == parts


def test_a_path_is_taken_as_it_stands(tmp_path):
    folder = tmp_path / "a@b"
    folder.mkdir()
    assert split_model_id(str(folder)) == (str(folder), None, None)
    assert split_model_id(f"{tmp_path}@:fp16") == (str(tmp_path), None, "fp16")
    assert split_model_id("/no/such@folder/x") == ("/no/such@folder/x", None, None)


def test_revisions_are_values_of_the_model_axis(cache, tmp_path):
    engine = Engine(tmp_path / "home", device="cpu")
    comparison = Comparison.parse(BASE, [f"model_id=ada/small, ada/small@{NEW}:fp16"])
    one, two = engine.compare(comparison)
    assert (one.status, two.status) == ("ok", "ok"), one.error or two.error
    assert one.image_sha256 != two.image_sha256
    assert [run.request["revision"] for run in (one, two)] == [OLD, NEW]  # the branch's commit
    assert two.request["variant"] == "fp16"
    assert {run.model_id for run in (one, two)} == {"ada/small"}
    assert label("model_id", comparison.axes[0].values[1]) == "ada/small@2222222:fp16"
    ruled = Comparison.parse(BASE, [f"model_id=postcards, ada/small@{NEW}", "seed=0,1"],
                             ["model_id=ada/small,seed>0"])
    assert [cell.left_out for cell in ruled.cells] == [False, False, False, True]
    with pytest.raises(UnknownModelError, match="'ada/small@v9'"):
        engine.registry.describe("ada/small@v9")
    again = Comparison.from_row(engine.run_log.comparison(one.comparison_id))
    assert again == comparison


@pytest.mark.parametrize(
    ("axes", "pinned"),
    [
        (["seed=0,1"], []),
        (["model_id=ada/small,postcards-ddpm"], [f"ada/small@{OLD}", "postcards-ddpm"]),
        (["model_id+seed=ada/small+1,ada/small+2"], [(f"ada/small@{OLD}", s) for s in (1, 2)]),
        ([f"revision=main,{NEW}"], [OLD, NEW]),
    ],
)
def test_a_recipe_names_the_commit_that_made_it(cache, tmp_path, axes, pinned):
    """The branch may move on: the recipe still makes the same pictures."""
    engine = Engine(tmp_path / "home", device="cpu")
    comparison = Comparison.parse(BASE, axes)
    runs = engine.compare(comparison)
    assert {run.status for run in runs} == {"ok"}
    (picture,) = draw(comparison, runs, engine.pictures)
    data, _ = encode(picture, ".png", Truth(recipe(comparison, runs)))
    (tmp_path / "sheet.png").write_bytes(data)
    again = read_recipe(tmp_path / "sheet.png")
    if pinned:
        assert list(again.axes[0].values) == pinned
    else:
        assert again.base.revision == OLD
    (cache / "refs" / "main").write_text(NEW)
    assert engine.in_log(again) == [0, 1]
    fresh = engine.compare(again, fresh=True)
    assert [run.image_sha256 for run in fresh] == [run.image_sha256 for run in runs]
    if "revision" not in axes[0]:
        assert engine.in_log(comparison) != [0, 1]


def test_the_command_line_pins_too(cache, tmp_path, capsys):
    picture = tmp_path / "out.png"
    with pytest.raises(SystemExit) as end:
        cli.main(["generate", "--model-id", "ada/small@main", "--num-inference-steps", "2",
                  "-o", str(picture), "--json"])
    assert end.value.code == 0
    capsys.readouterr()
    assert read_recipe(picture).base.revision == OLD
    (cache / "refs" / "main").write_text(NEW)
    with pytest.raises(SystemExit):
        cli.main(["compare", "--recipe", str(picture), "-o", str(tmp_path / "s.png"), "--json"])
    assert json.loads(capsys.readouterr().out)["cells"][0]["status"] == "ok"
    assert len({run.image_sha256 for run in Engine().run_log.runs()}) == 1


def test_axis_texts_keep_them():
    axis = parse_axis("model_id=ada/sd@v1,ada/sd@v2:fp16", BASE.changed(revision="x"))
    assert axis.values == ("ada/sd@v1", "ada/sd@v2:fp16")
