"""What a written picture says of itself: some 1,000 texts through every format and every reader,
and what exiftool and sd-parsers make of them."""

import io
import json
import re
import shutil
import subprocess

import pytest
from nasty import TEXTS, random_texts
from PIL import Image

from pipelines import RunRequest
from pipelines.provenance.a1111 import is_a1111, read_a1111, write_a1111
from pipelines.provenance.blocks import read_blocks
from pipelines.provenance.encode import FORMATS, Truth, encode
from pipelines.provenance.reading import ModelName
from pipelines.sheet.recipe import read_record

PICTURE = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
EVERY = list(dict.fromkeys([*TEXTS, *random_texts(15, 1_100), "a\x00b", "\ufffe", "]]>", "&#0;"]))
LONG = "車🚗" * 5_000


def truth(prompt, negative=""):
    request = RunRequest(prompt=prompt, negative_prompt=negative, scheduler="dpmpp_2m_karras",
                         num_inference_steps=20, guidance_scale=7.5, seed=2**63 - 1,
                         width=64, height=64).model_dump(mode="json")
    text = write_a1111(request, ModelName("postcards", "0123456789abcdef"), (64, 64))
    return Truth({"format": 1, "requests": [request]}, text)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_text_comes_back_from_every_format(suffix):
    for text in EVERY[:: 6 if suffix == ".avif" else 1]:  # which is slow to write
        wanted = truth(text, text[::-1])
        data, notes = encode(PICTURE, suffix, wanted)
        assert not notes
        record, comparison = read_record(data)
        assert record == wanted.record, text
        assert (comparison.base.prompt, comparison.base.negative_prompt) == (text, text[::-1])
        blocks = read_blocks(io.BytesIO(data))
        said = blocks.texts.get("parameters") or blocks.comment
        # A byte order mark at the start of a comment is taken for one.
        assert said == wanted.parameters or said == wanted.parameters.removeprefix("\ufeff"), text
        assert is_a1111(said)
        assert "trainedAlgorithmicMedia" in blocks.xmp and not blocks.problems
    assert len(EVERY) > 1_000


def plain(text):
    """Whether A1111's text can hold it: A1111 strips each line, and reads one as the negative
    prompt's."""
    lines = text.split("\n")
    return (text == "\n".join(map(str.strip, lines)).strip() and "<lo" not in text
            and not any(line.startswith("Negative prompt:") for line in lines))


def test_the_text_of_a1111_is_read_as_a1111_reads_it():
    count = 0
    for text in filter(plain, EVERY):
        read = read_a1111(truth(text, "people, (bad:1.2)").parameters)
        assert read.values == {
            "prompt": text, "negative_prompt": "people, (bad:1.2)", "num_inference_steps": 20,
            "scheduler": "dpmpp_2m_karras", "guidance_scale": 7.5, "seed": 2**63 - 1, "width": 64,
            "height": 64}, text
        assert read.model == ModelName("postcards", "0123456789")
        count += 1
    assert count > 600


def test_the_pixels_are_the_same_and_all_of_it_can_be_left_out():
    for suffix in FORMATS:
        data, _ = encode(PICTURE, suffix)
        blocks = read_blocks(io.BytesIO(data))
        assert not blocks.texts and not blocks.comment and not blocks.xmp
        with Image.open(io.BytesIO(encode(PICTURE, suffix, truth("a"))[0])) as image:
            same = image.convert("RGB").tobytes() == PICTURE.tobytes()
        assert same or suffix in (".jpg", ".avif")


def test_what_a_jpeg_cannot_hold_is_said_and_the_rest_is_written():
    data, notes = encode(PICTURE, ".jpg", truth(LONG[:10_000], LONG[:10_000]))
    (note,) = notes
    assert re.fullmatch(r"the record has 71,\d{3} bytes and is left out: a JPEG holds 65,500, the "
                        "other formats hold it", note)
    blocks = read_blocks(io.BytesIO(data))
    assert "trainedAlgorithmicMedia" in blocks.xmp and is_a1111(blocks.comment)
    for suffix in (".png", ".webp", ".avif"):
        data, notes = encode(PICTURE, suffix, truth(LONG[:10_000], LONG[:10_000]))
        assert not notes and read_record(data)[1].base.prompt == LONG[:10_000]
    _, notes = encode(Image.new("RGBA", (4, 4)), ".jpg")
    assert notes == ("JPEG has no transparency: it was filled with white",)


@pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool (Debian's "
                    "libimage-exiftool-perl) is not on this machine")
def test_exiftool_reads_what_is_written(tmp_path):
    texts = [text for text in EVERY if text.isprintable() and text.strip() == text != ""][:40]
    for number, text in enumerate(texts):
        for suffix in FORMATS:
            data, _ = encode(PICTURE, suffix, truth(text))
            (tmp_path / f"{number}{suffix}").write_bytes(data)
    done = subprocess.run(["exiftool", "-json", "-charset", "utf8", "-warning", "-error",
                           "-Parameters", "-UserComment", "-DigitalSourceType", "-Record",
                           "-Contact_sheet", str(tmp_path)], capture_output=True, check=True)
    files = {entry["SourceFile"].rpartition("/")[2]: entry for entry in json.loads(done.stdout)}
    assert len(files) == 4 * len(texts)
    for name, entry in files.items():
        number, _, suffix = name.partition(".")
        wanted = truth(texts[int(number)])
        assert "Warning" not in entry and "Error" not in entry, entry
        assert entry["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
        assert (entry.get("Parameters") or entry["UserComment"]) == wanted.parameters, name
        assert json.loads(entry["Contact_sheet" if suffix == "png" else "Record"]) == wanted.record


def test_sd_parsers_reads_what_is_written():
    sd_parsers = pytest.importorskip("sd_parsers")
    manager, images = sd_parsers.ParserManager(), []  # kept, since it knows them by their id()
    for text in filter(plain, EVERY[:150]):
        if not text or "Negative prompt" in text or ":" in text:
            continue
        for suffix in (".png", ".jpg", ".webp"):
            data, _ = encode(PICTURE, suffix, truth(text, "people"))
            images.append(Image.open(io.BytesIO(data)))
            (sampler,) = manager.parse(images[-1]).samplers
            assert [prompt.value for prompt in sampler.prompts] == [text], (text, suffix)
            assert [prompt.value for prompt in sampler.negative_prompts] == ["people"]
            assert sampler.name == "DPM++ 2M" and sampler.model.name == "postcards"
            assert sampler.parameters["scheduler"] == "Karras"
    assert len(images) > 150
