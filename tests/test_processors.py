"""What models need of torchvision for still pictures is there without it; what needs another
library that is missing names it."""

import importlib.util
import json
import shutil

import diffusers
import numpy as np
import pytest
import tiny
import torch
import transformers
from PIL import Image

from pipelines import RunRequest
from pipelines.errors import LoadError
from pipelines.models.processors import TRANSFORMS, restore_processors
from pipelines.models.registry import Registry

without_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")


def flux2():
    tokenizer = tiny.qwen_tokenizer()
    tokenizer.add_tokens([transformers.AddedToken(name, special=True)
                          for name in ("[IMG]", "[IMG_BREAK]", "[IMG_END]")])
    template = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
                "{{ c.text }}{% endfor %}<|im_end|>\n{% endfor %}")
    encoder = transformers.Mistral3ForConditionalGeneration(transformers.Mistral3Config(
        text_config={"model_type": "mistral", "vocab_size": 280, "hidden_size": 16,
                     "intermediate_size": 37, "max_position_embeddings": 512,
                     "num_attention_heads": 4, "num_hidden_layers": 1, "num_key_value_heads": 2},
        vision_config={"model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1,
                       "num_attention_heads": 4, "intermediate_size": 37, "image_size": 30,
                       "patch_size": 6}, image_token_index=1)).eval()  # fmt: skip
    return diffusers.Flux2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLFlux2(
            sample_size=32, down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2, block_out_channels=(8, 8),
            layers_per_block=1, latent_channels=1, norm_num_groups=4).eval(),
        text_encoder=encoder,
        tokenizer=transformers.PixtralProcessor(
            transformers.PixtralImageProcessorPil(), tokenizer, chat_template=template),
        transformer=diffusers.Flux2Transformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=[4, 4, 4, 4]).eval(),
    )  # fmt: skip


def llama_tokenizer():
    words = ["<unk>", "<s>", "</s>", "▁", *(chr(code) for code in range(33, 127))]
    return transformers.LlamaTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])


def omnigen():
    return diffusers.OmniGenPipeline(
        transformer=diffusers.OmniGenTransformer2DModel(
            hidden_size=16, num_attention_heads=4, num_key_value_heads=4, intermediate_size=32,
            num_layers=1, in_channels=4, time_step_dim=4,
            rope_scaling={"long_factor": [1, 2], "short_factor": [1, 2]}).eval(),
        vae=diffusers.AutoencoderKL(  # its processor counts tokens of 16 pixels
            block_out_channels=(8,) * 4, down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=1, latent_channels=4,
            norm_num_groups=4, sample_size=32).eval(),
        tokenizer=llama_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True,
                                                            num_train_timesteps=1),
    )  # fmt: skip


def test_flux_2_runs_on_pixtrals_processor(tmp_path, engine):
    restore_processors({"tokenizer": ["transformers", "PixtralProcessor"]})
    torch.manual_seed(0)
    flux2().save_pretrained(tmp_path)
    run = engine.run(RunRequest(model_id=str(tmp_path), prompt="a cat", num_inference_steps=2,
                                height=64, width=64))
    assert run.status == "ok", run.error
    assert not run.notes


def test_omnigen_opens_and_paints(tmp_path):
    restore_processors({"_class_name": "OmniGenPipeline"})
    omnigen().save_pretrained(tmp_path)
    with Registry("cpu").borrow(str(tmp_path)) as (model, _):
        image = model.pipe("a cat", height=32, width=32, num_inference_steps=1).images[0]
    assert image.size == (32, 32)


def test_the_transforms_of_omnigens_processor_are_torchvisions():
    steps = TRANSFORMS.Compose([TRANSFORMS.Lambda(lambda image: image.crop((0, 0, 4, 2))),
                                TRANSFORMS.ToTensor(),
                                TRANSFORMS.Normalize(mean=[0.5] * 3, std=[0.5, 0.25, 1])])
    values = steps(Image.new("RGB", (8, 8), (255, 0, 51)))
    assert values.shape == (3, 2, 4)
    assert np.allclose(values[:, 0, 0], [1, -2, -0.3], atol=1e-6)


@without_torchvision
def test_a_part_whose_library_is_missing_names_it(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder("sd"), tmp_path / "sd")
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text())
                                | {"tokenizer": ["transformers", "OmDetTurboProcessor"]}))
    with (pytest.raises(LoadError, match=r"its tokenizer .*OmDetTurboProcessor requires the "
                                         "Torchvision library"),
          Registry("cpu").borrow(str(folder))):  # fmt: skip
        pass
