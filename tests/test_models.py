"""What a model's files say (tasks, defaults, weights), single files, adapters, refusals."""

import inspect
import json
import shutil

import numpy as np
import pytest
import single_file
import tiny
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from pipelines import Engine, RequestError, RunRequest
from pipelines.errors import LoadError
from pipelines.models.files import BUNDLED, weight_files
from pipelines.models.info import describe
from pipelines.models.placement import advice, choose_policy, place
from pipelines.models.registry import Registry
from pipelines.models.signatures import call_parameters, connected_class, task_classes

TINY = {"prompt": "a cat", "num_inference_steps": 2, "height": 64, "width": 64}


@pytest.fixture(scope="module")
def one_engine(tmp_path_factory):
    return Engine(tmp_path_factory.mktemp("home"), device="cpu")


def copied(tiny_folder, tmp_path, name="sd"):
    return shutil.copytree(tiny_folder(name), tmp_path / name)


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pixels(engine, run):
    assert run.status == "ok", run.error
    return np.asarray(engine.pictures.get(run.image_sha256)).astype(int)


def test_tasks_and_calls_are_those_of_diffusers():
    from diffusers.pipelines import auto_pipeline

    for table in (auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
                  auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
                  auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING):  # fmt: skip
        for cls in table.values():
            real = inspect.signature(cls.__call__).parameters
            ours = call_parameters(cls.__name__)
            assert list(ours) == [name for name in real if name not in ("self", "kwargs")], cls
            for name, value in ours.items():
                if isinstance(value, int | float | str):
                    assert value == real[name].default, (cls, name)
    assert task_classes("FluxPipeline")["inpainting"] == "FluxInpaintPipeline"
    assert task_classes("DDPMPipeline") == {"unconditional": "DDPMPipeline"}
    assert connected_class("KandinskyV22Pipeline") == "KandinskyV22CombinedPipeline"
    assert connected_class("StableDiffusionPipeline") is None


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "distilled"),
    [("sd", 50, 7.5, False), ("sdxl", 50, 5.0, False), ("sdxl_turbo", 4, 0.0, True),
     ("lcm", 4, 8.5, True), ("sd3", 28, 7.0, False), ("flux", 28, 3.5, False),
     ("sana", 20, 4.5, False), ("kandinsky_22", 100, 4.0, False)],
)  # fmt: skip
def test_a_model_starts_at_its_own_defaults(tiny_folder, name, steps, guidance, distilled):
    info = describe(str(tiny_folder(name)))
    assert (info.num_inference_steps, info.guidance_scale, info.distilled) == (
        steps, guidance, distilled)  # fmt: skip


def test_flux_without_guidance_input_is_distilled_and_has_no_guidance(tiny_folder, tmp_path):
    schnell = copied(tiny_folder, tmp_path, "flux")
    edited(schnell / "transformer" / "config.json", guidance_embeds=False)
    info = describe(str(schnell))
    assert (info.distilled, info.num_inference_steps) == (True, 4)
    assert not info.takes("text-to-image", "guidance_scale")
    assert describe(str(tiny_folder("flux"))).takes("text-to-image", "guidance_scale")


def test_only_parameters_of_the_call_are_taken(tiny_folder):
    ddpm, sd = describe(str(tiny_folder("ddpm"))), describe(str(tiny_folder("sd")))
    assert not any(ddpm.takes("unconditional", name)
                   for name in ("prompt", "negative_prompt", "guidance_scale", "height"))
    assert ddpm.takes("unconditional", "num_inference_steps")
    assert sd.takes("text-to-image", "negative_prompt")
    assert not sd.takes("text-to-image", "strength")
    assert sd.takes("image-to-image", "strength")
    assert ddpm.task_for() == "unconditional"
    assert sd.task_for(image=True, mask_image=True) == "inpainting"


def test_the_bundled_model_states_its_own_defaults():
    info = describe("postcards")
    assert (info.num_inference_steps, info.guidance_scale, info.distilled) == (20, 5.0, False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_class_name": ["my_pipeline", "MyPipeline"]}, "code of its own"),
        ({"_class_name": "MyPipeline"}, "diffusers has no pipeline MyPipeline"),
        ({"unet": ["my_unet", "MyUNet"]}, "code is never run"),
        ({"unet": ["os", "system"]}, "code is never run"),
    ],
)
def test_foreign_code_is_refused_with_the_reason(tiny_folder, tmp_path, change, reason):
    folder = copied(tiny_folder, tmp_path)
    edited(folder / "model_index.json", **change)
    with pytest.raises(LoadError, match=reason):
        describe(str(folder))


def test_weights_that_are_only_pickles_are_refused_with_the_reason(tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(LoadError, match=r"pickle.*can run code.*\.safetensors"):
        describe(str(folder))
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04")
    with pytest.raises(LoadError, match="pickle"):
        describe(str(tmp_path / "model.ckpt"))


def test_a_variant_is_found_and_counted_once(tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    plain = describe(str(folder)).size_bytes
    pipe = tiny.build("sd").to(torch.float16)
    pipe.save_pretrained(folder, variant="fp16")
    assert describe(str(folder)).size_bytes == plain
    half = describe(str(folder), variant="fp16")
    assert half.variant == "fp16"
    assert 0.4 * plain < half.size_bytes < 0.6 * plain
    for file in folder.rglob("*.safetensors"):
        if ".fp16." not in file.name:
            file.unlink()
    assert describe(str(folder)).variant == "fp16"  # the only one there is
    with pytest.raises(LoadError, match="'bf16', .* has fp16"):
        describe(str(folder), variant="bf16")
    with Registry("cpu").borrow(str(folder)) as (model, _):
        assert model.pipe.unet.dtype == torch.float32


def test_a_missing_shard_and_a_cut_off_file_are_named(tiny_folder, tmp_path):
    pipe = tiny.build("sd")
    pipe.unet.save_pretrained(tmp_path / "sharded", max_shard_size="1MB")
    folder = copied(tiny_folder, tmp_path)
    shutil.rmtree(folder / "unet")
    (tmp_path / "sharded").rename(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    files, _ = weight_files(folder, index)
    shards = [file for file in files if file.parent.name == "unet"]
    assert len(shards) > 1
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[:-10])
    with pytest.raises(LoadError, match=r"bytes; download it again"), (
        Registry("cpu").borrow(str(folder))):  # fmt: skip
        pass
    shards[0].unlink()
    with pytest.raises(LoadError, match=f"unet/{shards[0].name} is missing"):
        describe(str(folder))


def test_a_single_file_makes_the_picture_of_its_folder(tiny_folder, tmp_path, one_engine):
    file = tmp_path / "mine.safetensors"
    single_file.save_single_file(tiny.build("sd"), file)
    shutil.copytree(tiny_folder("sd"), tmp_path / "mine",
                    ignore=shutil.ignore_patterns("*.safetensors"))  # the configs
    info = describe(str(file))
    assert (info.source, info.size_bytes) == ("single file", file.stat().st_size)
    assert set(info.tasks) == {"text-to-image", "image-to-image", "inpainting"}
    request = RunRequest(model_id=str(file), **TINY)
    folder_run = one_engine.run(request.changed(model_id=str(tiny_folder("sd"))))
    assert np.array_equal(pixels(one_engine, one_engine.run(request)),
                          pixels(one_engine, folder_run))


def test_a_single_file_without_configs_names_the_model_they_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "mine.safetensors"
    single_file.save_single_file(tiny.build("sd"), file)
    with pytest.raises(LoadError, match="needs the config files of stable-diffusion-v1-5/"):
        describe(str(file))
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(LoadError, match="no whole safetensors file"):
        describe(str(file))
    (tmp_path / "mine.zip").write_bytes(b"PK")
    with pytest.raises(LoadError, match="neither a diffusers folder nor"):
        describe(str(tmp_path / "mine.zip"))


def save_lora(folder, seed, target=("to_q", "to_v")):
    """A random adapter for the bundled model's UNet, strong enough to be seen."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(BUNDLED["postcards"], use_safetensors=True)
    pipe.unet.add_adapter(LoraConfig(r=4, target_modules=list(target)))
    generator = torch.Generator().manual_seed(seed)
    state = get_peft_model_state_dict(pipe.unet)
    state = {name: 0.3 * torch.randn(value.shape, generator=generator)
             for name, value in state.items()}
    StableDiffusionPipeline.save_lora_weights(folder, state, safe_serialization=True)
    return str(folder)


def test_loras_are_weighted_combined_and_leave_the_base_as_it_was(tmp_path, engine):
    one, two = save_lora(tmp_path / "one", 1), save_lora(tmp_path / "two", 2)
    base = RunRequest(prompt="a red car on a road", num_inference_steps=3)

    def picture(*loras):
        return pixels(engine, engine.run(base.changed(loras=loras)))

    bare = picture()
    worn = picture(one)
    assert np.abs(worn - bare).mean() > 1
    assert np.array_equal(picture(f"{one}=0"), bare)
    assert not np.array_equal(picture(f"{one}=0.5"), worn)
    assert not np.array_equal(picture(one, two), worn)
    assert np.array_equal(picture(one), worn)
    assert np.array_equal(picture(), bare)
    with engine.registry.borrow("postcards") as (model, _):
        assert not hasattr(model.pipe.unet, "peft_config") or not model.pipe.unet.peft_config


def test_a_lora_that_does_not_fit_is_an_error_and_the_base_goes_on(tmp_path, tiny_folder, engine):
    other = tiny.build("sd")
    other.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    type(other).save_lora_weights(tmp_path / "other", get_peft_model_state_dict(other.unet))
    base = RunRequest(prompt="a red car", num_inference_steps=2)
    before = engine.run(base)
    assert engine.run(base.changed(loras=[str(tmp_path / "other")])).status == "failed"
    again = engine.run(base)
    assert again.image_sha256 == before.image_sha256
    (tmp_path / "evil.ckpt").write_bytes(b"\x80\x04")
    for path, reason in ((tmp_path / "nothing", "accepted a .safetensors file"),
                         (tmp_path / "evil.ckpt", "is a pickle")):  # fmt: skip
        assert reason in engine.run(base.changed(loras=[str(path)])).error
    run = engine.run(RunRequest(model_id=str(tiny_folder("ddpm")), task="unconditional",
                                num_inference_steps=1, loras=["x"]))
    assert "takes no LoRA" in run.error


def test_lora_texts():
    request = RunRequest(loras="a.safetensors=0.5 + nobody/style")
    assert [str(lora) for lora in request.loras] == ["a.safetensors=0.5", "nobody/style"]
    assert RunRequest(loras="none").loras == ()
    assert RunRequest(**json.loads(request.model_dump_json())) == request
    with pytest.raises(RequestError, match="loras"):
        RunRequest(loras="a=much")


def test_a_dtype_is_loaded_beside_the_usual_one(engine):
    request = RunRequest(prompt="a red car", num_inference_steps=2)
    usual, half = engine.run(request), engine.run(request.changed(torch_dtype="bfloat16"))
    assert (usual.dtype, half.dtype) == ("float32", "bfloat16")
    assert usual.noise_sha256 == half.noise_sha256
    difference = np.abs(pixels(engine, usual) - pixels(engine, half)).mean()
    assert 0 < difference < 20


def test_memory_policies_need_another_memory_than_the_cpus(engine):
    run = engine.run(RunRequest(prompt="a", memory_policy="model-offload", num_inference_steps=1))
    assert "accepted on the CPU: auto, device" in run.error


@pytest.mark.parametrize("policy", ["device", "model-offload", "group-offload"])
def test_every_policy_makes_the_same_picture(tiny_folder, policy):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(tiny_folder("sd"), use_safetensors=True)
    arguments = {**TINY, "output_type": "np"}
    plain = pipe(**arguments, generator=torch.Generator().manual_seed(0)).images
    place(pipe, "cpu", policy)
    placed = pipe(**arguments, generator=torch.Generator().manual_seed(0)).images
    assert np.abs(plain - placed).max() < 1e-5


def test_auto_takes_the_fastest_policy_that_fits(tiny_folder):
    info = describe(str(tiny_folder("sd")))
    for share, policy in ((1.1, "device"), (0.8, "model-offload"), (0.5, "group-offload")):
        limit = int(share * info.size_bytes)
        assert choose_policy(info, "float32", "auto", "cuda", limit) == policy


def test_out_of_memory_is_named_answered_and_the_next_run_works(engine):
    def too_much(*_):
        raise torch.OutOfMemoryError("out of memory")

    request = RunRequest(prompt="a red car", num_inference_steps=2, height=128, width=128)
    with engine.registry.borrow("postcards") as (model, _):
        hook = model.pipe.unet.register_forward_pre_hook(too_much)
    run = engine.run(request)
    hook.remove()
    assert run.status == "failed"
    assert "128 x 128 px does not fit" in run.error
    assert "try 88 x 88 px" in run.error
    assert engine.run(request).status == "ok"
    assert advice("device", "cuda") == "; try the memory_policy 'model-offload'"
    assert advice("sequential-offload", "cuda") == advice("device", "cpu") == ""


def test_quantization_says_which_library_is_missing(engine, monkeypatch):
    monkeypatch.setattr("pipelines.models.placement.find_spec", lambda name: None)
    run = engine.run(RunRequest(prompt="a", quantization="int8", num_inference_steps=1))
    assert "int8 needs the library torchao" in run.error


def test_int8_weights_give_nearly_the_same_picture(engine):
    pytest.importorskip("torchao")  # an option, no requirement
    request = RunRequest(prompt="a red car on a road", num_inference_steps=4)
    plain, small = engine.run(request), engine.run(request.changed(quantization="int8"))
    difference = np.abs(pixels(engine, plain) - pixels(engine, small)).mean()
    assert 0 < difference < 20


def test_a_pipeline_that_scales_nothing_takes_the_schedulers_that_need_no_scaling(one_engine):
    info = describe("postcards-ddpm")
    keys = [scheduler.key for scheduler in info.schedulers]
    assert "euler" not in keys
    assert {"ddpm", "ddim", "dpmpp_2m", "unipc", "deis", "pndm", "lcm"} <= set(keys)
    base = RunRequest(model_id="postcards-ddpm", task="unconditional", num_inference_steps=4)
    pictures = {}
    for key in keys:
        run = one_engine.run(base.changed(scheduler=key))
        pictures[key] = pixels(one_engine, run)
        assert pictures[key].std() > 15, key
    assert "accepted for postcards-ddpm (DDPMPipeline): ddim" in one_engine.run(
        base.changed(scheduler="heun")).error
