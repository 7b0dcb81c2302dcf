import csv
import io
import json
import os
import struct
import zipfile
import zlib
from random import Random

import numpy as np
import pytest
from nasty import TEXTS
from PIL import Image, ImageColor, ImageFont
from PIL.PngImagePlugin import PngInfo

from pipelines import Comparison, RunRequest, measuring
from pipelines.cli.output import write
from pipelines.errors import RequestError, StorageError
from pipelines.inpainting.pictures_in import open_picture
from pipelines.provenance.encode import Truth, encode
from pipelines.sheet import draw as sheet
from pipelines.sheet.cells import Results, notes_of_runs, to_csv
from pipelines.sheet.exports import EXPORTS, exports_for
from pipelines.sheet.recipe import read_recipe

BASE = RunRequest(prompt="a red car", num_inference_steps=1)


def compare(engine, axes):
    comparison = Comparison.parse(BASE, axes)
    return comparison, engine.compare(comparison)


def contains(picture, part):
    """Whether `part` stands somewhere in `picture`, pixel for pixel."""
    whole, part = np.asarray(picture), np.asarray(part)
    windows = np.lib.stride_tricks.sliding_window_view(whole[:, :, 0], part.shape[:2])
    return bool((windows == part[:, :, 0]).all(axis=(2, 3)).any())


def empty_cells(picture):
    """How many cells' area has the colour of a cell without a picture."""
    empty = (np.asarray(picture) == ImageColor.getrgb(sheet.EMPTY)).all(-1)
    return empty.sum() / sheet.SMALLEST**2


def test_enlarging_repeats_pixels():
    small = Image.effect_noise((5, 3), 80)
    large = sheet.enlarge(small, 12)
    assert large.size == (15, 9)
    assert (np.asarray(large)[1::3, 1::3] == np.asarray(small)).all()
    assert sheet.enlarge(large, 10).size == (15, 9)


def test_every_cell_is_on_the_sheet_and_a_third_axis_makes_two(engine):
    comparison, runs = compare(engine, ["scheduler=ddim,euler_a", "guidance_scale=1,9", "seed=0,1"])
    sheets = sheet.draw(comparison, runs, engine.pictures)
    assert len(sheets) == 2
    for number, run in enumerate(runs):
        centre = engine.pictures.get(run.image_sha256).crop((24, 24, 40, 40))
        tile = centre.resize((48, 48), Image.Resampling.NEAREST)
        assert contains(sheets[number // 4], tile), run.axes


def test_failed_and_missing_cells_keep_their_place(engine):
    comparison, runs = compare(engine, ["height=64,60"])
    whole = sheet.draw(comparison, runs, engine.pictures)[0]
    assert runs[1].status == "failed"
    assert 0.5 < empty_cells(whole) < 1  # less the words in it
    runs[0] = None
    without = sheet.draw(comparison, runs, engine.pictures)[0]
    assert without.width == whole.width
    assert 1.4 < empty_cells(without) < 2


def test_each_note_of_the_cells_is_on_the_sheet_once(engine):
    comparison, runs = compare(engine, ["seed=0..2"])
    plain = sheet.draw(comparison, runs, engine.pictures)[0]
    for run, notes in zip(runs, (["flat", "clipped"], ["clipped"], ["clipped"]), strict=True):
        run.notes = notes
    assert notes_of_runs([*runs, None]) == ["flat (1 of 3)", "clipped"]
    noted = sheet.draw(comparison, runs, engine.pictures)[0]
    for run in runs:
        run.notes = ["clipped"]
    once = sheet.draw(comparison, runs, engine.pictures)[0]
    line = once.height - plain.height
    assert line > 10 and noted.height - plain.height == 2 * line
    assert np.array_equal(np.asarray(once)[-200:], np.asarray(plain)[-200:])


@pytest.mark.parametrize("prompt", ["", "x" * 3000, "日本語 🚗 — naïve", "a\nb\tc " * 50])
def test_any_prompt_can_be_a_heading(engine, prompt):
    comparison = Comparison(BASE.changed(prompt=prompt), ())
    comparison = Comparison.parse(comparison.base, ["seed=0"])
    drawn = np.asarray(sheet.draw(comparison, [None], engine.pictures)[0])
    marked = (drawn != ImageColor.getrgb(sheet.PAPER)).any(-1)
    edge = sheet.MARGIN - 2  # a letter leans over its box
    assert marked[edge:edge + 20, edge:-edge].any(), "a heading"
    inside = marked[edge:-edge, edge:-edge].sum()
    assert inside == marked.sum(), "nothing runs over the edge"
    assert drawn.shape[0] < 800, "a heading, not a page"


def test_a_letter_that_pillows_font_lacks_takes_a_font_of_the_system():
    own = sheet._font_for("a red car · …")
    assert own is ImageFont.load_default
    text = "красная машина"
    assert sheet._lacking(own(20), text) == len(set(text) - {" "})
    found = sheet._font_for(text)
    if found is own:
        pytest.skip("this system has none of the fonts")
    assert sheet._lacking(found(20), text) == 0
    assert found(31).size == 31


def test_table_has_a_row_per_cell_and_the_runs_columns(engine):
    comparison, runs = compare(engine, ["scheduler=ddim,heun", "seed=0,1"])
    table = Results.gather(engine, comparison, [*runs[:3], None]).rows
    assert [row["scheduler"] for row in table] == ["ddim", "ddim", "heun", "heun"]
    assert [row["status"] for row in table] == ["ok"] * 3 + ["cancelled"]
    assert [row.get("nfe") for row in table] == [1, 1, 1, None]
    read = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert {"total_ms", "noise_sha256", "environment", "image"} <= set(read[0])
    assert json.loads(read[0]["environment"])["device"] == "cpu"


def test_a_cell_is_one_record_in_every_format(engine):
    """Numbers of the record stand in CSV under the same names; a cell without a run has the same
    keys as one with a run, and one that a rule leaves out is in no file."""
    comparison = Comparison.parse(BASE, ["scheduler=ddim,heun", "seed=0,1"],
                                  ["scheduler=heun,seed=1"])
    runs = engine.compare(comparison)
    measuring.measure(engine, comparison, runs, "scheduler=ddim")
    results = Results.gather(engine, comparison, [*runs[:2], None, None], "scheduler=ddim")
    records = json.loads(EXPORTS["json"].write(results))
    rows = list(csv.DictReader(io.StringIO(EXPORTS["csv"].write(results).decode())))
    assert len(records) == len(rows) == 3 and len(results.every_record) == 4
    assert records[0].keys() == records[2].keys()
    assert [record["status"] for record in records] == ["ok", "ok", "cancelled"]
    assert [record["rms_latents"] for record in records] == [0, 0, None]
    for name in ("status", "nfe", "noise_sha256", "image", "rms_latents", "ssim", "parent_id"):
        assert [row[name] for row in rows] == [
            "" if record[name] is None else str(record[name]) for record in records], name
    assert [row["prompt"] for row in rows] == ["a red car"] * 3


def test_a_page_names_no_file_of_this_machine(engine):
    comparison, runs = compare(engine, ["seed=0"])
    results = Results.gather(engine, comparison, runs)
    for name in ("json", "csv"):
        assert str(engine.home).encode() in EXPORTS[name].write(results)
    assert str(engine.home).encode() not in EXPORTS["html"].write(results)


def test_every_export_is_written_and_several_sheets_are_a_zip(engine):
    comparison, runs = compare(engine, ["scheduler=ddim", "guidance_scale=1", "seed=0"])
    offered = exports_for(comparison)
    assert set(EXPORTS) - set(offered) == {"png"}
    results = Results.gather(engine, comparison, runs)
    files = {name: export.write(results) for name, export in offered.items()}
    with zipfile.ZipFile(io.BytesIO(files["zip"])) as archive:
        (name,) = archive.namelist()
        assert Image.open(archive.open(name)).text["contact_sheet"]
    assert json.loads(files["recipe"])["axes"][2] == {"name": "seed", "values": [0]}
    assert set(exports_for(Comparison.parse(BASE, ["seed=0"]))) == set(EXPORTS) - {"zip"}


def recipe_png(image, recipe):
    return encode(image, ".png", Truth(recipe))[0]


def test_a_png_carries_its_recipe(tmp_path):
    data = recipe_png(Image.new("RGB", (4, 4)), {"base": {"prompt": "naïve 日本"}})
    with Image.open(io.BytesIO(data)) as image:
        assert json.loads(image.text["contact_sheet"]) == {"base": {"prompt": "naïve 日本"}}
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path / "no" / "out.png", data)


def sheet_of(tmp_path, recipe, width, height, name="sheet.png"):
    """A sheet of any size with a recipe; of its pixels there is only the beginning."""
    small = recipe_png(Image.new("RGB", (4, 4)), recipe)
    head = b"IHDR" + struct.pack(">II", width, height) + small[24:29]
    path = tmp_path / name
    path.write_bytes(small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:])
    return path


RECIPE = {"base": {"prompt": "a red car"}, "axes": [{"name": "seed", "values": [1, 2]}]}


@pytest.mark.parametrize("size", [(13_500, 14_000), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_the_recipe_of_a_sheet_of_any_size_is_read(tmp_path, size, recwarn):
    """188 megapixels are 25 x 25 cells of 512 px; Pillow opens none of more than 179."""
    comparison = read_recipe(sheet_of(tmp_path, RECIPE, *size))
    assert [cell.request.seed for cell in comparison.cells] == [1, 2]
    assert not recwarn.list
    with pytest.raises(RequestError, match="holds none"):
        read_recipe(sheet_of(tmp_path, ["none"], *size))


def test_a_sheet_of_many_large_cells_is_no_input_picture(tmp_path, recwarn):
    for size in ((13_500, 14_000), (10_000, 10_000)):
        with pytest.raises(RequestError, match="accepted up to 25 million"):
            open_picture(sheet_of(tmp_path, RECIPE, *size))
    assert not recwarn.list


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be",
                                      "utf-32"])
@pytest.mark.parametrize("name", ["recipe.json", "page.html", "recipe"])
def test_a_recipe_is_read_in_any_unicode(tmp_path, encoding, name):
    base = {"base": {"prompt": "naïve 日本 🚗"}, "axes": RECIPE["axes"]}
    text = json.dumps(base, ensure_ascii=False)
    if name == "page.html":
        page = json.dumps({"files": {"recipe": {"text": text}}}, ensure_ascii=False)
        text = f'<!doctype html><script id="data">{page}</script>'
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert read_recipe(tmp_path / name).base.prompt == "naïve 日本 🚗"


YAML = """
# a comment
base:
  prompt: "no"
  num_inference_steps: 4
  guidance_scale: 1e1
axes:
  - {name: seed, values: [1, 9223372036854775807]}
  - name: negative_prompt
    values: [no, 2026-01-01, 12:30, "010", '']
"""


def test_a_recipe_in_yaml_has_the_values_of_json(tmp_path):
    (tmp_path / "recipe.yaml").write_text(YAML)
    comparison = read_recipe(tmp_path / "recipe.yaml")
    assert comparison.base.prompt == "no" and comparison.base.guidance_scale == 10
    assert comparison.axes[0].values == (1, 2**63 - 1)
    assert comparison.axes[1].values == ("no", "2026-01-01", "12:30", "010", "")


@pytest.mark.parametrize("text", [
    "a: &a [x, x]\nb: &b [*a, *a]\nbase: {prompt: *b}\n",  # aliases: few lines, many values
    "base: !!python/object/apply:os.getcwd []\n", "base: {prompt: [unclosed\n",
    "- just\n- a list\n",
    "[" * 100_000, "plain text",
])
def test_yaml_that_is_no_recipe_is_refused(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RequestError, match="holds none"):
        read_recipe(tmp_path / "recipe.yaml")


def hostile_recipes():
    """Name of a file -> its bytes: broken, cut, nested and wrong, in each of the three forms."""
    rng = Random(0)
    good = json.dumps(RECIPE)
    wrong = [None, 7, 1e999, "x", [], [[]], {}, {"a": 1}, True, "\ud800", -(10**30), [None] * 3]
    texts = [*("[" * n for n in (900, 5000, 100_000)), '{"a":' * 100_000, "9" * 5000, "", " ",
             "null", "{}", '{"requests": []}', '{"requests": {}}', '{"requests": [[]]}',
             "NaN", '"base"', good[:-1], good + good, "\0" * 99, "<" * 99, '<p id="data">',
             '<p id="data">{}</script>', '<p id="data">[</script>', '<p id="data">' * 3]
    for key in ("base", "axes", "skip"):
        texts += [json.dumps({**RECIPE, key: value}) for value in wrong]
    for key in ("name", "values", "search"):
        texts += [json.dumps({**RECIPE, "axes": [{"name": "seed", "values": [1], key: value}]})
                  for value in wrong]
    for name in ("prompt", "seed", "image", "loras", "scheduler_options", "model_id", "sampler"):
        texts += [json.dumps({"requests": [{name: value}]}) for value in wrong]
    deep = "[" * 400 + "]" * 400
    texts += [good.replace('"a red car"', deep), good.replace("[1, 2]", f"[{deep}]")]
    cases = {}
    for number, text in enumerate(texts):
        page = json.dumps({"files": {"recipe": {"text": text}}})
        cases[f"{number}.json"] = text.encode("utf-8", "surrogatepass")
        cases[f"{number}.html"] = f'<script id="data">{page}</script>'.encode()
        info = PngInfo()
        info.add_itxt("contact_sheet", text, zip=number % 2 == 0)
        buffer = io.BytesIO()
        Image.new("L", (2, 2)).save(buffer, "PNG", pnginfo=info)
        cases[f"{number}.png"] = buffer.getvalue()
    whole = recipe_png(Image.new("RGB", (4, 4)), RECIPE)
    for number in range(60):
        broken = bytearray(whole)
        for _ in range(1 + number % 7):
            broken[rng.randrange(8, len(broken))] = rng.randrange(256)
        cases[f"broken {number}.png"] = bytes(broken)
        cases[f"cut {number}.png"] = whole[: number * 4]
        cases[f"noise {number}"] = rng.randbytes(number * 9)
    cases["latin.json"] = json.dumps({"base": {"prompt": "naïve"}}, ensure_ascii=False).encode(
        "latin-1")
    return cases


def test_hostile_recipes_are_refused_in_one_line_or_read(tmp_path):
    cases = hostile_recipes()
    refused = set()
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        try:
            assert read_recipe(tmp_path / name).cells, name
        except RequestError as error:
            lines = str(error).splitlines()  # two more mark the place of a mistake in a rule
            assert len(lines) == 1 or not lines[-1].strip(" ^"), (name, lines)
            assert len(lines[0]) < 1500, name
            refused.add(name)
    print(f"{len(refused)} of {len(cases)} hostile recipes were refused, the others read")
    assert len(cases) > 500 and len(refused) > 0.7 * len(cases)
    assert {"2.json", "2.html", "2.png", "latin.json"} <= refused


def test_a_recipe_is_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for name, part in (("pipe.json", "is no file"), (".", "is no file"), ("no", "does not exist")):
        with pytest.raises(RequestError, match=part):
            read_recipe(tmp_path / name)


def test_the_subtitle_says_what_is_unusual_about_how_it_was_computed():
    base = RunRequest(prompt="a", cache="pyramid_attention_broadcast", torch_dtype="bfloat16",
                      revision="0123456789" * 4)
    comparison = Comparison.parse(base, ["compile=false,true", "torch_dtype=bfloat16"])
    text = sheet.subtitle(comparison, [])
    assert "cache pyramid_attention_broadcast" in text
    assert "revision 0123456 " in text
    assert "compile" not in text and "torch_dtype" not in text and "_backend" not in text


def test_the_subtitle_says_what_decides_the_picture_where_it_is_not_the_default():
    base = RunRequest(prompt="a", eta=0.5, guidance_rescale=0.7, loras="style.safetensors=0.5",
                      scheduler="dpmpp_2m",
                      scheduler_options={"solver_order": 3, "use_karras_sigmas": True})
    text = sheet.subtitle(Comparison.parse(base, ["scheduler_options.solver_order=1,2"]), [])
    for part in ("eta 0.5", "guidance_rescale 0.7", "loras style.safetensors=0.5",
                 "scheduler_options use_karras_sigmas=on"):
        assert part in text
    assert "solver_order" not in text and "strength" not in text
    masked = RunRequest(prompt="a", task="inpainting", image="a" * 64, mask_image="b" * 64,
                        strength=0.7, mask_feather=3)
    text = sheet.subtitle(Comparison.parse(masked, ["seed=0,1"]), [])
    assert "strength 0.7" in text and "mask_feather 3" in text


def test_csv_holds_any_text_even_a_carriage_return_and_linked_values():
    records = [{"prompt": text, "linked": (1, text), "n": 1} for text in TEXTS]
    table = list(csv.DictReader(io.StringIO(to_csv(records), newline="")))
    assert [row["prompt"] for row in table] == list(TEXTS)
    assert [json.loads(row["linked"]) for row in table] == [[1, text] for text in TEXTS]
    assert "\r\n" not in to_csv([{"prompt": "a"}])
