"""Settings out of the files of other programs, and out of files that mean harm."""

import gzip
import io
import json
import random
import struct
import time
import zlib

import numpy as np
import pytest
from nasty import ENDLESS, TEXTS
from PIL import Image

from pipelines.errors import RequestError
from pipelines.hub.folders import models_here
from pipelines.provenance.blocks import comment_text, read_blocks
from pipelines.provenance.restore import restore
from pipelines.provenance.samplers import A1111, COMFYUI, INVOKEAI, NOVELAI, scheduler_values
from pipelines.schedulers import BY_KEY, checked_options

PICTURE = Image.new("RGB", (8, 8), "teal")
PARAMETERS = (
    "a red car, 夜\nat night <lora:night:0.8>\nNegative prompt: people,\nblurry\n"
    "Steps: 12, Sampler: DPM++ 2M Karras, CFG scale: 4.5, Seed: 99, Size: 512x768, "
    'Model hash: 6ce0161689, Model: "v1-5, pruned: emaonly", Clip skip: 2, ENSD: 31337, '
    'Template: "a, b: \\"c\\"\\nd", Version: v1.6.0')
GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd\\postcards.ckpt"}},
    "2": {"class_type": "LoraLoader", "inputs": {"model": ["1", 0], "clip": ["1", 1],
                                                 "lora_name": "ink.safetensors"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["2", 1]}},
    "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "people", "clip": ["2", 1]}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 96}},
    "6": {"class_type": "KSampler", "inputs": {
        "model": ["2", 0], "positive": ["3", 0], "negative": ["4", 0], "latent_image": ["5", 0],
        "seed": 2**53 + 1, "steps": 9, "cfg": 3.5, "sampler_name": "dpmpp_2m",
        "scheduler": "karras", "denoise": 1.0}},
    "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["1", 2]}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0]}},
    "9": {"class_type": "PrimitiveString", "inputs": {"value": "a red car"}},
}
WORKFLOW = {
    "nodes": [
        {"id": 1, "type": "CheckpointLoaderSimple", "widgets_values": ["postcards.safetensors"]},
        {"id": 3, "type": "CLIPTextEncode", "widgets_values": ["a red car"]},
        {"id": 4, "type": "CLIPTextEncode", "widgets_values": ["people"]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [64, 96, 1]},
        {"id": 6, "type": "KSampler", "widgets_values": [2**53 + 1, "fixed", 9, 3.5, "dpmpp_2m",
                                                         "karras", 1],
         "inputs": [{"name": "model", "link": 10}, {"name": "positive", "link": 11},
                    {"name": "negative", "link": 12}, {"name": "latent_image", "link": 13}]},
    ],
    "links": [[10, 1, 0, 6, 0, "MODEL"], [11, 3, 0, 6, 1, "C"], [12, 4, 0, 6, 2, "C"],
              [13, 5, 0, 6, 3, "LATENT"]],
}
INVOKE = {
    "generation_mode": "txt2img", "positive_prompt": "a red car", "negative_prompt": "people",
    "width": 64, "height": 96, "seed": 99, "rand_device": "cpu", "cfg_scale": 4.5, "steps": 12,
    "scheduler": "dpmpp_2m_k", "model": {"name": "postcards", "hash": "blake3:00"},
    "cfg_rescale_multiplier": 0.5, "clip_skip": 1, "app_version": "5.0"}
SWARM = {"sui_image_params": {
    "prompt": "a red car", "negativeprompt": "people", "model": "postcards.safetensors",
    "seed": 99, "steps": 12, "cfgscale": 4.5, "width": 64, "height": 96, "sampler": "dpmpp_2m",
    "scheduler": "karras", "swarm_version": "0.9", "sigmashift": 3}}
NOVEL = {"prompt": "a red car", "uc": "people", "steps": 12, "height": 96, "width": 64,
         "scale": 4.5, "seed": 99, "sampler": "k_dpmpp_2m", "noise_schedule": "karras",
         "request_type": "PromptGenerateRequest"}
CALL = {"prompt": "a red car", "negative_prompt": "people", "num_inference_steps": "12",
        "guidance_scale": "4.5", "seed": "99", "width": "64", "height": "96",
        "scheduler": "DPMSolverMultistepScheduler", "model": "postcards", "lens": "wide"}
KARRAS = {"scheduler": "dpmpp_2m_karras"}
SAME = {"prompt": "a red car", "negative_prompt": "people", "num_inference_steps": 12,
        "guidance_scale": 4.5, "seed": 99, "width": 64, "height": 96}


def png(texts, kind="iTXt", behind=False):
    """A PNG with texts in chunks of a kind, before or behind the pixels."""
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")
    data = buffer.getvalue()
    chunks = b""
    for key, text in texts.items():
        key, text = key.encode("latin-1"), text.encode()
        body = {"tEXt": key + b"\0" + text, "zTXt": key + b"\0\0" + zlib.compress(text),
                "iTXt": key + b"\0\0\0\0\0" + text,
                "packed": key + b"\0\1\0\0\0" + zlib.compress(text)}[kind]
        name = (kind if kind != "packed" else "iTXt").encode()
        crc = struct.pack(">I", zlib.crc32(name + body))
        chunks += struct.pack(">I", len(body)) + name + body + crc
    at = len(data) - 12 if behind else 33
    return data[:at] + chunks + data[at:]


def with_comment(comment, name="JPEG", tags=()):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    for number, text in dict(tags).items():
        exif[number] = text
    buffer = io.BytesIO()
    PICTURE.save(buffer, name, exif=exif.tobytes())
    return buffer.getvalue()


@pytest.fixture
def read(engine):
    return lambda data: restore(data, models_here(engine), engine.pictures)


A1111_FILES = {
    **{f"{kind}{' behind' * behind}": png({"parameters": PARAMETERS}, kind, behind)
       for kind in ("tEXt", "zTXt", "iTXt", "packed") for behind in (False, True)},
    **{f"{name} {encoding}": with_comment(b"UNICODE\0" + PARAMETERS.encode(encoding), name)
       for name in ("JPEG", "WEBP", "AVIF")
       for encoding in ("utf-16-be", "utf-16-le", "utf-16", "utf-8", "utf-8-sig")},
    "ASCII": with_comment(b"ASCII\0\0\0" + PARAMETERS.encode()),
    "no mark": with_comment(PARAMETERS.encode()),
}


@pytest.mark.parametrize("name", A1111_FILES)
def test_a1111(read, name):
    restored = read(A1111_FILES[name])
    assert restored.program == "A1111"
    assert restored.values == KARRAS | {
        "prompt": "a red car, 夜\nat night", "negative_prompt": "people,\nblurry",
        "num_inference_steps": 12, "guidance_scale": 4.5, "seed": 99, "width": 512, "height": 768}
    notes = "\n".join(restored.notes)
    for part in ("v1-5, pruned: emaonly (hash 6ce0161689) is not on this machine", "LoRA night",
                 "names no RNG", "Clip skip: received 2", "ENSD", r"""'a, b: "c"\nd'"""):
        assert part in notes, part
    assert len(restored.notes) == 6


def test_a1111_with_the_noise_of_the_cpu_and_a_schedule_of_its_own(read):
    text = ("a\nSteps: 5, Sampler: DPM++ 2M, Schedule type: {}, CFG scale: 7, Seed: 1, RNG: CPU, "
            "Model: postcards, Denoising strength: 0.4, Version: v1.10")
    automatic = read(png({"parameters": text.format("Automatic")}))
    assert automatic.values["scheduler"] == "dpmpp_2m_karras"
    assert automatic.values["strength"] == 0.4
    assert len(automatic.notes) == 1 and "the picture that it began from" in automatic.notes[0]
    plain = read(png({"parameters": text.format("Uniform")}))
    assert plain.values["scheduler"] == "dpmpp_2m" and "scheduler_options" not in plain.values
    hires = read(png({"parameters": text.format("Beta") + ", Hires upscale: 2, Hires steps: 5"}))
    assert hires.values["scheduler_options"] == {"use_beta_sigmas": True}
    assert "strength" not in hires.values and "Hires. fix" in "\n".join(hires.notes)


def test_a_prompt_that_looks_like_parameters_stays_a_prompt(read):
    restored = read(png({"parameters": "Steps: 1, b: 2\nSteps: 5, Seed: 1, CFG scale: 2"}))
    assert restored.values["prompt"] == "Steps: 1, b: 2"
    with pytest.raises(RequestError, match="says nothing of how it was made"):
        read(png({"parameters": "a cat\nSteps: 1, Seed: 2"}))


def test_comfyui(read):
    wanted = KARRAS | SAME | {"seed": 2**53 + 1, "num_inference_steps": 9, "guidance_scale": 3.5}
    graph, workflow = json.dumps(GRAPH | {"x": {"is_changed": [float("nan")]}}), WORKFLOW
    tags = {0x0110: f"prompt:{graph}", 0x010F: f"workflow:{json.dumps(workflow)}"}
    for data in (png({"prompt": graph, "workflow": json.dumps(workflow)}, "tEXt"),
                 png({"prompt": graph}), png({"workflow": json.dumps(workflow)}),
                 with_comment(b"", "WEBP", tags)):
        restored = read(data)
        assert restored.program == "ComfyUI" and restored.values == wanted
        assert restored.request.model_id == "postcards"
        assert any("by its name only" in note for note in restored.notes)
    assert any("ink.safetensors" in note for note in read(png({"prompt": graph})).notes)


def test_a_graph_that_runs_in_a_circle_ends(read):
    circle = json.loads(json.dumps(GRAPH))
    circle["1"]["inputs"]["model"] = ["6", 0]
    circle["9"]["inputs"]["value"] = ["9", 0]
    circle["5"]["inputs"]["width"] = ["5", 0]
    assert read(png({"prompt": json.dumps(circle)})).values["seed"] == 2**53 + 1
    many = {str(n): {"class_type": "SaveImage", "inputs": {"a": [str(n + 1), 0], "b": ["6", 0]}}
            for n in range(10, 4_900)}
    start = time.monotonic()
    read(png({"prompt": json.dumps(GRAPH | many)}))
    print(f"a graph of {len(many)} nodes: {time.monotonic() - start:.2f} s")


@pytest.mark.parametrize("program, texts", [
    ("InvokeAI", {"invokeai_metadata": json.dumps(INVOKE)}),
    ("SwarmUI", {"parameters": json.dumps(SWARM)}),
    ("NovelAI", {"Software": "NovelAI", "Comment": json.dumps(NOVEL),
                 "Source": "Stable Diffusion XL 7BCCAA2C"}),
    ("diffusers", CALL), ("diffusers", {"anything": json.dumps(CALL)}),
])
def test_other_programs(read, program, texts):
    restored = read(png(texts))
    plain = {"scheduler": "dpmpp_2m"} if program == "diffusers" else KARRAS
    rescale = {"guidance_rescale": 0.5} if program == "InvokeAI" else {}
    assert (restored.program, restored.values) == (program, plain | SAME | rescale)
    told = {"InvokeAI": "clip_skip", "SwarmUI": "sigmashift", "diffusers": "lens",
            "NovelAI": "7BCCAA2C) is not on this machine"}
    assert any(told[program] in note for note in restored.notes)


def test_comments_of_swarmui_and_novelai_in_other_formats(read):
    comment = b"UNICODE\0" + json.dumps(SWARM).encode("utf-16-be")
    assert read(with_comment(comment)).program == "SwarmUI"
    novel = json.dumps({"Comment": json.dumps(NOVEL), "Source": "x"}).encode()
    assert read(with_comment(novel, "WEBP")).values == KARRAS | SAME


def with_hidden(mark: str, data: bytes, mode: str = "RGBA", cut: int | None = None) -> bytes:
    """A PNG whose lowest bits hold `data` behind `mark`, column by column."""
    width, height = 96, 64
    bits = np.unpackbits(np.frombuffer(
        mark.encode() + struct.pack(">I", 8 * len(data)) + data[:cut], np.uint8))
    pixels = np.random.default_rng(0).integers(0, 256, (width, height, len(mode)), np.uint8)
    place = pixels[..., 3:] if mark.startswith("stealth_png") else pixels[..., :3]
    values = place.reshape(-1)
    values[:len(bits)] = values[:len(bits)] & 254 | bits
    place[...] = values.reshape(place.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.swapaxes(0, 1).copy()).save(buffer, "PNG")
    return buffer.getvalue()


def test_settings_hidden_in_the_lowest_bits(read):
    novel = json.dumps({"Comment": json.dumps(NOVEL), "Source": "x"}).encode()
    plain = b"a cat\nSteps: 4, Seed: 5, Sampler: Euler, CFG scale: 3"
    restored = read(with_hidden("stealth_pngcomp", gzip.compress(novel)))
    assert (restored.program, restored.values) == ("NovelAI", KARRAS | SAME)
    for mark, data, mode in (("stealth_pnginfo", plain, "RGBA"), ("stealth_rgbinfo", plain, "RGB"),
                             ("stealth_rgbcomp", gzip.compress(plain), "RGB")):
        assert read(with_hidden(mark, data, mode)).values["num_inference_steps"] == 4, mark


@pytest.mark.parametrize("data, cut", [
    (b"no gzip", None), (gzip.compress(b"{" * 100_000), None), (gzip.compress(b"[1]"), None),
    (gzip.compress(b"{}")[:9], None), (b"x" * 2**20, 5), (gzip.compress(b'{"Comment": 5}'), None),
], ids=("no gzip", "deep", "a list", "cut", "too short", "no settings"))
def test_damaged_hidden_settings_are_none(read, data, cut):
    with pytest.raises(RequestError, match="says nothing of how it was made"):
        read(with_hidden("stealth_pngcomp", data, cut=cut))


def test_a_model_is_found_by_its_hash(engine, tmp_path, monkeypatch):
    from pipelines.provenance import model_files
    from pipelines.provenance.reading import ModelName

    here = models_here(engine)
    info, _ = here.named(ModelName("postcards.safetensors"))
    assert info.model_id == "postcards"
    files = model_files.model_files(info)
    renamed = {f"other/{name}": entry for name, entry in files.items()}
    assert here.same_files(renamed).model_id == "postcards"
    changed = {name: entry | {"sha256": "0" * 64} for name, entry in files.items()}
    assert here.same_files(changed) is None
    assert here.named(ModelName("nothing", "6ce0161689")) == (None, "")


def test_the_names_of_samplers_are_schedulers_with_options_that_they_take():
    for program in (A1111, COMFYUI, INVOKEAI, NOVELAI):
        for name in program:
            for schedule in ("", "karras"):
                values, notes = scheduler_values(program, name, schedule)
                assert values["scheduler"] in BY_KEY and not notes
                if values["scheduler"] not in ("ddim", "ddpm", "pndm", "lcm", "tcd", "euler_a",
                                               "kdpm2_a"):
                    checked_options(values["scheduler"], values.get("scheduler_options", {}))
    assert scheduler_values(A1111, "DPM adaptive", "Karras")[1]


def hostile_files():
    source = random.Random(3)
    for text in [*ENDLESS, *TEXTS[::6]]:
        try:
            text.encode()
        except UnicodeEncodeError:
            continue
        for key in ("parameters", "prompt", "workflow", "invokeai_metadata", "Comment",
                    "sd-metadata", "contact_sheet"):
            yield png({key: text})
        yield png({"parameters": f"{text}\nSteps: {text}, Sampler: {text}, Seed: {text}, a: 1"})
        yield png({"prompt": json.dumps({**GRAPH, "6": {**GRAPH["6"], "inputs": {
            **GRAPH["6"]["inputs"], "seed": text, "model": text, "steps": [text, 0]}}})})
        for data in (INVOKE, NOVEL, CALL):
            for key in ("seed", "steps", "prompt", "model", "width"):
                name = {"prompt": "positive_prompt"}.get(key, key) if data is INVOKE else key
                texts = {"invokeai_metadata" if data is INVOKE else "Comment":
                         json.dumps(data | {name: text})}
                yield png(texts)
    for value in (None, 1e999, [[]], {}, -(10**30), [None] * 3):
        for whole in (GRAPH, WORKFLOW, INVOKE, SWARM, NOVEL):
            for key in whole:
                for name in ("prompt", "workflow", "invokeai_metadata", "parameters", "Comment"):
                    yield png({name: json.dumps(whole | {key: value})})
    good = [*A1111_FILES.values(), png({"prompt": json.dumps(GRAPH)})]
    for number in range(120):
        data = bytearray(good[number % len(good)])
        for _ in range(1 + number % 9):
            data[source.randrange(8, len(data))] = source.randrange(256)
        yield bytes(data)
        yield bytes(data[: source.randrange(len(data))])
        yield source.randbytes(number)


def test_hostile_files_are_one_clear_error_or_are_read(read):
    refused = count = 0
    for data in hostile_files():
        count += 1
        try:
            restored = read(data)
            assert len(restored.notes) < 80 and all(len(n) < 2_000 for n in restored.notes)
        except RequestError as error:
            refused += 1
            lines = str(error).splitlines()
            assert len(lines) == 1 or not lines[-1].strip(" ^"), lines
    print(f"{refused} of {count} hostile files were refused, the others read")
    assert count > 1_000 and 0.2 < refused / count < 0.95


def test_texts_are_bounded(read):
    large = "a red car " * 200_000  # 2 MB, of which Pillow reads none
    text = f"{large}\nSteps: 5, Seed: 1, CFG scale: 2"
    restored = read(png({"parameters": text}))
    assert restored.values["seed"] == 1 and "prompt" not in restored.values
    assert any("prompt: received 1999999 characters, accepted up to 10000" in note
               for note in restored.notes)
    bomb = png({"parameters": "a" * 2**25}, "zTXt")
    with pytest.raises(RequestError, match="more than 16777216 bytes"):
        read(bomb)
    with pytest.raises(RequestError, match="accepted up to 16777216"):
        read(png({"parameters": "a" * (2**24 + 1)}))
    many = png({f"key{n}": "a" * 2**23 for n in range(9)}, "packed")
    with pytest.raises(RequestError, match="its texts have more"):
        read(many)


def test_a_comment_in_either_order_whatever_it_holds():
    for text in (text for text in TEXTS if text and text.isascii() and "\0" not in text):
        for encoding in ("utf-16-be", "utf-16-le"):
            assert comment_text(b"UNICODE\0" + text.encode(encoding)) == text
    assert read_blocks(io.BytesIO(b"nothing")) is None
