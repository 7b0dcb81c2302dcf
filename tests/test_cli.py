import csv
import io
import json
import os
import signal
import subprocess
import sys

import pytest
import typer
from PIL import Image

from pipelines import CATALOGUE, Engine, RunRequest, cli
from pipelines.hub.folders import LocalFolders
from pipelines.models.files import BUNDLED
from pipelines.models.registry import Registry
from pipelines.run_log import RunLog
from pipelines.sheet.cells import Results
from pipelines.sheet.exports import EXPORTS

CELL_KEYS = {"axes", "status", "error", "nfe", "noise_sha256", "timings_ms", "image"}


def test_generate_writes_a_picture_and_one_json_object(run, tmp_path):
    code, out, _ = run("generate", "a red car", "--num-inference-steps", "2", "--seed", "5",
                       "-o", "car.png", "--json")
    assert code == 0
    cell = json.loads(out)
    assert set(cell) >= CELL_KEYS
    assert cell["status"] == "ok"
    assert cell["nfe"] == 2
    assert set(cell["timings_ms"]) >= {"text_encoding", "denoising", "decoding", "total"}
    with Image.open(tmp_path / "car.png") as made, Image.open(cell["image"]) as stored:
        assert made.tobytes() == stored.tobytes()
        recipe = json.loads(made.text["contact_sheet"])
    assert recipe["requests"][0]["seed"] == 5


def test_every_field_of_the_request_is_an_option_that_says_what_the_field_says():
    generate = typer.main.get_command(cli.app).commands["generate"]
    options = {option.name: option for option in generate.params}
    for name, field in RunRequest.model_fields.items():
        assert options[name].help.startswith(field.description), name
    assert options["loras"].opts == ["--lora"] and options["loras"].multiple
    assert "a whole number from 1 to 1000" in options["num_inference_steps"].help
    assert [options[name].default for name in ("seed", "eta", "strength")] == ["0", "0", None]


def test_compare_writes_sheet_and_csv(run, tmp_path):
    code, out, _ = run(
        "compare", "a red car", "--axis", "scheduler=ddim,heun", "--axis", "guidance_scale=1,5",
        "--num-inference-steps", "2", "--seed", "0", "-o", "s.png", "--csv", "c.csv", "--json",
    )  # fmt: skip
    assert code == 0
    made = json.loads(out)
    assert made["sheet"] == "s.png"
    assert [cell["axes"] for cell in made["cells"]] == [
        {"scheduler": s, "guidance_scale": g} for s in ("ddim", "heun") for g in (1.0, 5.0)
    ]
    assert all(set(cell) >= CELL_KEYS and cell["status"] == "ok" for cell in made["cells"])
    assert len({cell["noise_sha256"] for cell in made["cells"]}) == 1
    assert [cell["nfe"] for cell in made["cells"]] == [2, 2, 3, 3]
    with open(tmp_path / "c.csv", newline="") as file:
        assert [row["nfe"] for row in csv.DictReader(file)] == ["2", "2", "3", "3"]
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 300
    of_the_page = Results.of_log(Engine(), made["comparison_id"])
    assert json.loads(EXPORTS["json"].write(of_the_page)) == made["cells"]
    assert EXPORTS["csv"].write(of_the_page) == (tmp_path / "c.csv").read_bytes()
    assert RunLog(tmp_path / "home").count(comparison_id=made["comparison_id"]) == 4


def test_compare_measures_against_a_cell(run, tmp_path):
    arguments = ("compare", "a red car", "--axis", "num_inference_steps=1,3", "--csv", "c.csv")
    code, out, _ = run(*arguments, "--reference", "num_inference_steps=3", "--json")
    assert code == 0
    made = json.loads(out)
    assert made["reference"] == "num_inference_steps=3"
    far, same = made["cells"]
    assert far["rms_latents"] > 0 and far["psnr"] > 0 and far["ssim"] < 1
    assert (same["rms_latents"], same["psnr"], same["ssim"], same["nfe"]) == (0, None, 1, 3)
    with open(tmp_path / "c.csv", newline="") as file:
        assert [row["rms_latents"] for row in csv.DictReader(file)] == [
            str(far["rms_latents"]), "0.0"]
    code, _, err = run(*arguments, "--reference", "seed=1")
    assert code == 2
    assert "axes num_inference_steps" in err


def test_compare_on_one_mask(run, tmp_path):
    """Strengths and schedulers on the same picture and mask, against a cell and the converged."""
    Image.new("RGB", (40, 64), (60, 120, 200)).save(tmp_path / "in.png")
    mask = Image.new("L", (40, 64))
    mask.paste(255, (8, 8, 24, 40))
    mask.save(tmp_path / "mask.png")
    arguments = ("compare", "a red car", "--image", "in.png", "--mask-image", "mask.png",
                 "--axis", "strength=0.5,1", "--axis", "scheduler=ddim,euler",
                 "--num-inference-steps", "4", "--mask-feather", "2", "--csv", "c.csv", "--json")
    code, out, _ = run(*arguments, "--reference", "scheduler=euler")
    cells = json.loads(out)["cells"]
    assert code == 0 and [cell["nfe"] for cell in cells] == [2, 2, 4, 4]
    assert {cell["changed_unmasked_pixels"] for cell in cells} == {0}
    assert len({cell["unmasked_pixels"] for cell in cells}) == 1
    assert 1800 < cells[0]["unmasked_pixels"] < 40 * 64 - 16 * 32
    assert len({cell["noise_sha256"] for cell in cells}) == 1
    assert [cell["rms_latents"] == 0 for cell in cells] == [False, True, False, True]
    with open(tmp_path / "c.csv", newline="") as file:
        assert [row["changed_unmasked_pixels"] for row in csv.DictReader(file)] == ["0"] * 4
    code, out, _ = run(*arguments[:6], "--strength", "0.1", "--axis", "num_inference_steps=20,100",
                       "--reference", "converged", "--json")
    few, many = json.loads(out)["cells"]
    assert code == 0 and 0 < many["rms_latents"] < few["rms_latents"]


def test_compare_takes_cells_from_the_log_and_resumes(run):
    arguments = ("compare", "a red car", "--axis", "seed=0..2", "--num-inference-steps", "1",
                 "--skip", "seed=1", "--json")
    first = json.loads(run(*arguments)[1])
    assert [cell["axes"] for cell in first["cells"]] == [{"seed": 0}, {"seed": 2}]
    again = json.loads(run(*arguments)[1])
    assert [cell["reused"] for cell in again["cells"]] == [True, True]
    fresh = json.loads(run(*arguments, "--fresh")[1])
    assert [cell["reused"] for cell in fresh["cells"]] == [False, False]
    code, out, _ = run("compare", "--resume", first["comparison_id"], "--measure", "2", "--json")
    assert code == 0
    resumed = json.loads(out)
    assert [cell["run_id"] for cell in resumed["cells"]] == [
        cell["run_id"] for cell in first["cells"]]
    assert {cell["measured"]["repeats"] for cell in resumed["cells"]} == {2}
    code, _, err = run("compare", "--resume", "nothing")
    assert code == 2
    assert first["comparison_id"] in err
    assert run("compare", "a car", "--resume", first["comparison_id"])[0] == 2
    assert "--axis" in run("compare", "a car")[2]


def test_pictures_per_cell_are_seeds(run):
    code, out, _ = run("compare", "a cat", "--axis", "guidance_scale=1,2", "--seed", "5",
                       "--num-images-per-prompt", "2", "--num-inference-steps", "1", "--json")
    assert code == 0
    assert [cell["axes"]["seed"] for cell in json.loads(out)["cells"]] == [5, 6, 5, 6]


def test_bad_axis_syntax_is_marked(run):
    code, _, err = run("compare", "a cat", "--axis", "seed=1,9..2:3")
    assert code == 2
    assert err.splitlines() == [
        "error: a step of 3 never leads from 9 to 2", "  seed=1,9..2:3", "         ^^^^^^"]


def test_a_third_axis_makes_a_sheet_per_value(run, tmp_path):
    code, out, _ = run("compare", "a cat", "--axis", "seed=0,1", "--axis", "guidance_scale=1,2",
                       "--axis", "scheduler=ddim,euler", "--num-inference-steps", "1", "--json")
    assert code == 0
    assert json.loads(out)["sheets"] == ["sheet-scheduler=DDIM.png", "sheet-scheduler=Euler.png"]
    assert (tmp_path / "sheet-scheduler=Euler.png").exists()


def test_image_and_mask_make_the_task(run, tmp_path):
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "in.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "mask.png")
    common = ("generate", "a cat", "--image", "in.png", "--num-inference-steps", "4",
              "--strength", "0.5", "--json")
    assert json.loads(run(*common)[1])["nfe"] == 2
    assert json.loads(run(*common, "--mask-image", "mask.png")[1])["nfe"] == 2
    tasks = [row.task for row in RunLog(tmp_path / "home").runs()]
    assert tasks == ["inpainting", "image-to-image"]


def test_runs_as_table_csv_and_json(run):
    assert "No runs yet" in run("runs")[1]
    assert run("runs", "--format", "json")[1].strip() == "[]"
    run("generate", "a red, round car", "--num-inference-steps", "1")
    assert "a red, round car" in run("runs", "--format", "table")[1]
    (row,) = csv.DictReader(io.StringIO(run("runs", "--format", "csv")[1]))
    assert row["prompt"] == "a red, round car"
    assert json.loads(run("runs", "--format", "json")[1])[0]["nfe"] == 1
    assert json.loads(run("runs", "--json", "--text", "blue")[1]) == []
    assert "No run fits" in run("runs", "--text", "blue")[1]


def test_models_and_schedulers(run, tmp_path):
    bundled = [model["model_id"] for model in json.loads(run("models", "--json")[1])]
    assert bundled == list(BUNDLED)
    assert "postcards" in run("models")[1]
    LocalFolders(tmp_path / "home").add(str(BUNDLED["postcards"]), Registry("cpu"))
    sources = [model["source"] for model in json.loads(run("models", "--json")[1])]
    assert sources == [*["bundled"] * len(BUNDLED), "folder"]
    listed = json.loads(run("schedulers", "--json")[1])
    assert [info["key"] for info in listed] == [info.key for info in CATALOGUE]
    assert "arXiv:2211.01095" in run("schedulers")[1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["generate"], "prompt"),
        (["sing", "a song"], "sing"),
        (["generate", "x", "--cfg", "3"], "--cfg"),
        (["generate", "x", "--guidance-scale", "high"], "'high'"),
        (["generate", "x", "--num-inference-steps", "0"], "1 to 1000"),
        (["generate", "x", "--scheduler", "eular"], "eular"),
        (["generate", "x", "--height", "60"], "56 and 64"),
        (["generate", "x", "--model-id", "nobody/nothing"], "nobody/nothing"),
        (["generate", "x", "--scheduler-option", "colour=red"], "colour"),
        (["generate", "x", "--scheduler-option", "colour"], "NAME=VALUE"),
        (["generate", "x", "--image", "missing.png"], "missing.png"),
        (["generate", "x", "--strength", "0.5"], "--image"),
        (["generate", "x", "-o", "no/such/folder.png"], "folder"),
        (["generate", "x", "-o", "picture.xyz"], ".png"),
        (["generate", "x", "--scheduler", "flow_euler"], "flow_euler"),
        (["generate", "x", "--model-id", "~nobody-here/x"], "nobody-here"),
        (["runs", "--status", "great"], "great"),
        (["runs", "--since", "yesterday"], "'yesterday', accepted a date"),
        (["compare", "x"], "--axis"),
        (["compare", "x", "--axis", "cfg=1"], "cfg"),
        (["compare", "x", "--axis", "height=64,60"], "60"),
        (["runs", "--format", "xml"], "xml"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_clear_line(run, tmp_path, arguments, part):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: ")
    assert part in err
    home = tmp_path / "home"
    assert not (home / "runs.sqlite").exists() or RunLog(home).count() == 0


def test_a_broken_picture_is_bad_input(run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    code, _, err = run("generate", "x", "--image", "broken.png")
    assert code == 2
    assert "broken.png" in err


def test_a_cell_that_fails_in_its_run_leaves_the_others(run):
    code, out, _ = run(
        "compare", "a cat", "--axis", "scheduler=unipc", "--axis", "seed=0,1", "--json",
        "--scheduler-option", "solver_type=bh1", "--scheduler-option", "final_sigmas_type=zero",
        "--num-inference-steps", "5",
    )  # fmt: skip
    assert code == 1
    assert [cell["status"] for cell in json.loads(out)["cells"]] == ["failed", "failed"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_keeps_what_is_done(tmp_path):
    """A real process: interrupted after its first cells, it still writes sheet and log."""
    environment = {**os.environ, "CONTACT_SHEET_HOME": str(tmp_path / "home")}
    seeds = "seed=" + ",".join(map(str, range(300)))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "compare", "a cat", "--axis", seeds, "--json",
         "--num-inference-steps", "2", "-o", str(tmp_path / "sheet.png")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    log = RunLog(tmp_path / "home")
    while log.count(status="ok") < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    statuses = [cell["status"] for cell in json.loads(out)["cells"]]
    assert 2 <= statuses.count("ok") < 300
    assert set(statuses) == {"ok", "cancelled"}
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_while_the_reference_is_made_keeps_the_cells(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "compare", "a cat", "--axis", "seed=0..1", "--json",
         "--num-inference-steps", "2", "--reference", "converged", "--measure", "50",
         "-o", str(tmp_path / "sheet.png")],
        env={**os.environ, "CONTACT_SHEET_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    seen = ""
    while "reference steps" not in seen:
        seen += process.stderr.read(1)
        assert process.poll() is None, seen
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    cells = json.loads(out)["cells"]
    assert [cell["status"] for cell in cells] == ["ok", "ok"]
    assert cells[1]["rms_latents"] is None
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_before_the_first_step_is_no_traceback(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "generate", "a cat", "-o", str(tmp_path / "o.png")],
        env={**os.environ, "CONTACT_SHEET_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "home" / "runs.sqlite").exists():  # then it loads torch
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_model_without_prompts_runs_without_one_and_at_its_own_steps(run, tiny_folder):
    folder = str(tiny_folder("ddim"))
    code, out, _ = run("generate", "--model-id", folder, "--json")
    assert code == 0
    assert json.loads(out)["nfe"] == 50  # the pipeline's own default
    for words, reason in ((["a cat", "--model-id", folder], "paints without one"),
                          ([], "needs one"),
                          (["a", "--task", "painting"], "accepted text-to-image")):  # fmt: skip
        code, _, error = run("generate", *words)
        assert code == 2
        assert reason in error


def test_a_recipe_makes_the_same_pictures_and_a_page_is_written(run, tmp_path):
    code, first, _ = run("compare", "a cat", "--axis", "scheduler=ddim,heun", "--axis", "seed=0,1",
                         "--num-inference-steps", "2", "--html", "page.html", "--json")
    assert code == 0
    pictures = [cell["image"] for cell in json.loads(first)["cells"]]
    assert "<title>a cat</title>" in (tmp_path / "page.html").read_text("utf-8")
    for carrier in ("sheet.png", "page.html"):
        code, out, _ = run("compare", "--recipe", carrier, "-o", "again.png", "--fresh", "--json")
        assert code == 0
        assert [cell["image"] for cell in json.loads(out)["cells"]] == pictures
    run("generate", "a dog", "--num-inference-steps", "1", "-o", "dog.png")
    code, out, _ = run("compare", "--recipe", "dog.png", "-o", "again.png", "--fresh", "--json")
    (cell,) = json.loads(out)["cells"]
    with Image.open(tmp_path / "dog.png") as made, Image.open(cell["image"]) as again:
        assert made.tobytes() == again.tobytes()


@pytest.mark.parametrize("text, part", [
    ("{", "holds none"), ("[]", "holds none"), ('{"base": {}}', "holds none"), ("", "holds none"),
    ('{"base": {"steps": 3}, "axes": []}', "steps is no field"),
    ('{"base": {}, "axes": [{"name": "seed", "values": [-1]}]}', "seed: received -1"),
])  # fmt: skip
def test_a_bad_recipe_is_explained(run, tmp_path, text, part):
    (tmp_path / "recipe.json").write_text(text, "utf-8")
    code, _, error = run("compare", "--recipe", "recipe.json")
    assert code == 2
    assert part in error
    assert len(error.splitlines()) == 1
    assert run("compare", "--recipe", "nowhere.png")[0] == 2
    assert "neither" in run("compare", "a cat", "--recipe", "recipe.json")[2]


def test_clicks_make_a_mask_and_a_mask_a_picture(run, tmp_path):
    from pipelines.inpainting.samples import paint_sample

    picture, subject = paint_sample("car")
    picture.save(tmp_path / "car.png")
    code, out, _ = run("segment", "car.png", "--point", "32,48", "--not", "32,10", "-o", "m.png",
                       "--json")
    assert code == 0 and "GrabCut" in json.loads(out)["segmenter"]
    with Image.open(tmp_path / "m.png") as mask:
        assert mask.size == (64, 64) and mask.mode == "L"
    code, out, _ = run("inpaint", "car.png", "--mask", "m.png", "a white house", "-o", "o.png",
                       "--num-inference-steps", "2", "--mask-feather", "2", "--json")
    made = json.loads(out)
    assert (code, made["changed_unmasked_pixels"]) == (0, 0)
    assert 1000 < made["unmasked_pixels"] < 4096 and made["nfe"] == 2
    transparent = picture.convert("RGBA")
    transparent.putalpha(Image.fromarray(255 - subject))
    transparent.save(tmp_path / "alpha.png")
    code, out, _ = run("inpaint", "alpha.png", "--num-inference-steps", "2")
    assert code == 0 and "0 of" in out and (tmp_path / "out.png").exists()


@pytest.mark.parametrize(("arguments", "part"), [
    (["inpaint", "a.png"], "--mask is needed"),
    (["inpaint", "a.png", "--mask", "b.png"], "b.png does not exist"),
    (["inpaint", "a.png", "--mask", "s.png"], "transparent is kept, white is repainted"),
    (["inpaint", "a.png", "--mask", "a.png", "x", "--masked-content", "noise"], "'noise'"),
    (["segment", "a.png"], "no point on the subject and no box"),
    (["segment", "a.png", "--point", "9"], "2 whole numbers"),
    (["segment", "a.png", "--point", "9,900"], "9,900"),
    (["segment", "a.png", "--point", "1,1", "--model-id", "nobody/sam"], "nobody/sam"),
])  # fmt: skip
def test_bad_masks_and_clicks_are_one_clear_line(run, tmp_path, arguments, part):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    Image.new("LA", (20, 20), (0, 99)).save(tmp_path / "s.png")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert part in err and len(err.strip().splitlines()) == 1, err
