"""Nothing that was made up runs: every tensor comes from the files, and what of them is not used is
said; the same for the layers of adapters."""

import json
import shutil

import diffusers
import pytest
import single_file
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file

from pipelines import RunRequest
from pipelines.errors import LoadError
from pipelines.models.files import BUNDLED
from pipelines.models.registry import Registry

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model",
           "text_encoder": "model", "safety_checker": "model"}  # fmt: skip


@pytest.fixture
def sd(tiny_folder, tmp_path):
    """A copy of a tiny Stable Diffusion with its safety checker."""
    return shutil.copytree(tiny_folder("sd15"), tmp_path / "sd")


def changed(file, change):
    """Rewrite a .safetensors file by a function of its tensors."""
    save_file({name: tensor.contiguous().clone()
               for name, tensor in change(load_file(file)).items()}, file, {"format": "pt"})


def without(count):
    return lambda tensors: dict(sorted(tensors.items())[count:])


def refused(model_id, reason):
    with pytest.raises(LoadError, match=reason) as error, Registry("cpu").borrow(str(model_id)):
        pass
    assert "meta" not in str(error.value)
    return str(error.value)


def notes_of(model_id, loras=()):
    with Registry("cpu").borrow(str(model_id), loras=loras) as (model, _):
        return model.notes


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_network_that_lacks_tensors_is_refused_with_their_number(sd, part):
    file = sd / part / f"{WEIGHTS[part]}.safetensors"
    total, names = len(load_file(file)), sorted(load_file(file))
    changed(file, without(4))
    reason = refused(sd, f"{part} lacks 4 of its {total} tensors .*and 1 more.*random")
    assert names[0].removeprefix("text_model.") in reason


@pytest.mark.parametrize("part", WEIGHTS)
def test_renamed_tensors_are_not_replaced_by_random_ones(sd, part):
    changed(sd / part / f"{WEIGHTS[part]}.safetensors",
            lambda tensors: {f"other.{name}": tensor for name, tensor in tensors.items()})
    refused(sd, rf"{part} lacks (\d+) of its \1 tensors .*hold \1 others \(other\.")


@pytest.mark.parametrize(("part", "reason"), [
    ("text_encoder", r"text_encoder has 1 tensors of another shape .*: \(9,\) instead of \("),
    ("vae", r"expected shape .* got torch.Size\(\[9\]\)"),
])  # fmt: skip
def test_tensors_of_another_shape_are_refused(sd, part, reason):
    def change(tensors):
        name = next(name for name, tensor in tensors.items() if tensor.ndim == 1)
        return tensors | {name: torch.zeros(9)}

    changed(sd / part / f"{WEIGHTS[part]}.safetensors", change)
    refused(sd, reason)


def test_tensors_that_no_network_wants_are_a_note_of_the_run(sd, engine):
    changed(sd / "text_encoder" / "model.safetensors",
            lambda tensors: tensors | {"head.weight": torch.zeros(2), "head.bias": torch.zeros(2)})
    run = engine.run(RunRequest(model_id=str(sd), prompt="a cat", num_inference_steps=1))
    assert run.status == "ok", run.error
    assert "text_encoder: 2 tensors of its files are not used (head.bias, head.weight)" in run.notes
    assert not notes_of(BUNDLED["postcards"])


def test_a_shard_and_a_second_controlnet_are_looked_at_too(tiny_folder, tmp_path):
    nets = [tiny.controlnet().controlnet for _ in range(2)]
    pipe = diffusers.StableDiffusionControlNetPipeline(
        **{**tiny.build("controlnet").components,
           "controlnet": diffusers.MultiControlNetModel(nets)}, requires_safety_checker=False)
    pipe.save_pretrained(tmp_path / "two")
    assert not notes_of(tmp_path / "two")
    changed(tmp_path / "two" / "controlnet_1" / "diffusion_pytorch_model.safetensors", without(3))
    refused(tmp_path / "two", "controlnet_1 lacks 3 of its")

    sharded = shutil.copytree(tiny_folder("sd"), tmp_path / "sharded")
    shutil.rmtree(sharded / "unet")
    tiny.build("sd").unet.save_pretrained(sharded / "unet", max_shard_size="1MB")
    assert not notes_of(sharded)
    index = sharded / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    shard = sorted((sharded / "unet").glob("*-of-*.safetensors"))[-1]
    lost = sorted(load_file(shard))[:2]
    changed(shard, without(2))
    refused(sharded, "unet lacks 2 of its")  # though the list of shards names them
    listing = json.loads(index.read_text())
    for name in lost:
        del listing["weight_map"][name]
    index.write_text(json.dumps(listing))
    refused(sharded, "unet lacks 2 of its")


def test_tied_weights_are_not_missing(tmp_path):
    """T5 and Qwen save one of two names; the other is the same tensor."""
    encoder = tiny.t5()
    encoder.save_pretrained(tmp_path / "t5")
    assert len(load_file(tmp_path / "t5" / "model.safetensors")) < len(encoder.state_dict())
    from pipelines.models.weights import checked_weights

    with checked_weights() as notes:
        transformers.T5EncoderModel.from_pretrained(tmp_path / "t5")
    assert not notes


@pytest.fixture
def checkpoint(tiny_folder, tmp_path):
    """A tiny Stable Diffusion as one file, its configs beside it."""
    single_file.save_single_file(tiny.build("sd"), tmp_path / "mine.safetensors")
    shutil.copytree(tiny_folder("sd"), tmp_path / "mine",
                    ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "mine.safetensors"


@pytest.mark.parametrize(("lost", "reason"), [
    ("model.diffusion_model.output_blocks.0", r"UNet2DConditionModel lacks \d+ of its \d+ tensors"),
    ("first_stage_model.decoder.mid", r"AutoencoderKL lacks \d+ of its \d+ tensors"),
    ("cond_stage_model.transformer.text_model.encoder.layers.1",
     r"CLIPTextModel lacks \d+ of its \d+ tensors"),
])  # fmt: skip
def test_a_single_file_that_lacks_tensors_says_how_many(checkpoint, lost, reason):
    changed(checkpoint, lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not name.startswith(lost)})
    refused(checkpoint, reason)


@pytest.mark.parametrize("kept", [0, 1])
def test_half_of_a_single_file_is_refused(checkpoint, kept):
    changed(checkpoint, lambda tensors: dict(sorted(tensors.items())[kept::2]))
    refused(checkpoint, r"lacks at least 184 tensors|CLIPTextModel lacks 18 of its 36 tensors")


# --- adapters

UNET_LAYERS = 9


def unet_layers(count):
    """The first attention layers of the bundled model's UNet, and their shapes."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(BUNDLED["postcards"] / "unet")
    layers = {name: module.weight.shape for name, module in unet.named_modules()
              if name.endswith((".to_q", ".to_k", ".to_v"))}
    return dict(list(layers.items())[:count])


def factors(shape, scale=1.0):
    out, into = shape
    return torch.randn(2, into) * scale, torch.randn(out, 2) * scale


def diffusers_lora(layers):
    tensors = {}
    for name, shape in layers.items():
        down, up = factors(shape)
        tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    return tensors


def kohya_lora(layers, sign="lora"):
    tensors = {}
    for name, shape in layers.items():
        down, up = factors(shape)
        layer = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{layer}.{sign}_down.weight": down, f"{layer}.{sign}_up.weight": up,
                    f"{layer}.alpha": torch.tensor(2.0)}
    return tensors


def other_names(layers):
    """All but the first layer by names of another model."""
    return {name if number == 0 else name.replace("blocks.", "blocks.7"): shape
            for number, (name, shape) in enumerate(layers.items())}


def saved(tensors, path):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("made", [diffusers_lora, kohya_lora])
def test_a_lora_says_which_share_of_its_layers_is_used(tmp_path, engine, made):
    layers = unet_layers(5)
    base = RunRequest(prompt="a red car", num_inference_steps=1)

    whole = engine.run(base.changed(loras=[str(saved(made(layers), tmp_path / "a.safetensors"))]))
    assert (whole.status, list(whole.notes)) == ("ok", []), whole.error
    part = saved(made(other_names(layers)), tmp_path / "b.safetensors")
    run = engine.run(base.changed(loras=[str(part)]))
    assert run.status == "ok", run.error
    assert any("lora: b.safetensors: 1 of 5 layers used; not used: unet." in note
               and "and 1 more" in note for note in run.notes)
    assert not engine.run(base).notes  # it left with the adapter

    foreign = made(dict(list(other_names(layers).items())[1:]))
    run = engine.run(base.changed(loras=[str(saved(foreign, tmp_path / "c.safetensors"))]))
    assert run.status == "failed"
    assert not run.error.rstrip().endswith(":")


def test_the_scales_of_a_dora_are_not_dropped_without_a_word(tmp_path):
    layers = unet_layers(3)
    tensors = kohya_lora(layers)
    for name, shape in layers.items():
        tensors[f"lora_unet_{name.replace('.', '_')}.dora_scale"] = torch.ones(shape[0], 1)
    path = saved(tensors, tmp_path / "dora.safetensors")
    assert any("3 DoRA scales are not used" in note for note in notes_of("postcards", _loras(path)))


def _loras(path):
    return RunRequest(loras=[str(path)]).loras


@pytest.mark.parametrize(("sign", "kind"), [("hada_w1_a", "LoHa"), ("lokr_w1", "LoKr")])
def test_other_kinds_of_adapters_are_refused_by_name(tmp_path, sign, kind):
    tensors = {f"lora_unet_{name.replace('.', '_')}.{sign}": torch.randn(4, 4)
               for name in unet_layers(2)}
    path = saved(tensors, tmp_path / "other.safetensors")
    with pytest.raises(LoadError, match=f"a {kind} adapter; accepted: LoRA"):
        notes_of("postcards", _loras(path))


def test_a_lora_of_wrong_shapes_is_refused_with_the_whole_reason(tmp_path):
    tensors = {name: tensor.repeat(1, 2) if "lora_A" in name else tensor
               for name, tensor in diffusers_lora(unet_layers(2)).items()}
    path = saved(tensors, tmp_path / "wide.safetensors")
    with pytest.raises(LoadError, match=r"size mismatch for .*torch.Size"):
        notes_of("postcards", _loras(path))


def test_half_a_layer_of_a_lora_is_not_made_up(tmp_path):
    tensors = diffusers_lora(unet_layers(3))
    del tensors[next(name for name in tensors if "lora_A" in name)]
    path = saved(tensors, tmp_path / "half.safetensors")
    with pytest.raises(LoadError, match=r"lacks the first factor of 1 of its 3 layers"):
        notes_of("postcards", _loras(path))
