"""What the command line writes: outputs that are tried first, spreadsheets, UTF-8."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from pipelines import Engine, RunRequest
from pipelines.cli.output import Outputs, write
from pipelines.errors import RequestError, StorageError
from pipelines.run_log import RunLog
from pipelines.sheet.cells import spreadsheet

GRID = ("compare", "a cat", "--axis", "seed=0,1", "--num-inference-steps", "1")


def contents(folder: Path) -> dict[str, bytes | None]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*")) if "home" not in path.relative_to(folder).parts}


@pytest.fixture
def folder(tmp_path):
    """What may be in the way of an output."""
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "read-only.csv").write_text("mine")
    (tmp_path / "read-only.csv").chmod(0o444)
    (tmp_path / "old.png").write_bytes(b"old")
    (tmp_path / "old.csv").hardlink_to(tmp_path / "old.png")
    (tmp_path / "link.csv").symlink_to("s.png")
    (tmp_path / "round.csv").symlink_to("round.csv")
    return tmp_path


@pytest.mark.parametrize(("arguments", "part"), [
    (["-o", "x" * 260 + ".png"], "too long"),
    (["-o", "車" * 90 + ".png"], "too long"),
    (["-o", "x" * 250 + ".png", "--axis", "guidance_scale=1,2", "--axis", "eta=0,0.5"], "too long"),
    (["--csv", "a-folder"], "csv: a-folder cannot be written: it is a folder"),
    (["--html", "read-only.csv"], "html: read-only.csv cannot be written: it is write-protected"),
    (["--csv", "nowhere/c.csv"], "there is no folder nowhere"),
    (["--csv", "old.png/c.csv"], "cannot be written"),
    (["--csv", "round.csv"], "cannot be written"),
    (["--csv", "a\0b.csv"], "null byte"),
    (["-o", "s.png", "--csv", "s.png"], "csv: s.png is the file of output too"),
    (["-o", "s.png", "--csv", "a-folder/../s.png"], "is the file of output too"),
    (["-o", "s.png", "--csv", "link.csv"], "is the file of output too"),
    (["-o", "old.png", "--csv", "old.csv"], "is the file of output too"),
    (["--html", "x.csv", "--csv", "x.csv"], "csv: x.csv is the file of html too"),
    (["--axis", "guidance_scale=1,2", "--axis", "eta=0,0.5", "--csv", "sheet-eta=0.5.png"],
     "is the file of output too"),
])  # fmt: skip
def test_an_output_that_cannot_be_written_is_refused_before_the_work(run, folder, arguments, part):
    before = contents(folder)
    code, out, err = run(*GRID, *arguments)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1, err
    assert part in err
    assert contents(folder) == before
    assert RunLog(folder / "home").count() == 0


@pytest.mark.parametrize("command", [
    ["generate", "a cat", "-o", "x" * 260 + ".png"],
    ["generate", "a cat", "--then", "strength=0.5", "-o", "x" * 251 + ".png"],  # -1 behind it
    ["inpaint", "in.png", "--mask", "in.png", "-o", "nowhere/x.png"],
    ["segment", "in.png", "--point", "1,1", "-o", "x" * 260 + ".png"],
])  # fmt: skip
def test_so_it_is_by_every_command(run, tmp_path, command):
    from PIL import Image

    Image.new("RGB", (16, 16)).save(tmp_path / "in.png")
    code, out, err = run(*command)
    assert (code, out) == (2, "") and "cannot be written" in err
    assert contents(tmp_path).keys() == {"in.png"}
    assert not (tmp_path / "home").exists() or RunLog(tmp_path / "home").count() == 0


def test_one_output_that_fails_keeps_none_of_the_others(home, capsys):
    (home / "gone").mkdir()
    paths = [home / "a.png", home / "gone" / "b.csv", home / "c.html"]
    outputs = Outputs(*(("output", path) for path in paths))
    assert not any(path.exists() for path in paths)
    shutil.rmtree(home / "gone")
    assert not outputs.write(lambda: [1 / 0], paths[0])
    assert not outputs.write(lambda: [b"b", b"c"], *paths[1:])
    assert outputs.write(lambda: [b"a"], paths[0])
    assert [path.exists() for path in paths] == [True, False, True]
    made, written = capsys.readouterr().err.splitlines()
    assert "a.png could not be made: ZeroDivisionError" in made and "errors.log" in made
    assert "b.csv cannot be written: there is no folder" in written
    with pytest.raises(typer.Exit) as ended:
        outputs.finish()
    assert ended.value.exit_code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a process on Windows")
def test_a_file_stays_until_the_new_one_is_whole(tmp_path):
    import resource

    path, link = tmp_path / "a.csv", tmp_path / "link.csv"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as a disk that gets full
    try:
        with pytest.raises(StorageError, match="a.csv cannot be written"):
            write(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path)["a.csv"] == b"old" and len(contents(tmp_path)) == 2
    write(link, b"new")
    assert path.read_bytes() == b"new" and link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="no such device on Windows")
def test_a_device_is_written_to_and_stays_one():
    device = Path("/dev/null")
    assert Outputs(("csv", device)).write(lambda: [b"x"], device)
    assert device.is_char_device()


def test_a_spreadsheet_shows_text_as_text_and_every_digit():
    texts = ["=1+1", "@SUM(1)", "+1", "-1", "\t=1", "  =1", "\uff1d1", "\r=1", "naïve, 車", "a;=1"]
    rows = [{"prompt": text, "seed": 2**63 - 1, "num_inference_steps": 20, "guidance_scale": -1.5,
             "scheduler": "dpmpp_2m", "total_ms": 12.3456, "notes": ["a", "b"], "eta": 0.5,
             "datetime_utc": "2026-01-02T03:04:05.678+00:00"} for text in texts]
    text = spreadsheet(rows, ["eta", "prompt"])
    assert text.startswith("\ufeff")
    read = list(csv.DictReader(io.StringIO(text[1:], newline="")))
    assert [row["Prompt"] for row in read] == [
        f"'{text}" for text in texts[:8]] + ["naïve, 車", "a;=1"]
    assert list(read[0]) == ["eta", "Made (UTC)", "Prompt", "Scheduler", "Steps", "Guidance",
                             "Seed", "Time (ms)", "Notes"]  # fmt: skip
    assert list(read[0].values())[3:] == ["DPM++ 2M", "20", "-1.5", "'9223372036854775807",
                                          "12.3", "a; b"]  # fmt: skip
    assert read[0]["Made (UTC)"] == "2026-01-02 03:04:05"
    assert spreadsheet([]).startswith('\ufeff"Run"')


def test_a_comparison_and_the_log_have_a_spreadsheet(run, tmp_path):
    code, _, _ = run("compare", "a", "--axis", "prompt==1+1||@SUM(1)||ein rotes Äuto",
                     "--num-inference-steps", "1", "--spreadsheet", "s.csv", "--csv", "c.csv")
    assert code == 0
    harmless = ["'=1+1", "'@SUM(1)", "ein rotes Äuto"]
    with open(tmp_path / "s.csv", encoding="utf-8-sig", newline="") as file:
        assert [row["Prompt"] for row in csv.DictReader(file)] == harmless
    with open(tmp_path / "c.csv", encoding="utf-8", newline="") as file:  # the one for programs
        assert [row["prompt"] for row in csv.DictReader(file)] == [
            text.removeprefix("'") for text in harmless]
    code, out, _ = run("runs", "--format", "spreadsheet")
    assert out.startswith("\ufeff")
    assert [row["Prompt"] for row in csv.DictReader(io.StringIO(out[1:]))][::-1] == harmless


@pytest.mark.parametrize("console", [{"PYTHONIOENCODING": "cp1252"},
                                     {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}])
def test_output_is_utf8_whatever_the_console_says(tmp_path, session_engine, console):
    prompt = "красная машина, 赤い車 🚗"
    engine = Engine(tmp_path, device="cpu")
    engine.run(RunRequest(prompt=prompt, model_id="no/such-model"))
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("LANG", "PYTHONUTF8", "LC_CTYPE")}
    ended = subprocess.run([sys.executable, "-m", "pipelines", "runs"], capture_output=True,
                           env={**environment, "CONTACT_SHEET_HOME": str(tmp_path), **console})
    assert ended.returncode == 0, ended.stderr
    assert prompt in ended.stdout.decode("utf-8")


def test_a_file_name_may_be_of_any_script(run, tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    code, _, err = run("generate", "赤い車", "-o", "車.png", "--num-inference-steps", "1")
    assert (code, (tmp_path / "車.png").exists()) == (0, True), err
    assert stream.buffer.getvalue().decode("utf-8").startswith("車.png: ")


@pytest.mark.parametrize("arguments", [
    ["generate", "a \udcff car"], ["generate", "x", "-o", "\udcff.png"], ["\udcff"],
    ["runs", "--text", "\udc80"], ["compare", "x", "--axis", "prompt=\ud83d||b"],
    ["compare", "--resume", "\udcff"], ["generate", "x", "--model-id", "\udcff"],
    ["hub", "search", "\udcff"],
])  # fmt: skip
def test_an_argument_that_is_no_text_is_refused(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "accepted text in UTF-8" in err


@pytest.mark.parametrize("held", ["recipe", "resume"])
def test_what_a_recipe_or_the_log_holds_is_not_said_again(run, held):
    code, out, _ = run(*GRID, "--json")
    value = "sheet.png" if held == "recipe" else json.loads(out)["comparison_id"]
    for options in (["--seed", "5", "--num-inference-steps", "7"], ["--axis", "eta=0,1"],
                    ["--skip", "seed=1"], ["--num-images-per-prompt", "1"],
                    ["--model-id", "postcards"], ["--lora", "a"], ["--compile"]):
        code, out, err = run("compare", f"--{held}", value, *options)
        assert (code, out) == (2, "") and len(err.splitlines()) == 1
        assert all(option in err for option in options if option.startswith("--")), err
    assert "PROMPT" in run("compare", "a dog", f"--{held}", value)[2]
    code, out, _ = run("compare", f"--{held}", value, "-o", "again.png", "--json", "--no-shared",
                       "--reference", "seed=0")
    assert code == 0
    made = json.loads(out)
    assert made["cells"][0]["rms_latents"] == 0
    log = Engine().run_log
    assert log.comparison(made["comparison_id"]).reference == "seed=0"
    assert run("compare", "--resume", "x", "--recipe", "sheet.png")[0] == 2


def test_an_option_that_an_axis_overrules_is_noted(run):
    code, _, err = run(*GRID, "--seed", "5")
    assert code == 0
    assert err.startswith("note: --seed has no effect: seed is on an axis\n")
    assert "note" not in run(*GRID[:2], "--axis", "guidance_scale=1,2", *GRID[4:], "--seed", "5",
                             "--num-images-per-prompt", "2")[2]


def test_what_has_no_effect_on_a_picture_is_noted(run):
    _, out, err = run("generate", "a cat", "--num-inference-steps", "1", "--guidance-scale", "1",
                      "--guidance-rescale", "0.5", "--prior-num-inference-steps", "5", "--json")
    notes = ["guidance_rescale: no effect, since guidance_scale is not above 1",
             "prior_num_inference_steps: no effect, StableDiffusionPipeline knows none"]
    assert json.loads(out)["notes"] == notes
    assert [line for line in err.splitlines() if line.startswith("note: ")] == [
        f"note: {note}" for note in notes]


def test_a_comparison_says_each_note_once(run):
    _, _, err = run("compare", "a cat", "--axis", "guidance_scale=1,2,3", "--guidance-rescale",
                    "0.5", "--num-inference-steps", "1")
    assert [line for line in err.splitlines() if line.startswith("note: ")] == [
        "note: guidance_rescale: no effect, since guidance_scale is not above 1 (1 of 3)"]


def test_so_does_in_painting(run, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "mask.png")
    _, _, err = run("inpaint", str(tmp_path / "red.png"), "--mask", str(tmp_path / "mask.png"),
                    "--num-inference-steps", "1", "--prior-num-inference-steps", "5")
    assert "note: prior_num_inference_steps: no effect, StableDiffusionInpaintPipeline" in err


@pytest.mark.parametrize(("arguments", "option"), [
    (["runs", "--json", "--format", "csv"], "--format"),
    (["hub", "cache", "--delete", "abc", "--check"], "--check"),
    (["hub", "cache", "--delete", "abc", "--delete-partial"], "--delete-partial"),
    (["hub", "cache", "--yes"], "--yes"),
])  # fmt: skip
def test_options_that_exclude_each_other_are_refused(run, arguments, option):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert f"received {option} beside it" in err


def test_the_id_of_a_comparison_is_told_at_its_start(run):
    code, out, err = run(*GRID, "--json")
    first, rest = err.split("\n", 1)
    assert first.endswith(f"compare --resume {json.loads(out)['comparison_id']}")
    assert "cells" in rest  # the progress comes behind it
    code, again, err = run(*first.split("python -m pipelines ")[1].split(), "--json")
    assert code == 0
    assert [cell["run_id"] for cell in json.loads(again)["cells"]] == [
        cell["run_id"] for cell in json.loads(out)["cells"]]


def test_outputs_name_the_option():
    with pytest.raises(RequestError, match="^html: "):
        Outputs(("html", Path("no/such/folder")))
