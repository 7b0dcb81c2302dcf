"""Comparisons of pipelines that a program has in memory: used as they are, logged honestly."""

import hashlib
import html
import json
import signal
import subprocess
import sys

import pytest
import tiny
import torch
from PIL import ImageChops

import pipelines as cs
from pipelines.errors import LoadError, RequestError, UnknownModelError
from pipelines.models import in_memory
from pipelines.sheet.recipe import read_recipe

FEW = {"num_inference_steps": 2, "seed": 3}
PROMPT = "a red car"


@pytest.fixture(scope="module")
def pipes():
    """name -> a pipeline of that family, as one lies in memory."""
    built = {}
    return lambda name: built.get(name) or built.setdefault(name, tiny.build(name))


@pytest.fixture
def compare(tmp_path):
    """`compare` with a log of its own."""
    return lambda *models, **fields: cs.compare(*models, home=tmp_path / "home", **fields)


# What transformers and diffusers put there themselves at a first call.
LIBRARY = {"_output_capturing_hooks_installed", "_diffusers_hook"}


def hooks(registered):
    return [hook for hook in registered.values() if not hook.__module__.startswith("transformers")]


def state(pipe):
    """Everything of a pipeline that a comparison might leave changed."""
    parts = pipe.components
    modules = {f"{name}.{inner}": module for name, part in parts.items()
               if isinstance(part, torch.nn.Module) for inner, module in part.named_modules()}
    return {
        "attributes": {name: id(value) for name, value in vars(pipe).items()},
        "config": dict(pipe.config),
        "schedulers": {name: repr(vars(part)) for name, part in parts.items()
                       if hasattr(part, "set_timesteps")},
        "modules": {name: (sorted(vars(module).keys() - LIBRARY), module.training,
                           *map(hooks, (module._forward_hooks, module._forward_pre_hooks)))
                    for name, module in modules.items()},
        "weights": {f"{name}.{key}": (tensor.data_ptr(), tensor.dtype, tensor.device,
                                      hashlib.sha256(in_memory._bytes(tensor)).digest())
                    for name, module in modules.items()
                    for key, tensor in module.named_parameters(recurse=False)},
    }


def statuses(result):
    return [run and (run.status, run.error) for run in result.runs]


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "kandinsky_22", "deepfloyd_if",
                                    "ddpm"])
def test_a_pipeline_is_used_as_it_is_and_stays_as_it_was(pipes, compare, family):
    pipe = pipes(family)
    prompt = None if family == "ddpm" else PROMPT
    before, random, threads = state(pipe), torch.get_rng_state(), torch.get_num_threads()
    other = {"sd3": "flow_heun", "deepfloyd_if": "dpmpp_2m"}.get(family, "ddim")
    axis = {"seed": [0, 1]} if family == "kandinsky_22" else {
        "scheduler": ["default", other]}
    axis |= {"height": 64, "width": 64} if family == "kandinsky_22" else {}
    result = compare(pipe, prompt, num_inference_steps=2, **axis)
    assert statuses(result) == [("ok", None)] * 2
    assert len({run.image_sha256 for run in result.runs}) == 2
    after = state(pipe)
    assert {name for name in before if before[name] != after[name]} == set()
    assert torch.equal(torch.get_rng_state(), random) and torch.get_num_threads() == threads
    # The next time the same cells are in the log.
    again = compare(pipe, prompt, num_inference_steps=2, **axis)
    assert [run.reused_from for run in again.runs] == [run.id for run in result.runs]


def test_the_pictures_are_those_of_the_model_on_disk(pipes, compare, tiny_folder):
    pipe, fields = pipes("sd"), {"scheduler": ["ddim", "euler"], **FEW}
    mine, on_disk = (compare(model, PROMPT, **fields) for model in (pipe, str(tiny_folder("sd"))))
    for picture, other in zip(mine.pictures, on_disk.pictures, strict=True):
        assert max(high for _, high in ImageChops.difference(picture, other).getextrema()) <= 2
    assert [run.noise_sha256 for run in mine.runs] == [run.noise_sha256 for run in on_disk.runs]
    assert mine.runs[0].model_id.startswith("memory:StableDiffusionPipeline-")


def test_changed_weights_or_settings_are_another_model(pipes, compare):
    pipe = tiny.build("sd")
    first = compare(pipe, PROMPT, **FEW).runs[0]
    assert compare(pipe, PROMPT, **FEW).runs[0].reused_from == first.id
    with torch.no_grad():
        pipe.unet.conv_out.bias += 0.1
    changed = compare(pipe, PROMPT, **FEW).runs[0]
    assert changed.reused_from is None and changed.model_id != first.model_id
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert compare(pipe, PROMPT, **FEW).runs[0].reused_from is None


def with_hook(pipe):
    pipe.unet.register_forward_hook(lambda *_: None)


def with_adapter(pipe):
    from peft import LoraConfig

    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))


@pytest.mark.parametrize("prepare, words", [
    (with_hook, "hooks"), (with_adapter, "adapters"), (None, "GiB of weights")])
def test_what_a_hash_would_not_say_is_never_taken_from_the_log(
    compare, monkeypatch, prepare, words
):
    pipe = tiny.build("sd")
    prepare(pipe) if prepare else monkeypatch.setattr(in_memory, "HASHED_BYTES", 1000)
    runs = [compare(pipe, PROMPT, **FEW).runs[0] for _ in range(2)]
    assert runs[0].image_sha256 == runs[1].image_sha256
    assert [run.reused_from for run in runs] == [None, None]
    assert runs[0].identity != runs[1].identity
    assert any(words in note and "never taken from the log" in note for note in runs[0].notes)


def test_its_precision_is_kept_and_logged(compare):
    pipe = tiny.build("sd").to(torch.bfloat16)
    picture = compare(pipe, PROMPT, **FEW).pictures[0]
    for _ in range(2):
        result = compare(pipe, PROMPT, image=picture, strength=1.0, **FEW)
        assert statuses(result) == [("ok", None)]
        assert (result.runs[0].dtype, result.runs[0].task) == ("bfloat16", "image-to-image")
    assert result.runs[0].reused_from and pipe.unet.dtype == pipe.vae.dtype == torch.bfloat16
    pipe.text_encoder.float()
    [(status, error)] = statuses(compare(pipe, PROMPT, image=picture, strength=1.0, **FEW))
    assert status == "failed" and "torch.bfloat16, torch.float32" in error
    assert pipe.unet.dtype == torch.bfloat16


def test_the_result_is_a_table_a_sheet_a_page_and_a_recipe(session_engine, compare, tmp_path):
    result = compare("postcards", prompt=PROMPT, scheduler=["ddim", "euler"], guidance_scale=[1, 5],
                     seed=range(2), skip=["scheduler=ddim,seed=1"], **{"num_inference_steps": 2})
    table = result.to_pandas()
    assert table[["scheduler", "guidance_scale", "seed", "status"]].values.tolist() == [
        [scheduler, guidance, seed, "ok"] for seed in (0, 1) for scheduler in ("ddim", "euler")
        for guidance in (1.0, 5.0) if (scheduler, seed) != ("ddim", 1)]
    assert table["nfe"].tolist() == [2] * 6
    assert repr(result) == f"<comparison {result.comparison_id}: 6 of 6 cells>"
    assert result.sheet().width > 128 and result.sheet(1).size == result.sheet().size
    with pytest.raises(RequestError, match="received 2, accepted 0 to 1"):
        result.sheet(2)
    assert [picture and picture.size for picture in result.pictures].count((64, 64)) == 6
    # As a notebook shows it: the exported page, which names nothing outside of it.
    page = result.to_html(tmp_path / "sheet.html")
    assert (tmp_path / "sheet.html").read_text("utf-8") == page
    shown = result._repr_html_()
    assert html.unescape(shown.split('srcdoc="')[1].split('"')[0]) == page
    # Its recipe makes the same comparison.
    (tmp_path / "recipe.json").write_text(json.dumps(result.recipe()))
    assert read_recipe(tmp_path / "recipe.json") == result.comparison
    assert result.recipe()["versions"]["diffusers"] and result.recipe()["models"]


def test_measured_distances_and_timings_stand_in_the_table(pipes, compare):
    result = compare(pipes("sd"), PROMPT, num_inference_steps=[1, 2])
    assert result.to_pandas()["rms_latents"].isna().all()
    assert result.measure("num_inference_steps=2", repeats=2) is result
    table = result.to_pandas()
    assert table["rms_latents"][0] > 0 and table["rms_latents"][1] == 0
    assert table["measured_repeats"].tolist() == [2, 2] and (table["measured_median_ms"] > 0).all()
    with pytest.raises(RequestError, match="seed"):
        result.measure("seed=7")


def test_pipelines_beside_each_other(pipes, compare):
    result = compare([pipes("sd"), pipes("sdxl"), "postcards"], PROMPT, **FEW)
    assert statuses(result) == [("ok", None)] * 3
    assert [run.model_id.partition("-")[0] for run in result.runs] == [
        "memory:StableDiffusionPipeline", "memory:StableDiffusionXLPipeline", "postcards"]


def test_an_interrupt_keeps_what_was_made(compare):
    pipe, calls = tiny.build("sd"), []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)

    hook = pipe.unet.register_forward_hook(interrupt)
    handler = signal.getsignal(signal.SIGINT)
    result = compare(pipe, PROMPT, seed=range(4), num_inference_steps=2, shared=False)
    hook.remove()
    made = sum(run is not None and run.status == "ok" for run in result.runs)
    assert 0 < made < 4 and f"{made} of 4 cells" in repr(result)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not any("forward" in vars(module) for module in pipe.unet.modules())


@pytest.mark.parametrize("fields, words", [
    ({"loras": ["style.safetensors"]}, "loras: a pipeline in memory keeps the adapters"),
    ({"torch_dtype": "float16"}, "torch_dtype: received 'float16', accepted for a pipeline in "
                                 "memory: float32"),
    ({"revision": "main"}, "revision: received 'main'"),
])
def test_a_pipeline_in_memory_is_not_loaded_otherwise(pipes, compare, fields, words):
    with pytest.raises(RequestError, match=words):
        compare(pipes("sd"), PROMPT, **FEW, **fields)


def test_mistakes_are_told_before_the_first_cell(pipes, compare):
    with pytest.raises(RequestError, match="model: received int, accepted a diffusers pipeline"):
        compare(3, PROMPT)
    with pytest.raises(RequestError, match="stepz"):
        compare(pipes("sd"), PROMPT, stepz=3)
    with pytest.raises(RequestError, match="prompt: .* needs one"):
        compare(pipes("sd"))
    with pytest.raises(RequestError, match="axis seed"):
        compare(pipes("sd"), PROMPT, seed=[])

    class Mine(type(pipes("sd"))):
        pass

    with pytest.raises(LoadError, match="diffusers has no pipeline Mine"):
        compare(Mine(**pipes("sd").components, requires_safety_checker=False), PROMPT)


def test_another_program_is_told_that_the_pipeline_is_not_there(pipes, compare, tmp_path):
    name = compare(pipes("sd"), PROMPT, **FEW).runs[0].model_id
    with pytest.raises(UnknownModelError, match="was a pipeline in the memory of a program"):
        compare(name, PROMPT, **FEW)


def test_importing_it_is_light():
    heavy = {"torch", "diffusers", "pandas", "streamlit"}
    code = f"import sys, pipelines; print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
