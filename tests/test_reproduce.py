"""Pictures made again from what their files say, among them files of an earlier version, and the
options of the command line that belong to it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from profiles import rgb_profile

from pipelines.comparison import Comparison
from pipelines.errors import RequestError
from pipelines.provenance.blocks import read_blocks
from pipelines.provenance.link import LONGEST, read_link, write_link
from pipelines.sheet.recipe import read_record

OLD = Path(__file__).parent / "recipes"  # as commit dd1762b wrote them
QUICK = ("--num-inference-steps", "2")


def blocks_of(path):
    with path.open("rb") as file:
        return read_blocks(file)


def test_files_of_an_earlier_commit_still_reproduce(run):
    """Their pixels are those of another machine, where they may differ by the last bit."""
    for name, count in (("dd1762b.html", 4), ("dd1762b.png", 1)):
        code, out, err = run("reproduce", str(OLD / name), "--json")
        made = json.loads(out)
        assert len(made["cells"]) == count and code == 0, made
        assert set(made["counts"]) <= {"identical", "within tolerance"}
        assert max(cell["largest"] for cell in made["cells"]) <= made["tolerance"] == 2
        assert "the file does not name them" in err
    code, out, _ = run("reproduce", str(OLD / "dd1762b.json"))
    assert code == 3 and "4 nothing to compare with" in out


def test_what_is_written_reproduces_and_what_differs_is_told(run, tmp_path):
    run("compare", "a red car", "--axis", "scheduler=ddim,euler", "--axis", "seed=1,2", "--skip",
        "scheduler=ddim,seed=2", *QUICK, "-o", "s.png", "--html", "s.html")
    for name in ("s.png", "s.html"):
        code, out, _ = run("reproduce", name, "--json")
        cells = json.loads(out)["cells"]
        assert code == 0 and len(cells) == 3
        assert all(cell["same_noise"] and cell["outcome"] in ("identical", "within tolerance")
                   for cell in cells)
    record, _ = read_record(tmp_path / "s.png")
    record["versions"]["torch"] = "1.0"
    unet = "unet/diffusion_pytorch_model.safetensors"
    record["models"][0]["files"][unet]["sha256"] = "0" * 64
    record["pictures"][0]["pixels_sha256"] = "1" * 64  # not this picture's
    record["pictures"][2] = None
    (tmp_path / "r.json").write_text(json.dumps(record))
    code, out, err = run("reproduce", "r.json", "--json")
    made = json.loads(out)
    assert code == 1
    outcomes = [cell["outcome"] for cell in made["cells"]]
    assert outcomes[0] == "different" and outcomes[1] == "nothing to compare with"
    assert made["cells"][0]["largest"] is None and made["cells"][0]["same_noise"] is True
    assert "torch: '1.0' then" in err and f"{unet} changed" in err


def test_a_picture_with_other_pixels_is_measured(run, tmp_path):
    run("generate", "a red car", *QUICK, "-o", "a.png")
    record, _ = read_record(tmp_path / "a.png")
    from pipelines.provenance.encode import Truth, encode

    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for change, outcome in ((1, "within tolerance"), (9, "different")):
        record["pictures"][0]["pixels_sha256"] = None
        other = Image.fromarray(np.where(pixels > 128, pixels - change, pixels + change)
                                .astype(np.uint8))
        (tmp_path / "b.png").write_bytes(encode(other, ".png", Truth(record))[0])
        code, out, _ = run("reproduce", "b.png", "--json")
        (cell,) = json.loads(out)["cells"]
        assert cell["outcome"] == outcome and abs(cell["largest"] - change) <= 1
        assert code == (outcome == "different")


def test_a_missing_picture_is_asked_for(run, tmp_path):
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "in.png")
    run("generate", "a cat", "--image", "in.png", "--num-inference-steps", "4", "-o", "a.webp")
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    code, _, err = run("reproduce", "a.webp")
    assert code == 2 and "give it with --image FILE" in err
    code, out, _ = run("reproduce", "a.webp", "--image", "in.png")
    assert code == 0 and "the same initial noise" in out
    code, _, err = run("generate", "--from", "a.webp", "-o", "b.png")
    assert code == 0 or "image" in err


def test_from_takes_the_settings_and_options_overrule_them(run, tmp_path):
    run("generate", "a red car, at night", "--negative-prompt", "x", "--seed", "9", "--scheduler",
        "dpmpp_2m", "--scheduler-option", "use_karras_sigmas=true", *QUICK, "-o", "a.avif")
    code, out, err = run("generate", "--from", "a.avif", "--seed", "10", "-o", "b.jpg", "--json")
    assert code == 0 and "written by Contact Sheet" in err
    wanted, (again,) = (read_record(tmp_path / name)[0]["requests"] for name in ("a.avif", "b.jpg"))
    assert again == wanted[0] | {"seed": 10}
    code, out, _ = run("compare", "--from", "b.jpg", "--axis", "guidance_scale=1,3", "--json")
    assert code == 0 and [cell["axes"] for cell in json.loads(out)["cells"]] == [
        {"guidance_scale": 1.0}, {"guidance_scale": 3.0}]
    record, comparison = read_record(tmp_path / "sheet.png")
    assert comparison.base.seed == 10 and comparison.base.prompt == "a red car, at night"
    code, out, _ = run("compare", "--from", "sheet.png", "--seed", "11", "--json", "-o", "t.png")
    assert code == 0 and len(json.loads(out)["cells"]) == 2
    assert read_record(tmp_path / "t.png")[1].base.seed == 11
    for arguments in (("--recipe", "sheet.png"), ("--resume", "x")):
        code, _, err = run("compare", "--from", "b.jpg", *arguments)
        assert code == 2 and "--from beside it" in err


def test_a_picture_that_is_painted_into_is_a_composite(run, tmp_path):
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "in.png")
    Image.linear_gradient("L").resize((64, 64)).save(tmp_path / "mask.png")
    code, *_ = run("inpaint", "in.png", "a house", "--mask", "mask.png", *QUICK, "-o", "a.webp",
                   "--mask-feather", "3")
    assert code == 0
    assert "compositeWithTrainedAlgorithmicMedia<" in blocks_of(tmp_path / "a.webp").xmp
    code, *_ = run("inpaint", "in.png", "--mask", "mask.png", "--from", "a.webp", "-o", "b.png")
    assert code == 0
    first, second = (read_record(tmp_path / name)[0]["requests"] for name in ("a.webp", "b.png"))
    assert first == second and first[0]["mask_feather"] == 3


def test_the_colour_profile_of_a_picture_that_is_painted_into_is_kept(run, tmp_path):
    wide = rgb_profile()
    source = np.asarray(Image.linear_gradient("L").resize((64, 64)).convert("RGB")).copy()
    source[:, :, 2] = 90  # colours that sRGB has
    Image.fromarray(source).save(tmp_path / "in.png", icc_profile=wide)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 20, 20))
    mask.save(tmp_path / "mask.png")
    for name in ("a.png", "a.webp", "a.jpg"):
        code, *_ = run("inpaint", "in.png", "a house", "--mask", "mask.png", *QUICK, "-o", name)
        assert code == 0
        with Image.open(tmp_path / name) as image:
            assert image.info["icc_profile"] == wide
            kept = np.asarray(image.convert("RGB"))[24:, 24:].astype(int)
        assert np.abs(kept - source[24:, 24:]).mean() < 2
    run("generate", "a cat", *QUICK, "-o", "plain.png")
    with Image.open(tmp_path / "plain.png") as image:
        assert "icc_profile" not in image.info


def test_no_metadata_leaves_the_pixels_alone(run, tmp_path):
    for name in ("a.png", "a.jpg", "a.webp", "a.avif"):
        assert run("generate", "a cat", *QUICK, "-o", name, "--no-metadata")[0] == 0
        assert not blocks_of(tmp_path / name)
        code, _, err = run("generate", "--from", name)
        assert code == 2 and "says nothing of how it was made" in err
    run("compare", "a cat", *QUICK, "--axis", "seed=1,2", "-o", "s.png", "--no-metadata")
    assert not blocks_of(tmp_path / "s.png")


def test_a_recipe_is_a_link(request_):
    comparison = Comparison.parse(request_.changed(prompt="夜 & <b>"), ["seed=1,2"], ["seed=2"])
    text = write_link(comparison)
    assert text.isascii() and len(text) < 400
    assert read_record(read_link(text))[1] == comparison
    for broken in ("", "x", text[:-4], "é", "a" * 20_000, text[1:]):
        with pytest.raises(RequestError, match="the address holds none"):
            read_link(broken)
    prompts = "||".join(f"{number} {hash(str(number))}" for number in range(900))
    assert write_link(Comparison.parse(request_, [f"prompt={prompts}"])) is None and LONGEST
