"""Random weights of the shapes of large models, for the benchmark; no checkpoint is needed."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

from pipelines.models.loaded import LoadedModel
from pipelines.models.placement import place, weight_bytes
from pipelines.models.registry import Registry
from pipelines.models.signatures import task_classes

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, T5EncoderModel, T5Tokenizer

CPU_SIDE = 256  # pixels on the CPU; their own 512 and 1024 take minutes a call


def stable_diffusion_15(registry: Registry) -> LoadedModel:
    """Random weights of the shapes of Stable Diffusion 1.5."""
    from diffusers import StableDiffusionPipeline

    return _random(registry, StableDiffusionPipeline, "SD 1.5's shapes", 512, {
        "unet": unet(sample_size=64, cross_attention_dim=768),
        "text_encoder": text_encoder("CLIPTextModel", 768, 12, 12),
    })


def stable_diffusion_xl(registry: Registry) -> LoadedModel:
    """Random weights of the shapes of Stable Diffusion XL."""
    from diffusers import StableDiffusionXLPipeline

    return _random(registry, StableDiffusionXLPipeline, "SDXL's shapes", 1024, {
        "unet": unet(
            sample_size=128, cross_attention_dim=2048, block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
            use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816),
        "text_encoder": text_encoder("CLIPTextModel", 768, 12, 12),
        "text_encoder_2": text_encoder("CLIPTextModelWithProjection", 1280, 32, 20),
    })


def stable_diffusion_3(registry: Registry) -> LoadedModel:
    """Random weights of the width of Stable Diffusion 3, with 2 of its 24 blocks and without T5."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=2,
        attention_head_dim=64, num_attention_heads=24, caption_projection_dim=1536,
        joint_attention_dim=4096, pooled_projection_dim=2048)
    projected = "CLIPTextModelWithProjection"
    return _random(registry, StableDiffusion3Pipeline, "SD 3's width, 2 blocks", 1024, {
        "transformer": transformer,
        "text_encoder": text_encoder(projected, 768, 12, 12),
        "text_encoder_2": text_encoder(projected, 1280, 32, 20),
        "text_encoder_3": None, "tokenizer_3": None,
    }, latent_channels=16)


def flux(registry: Registry) -> LoadedModel:
    """Random weights of the width of Flux.1, with 1 of its 19 double blocks, 2 of its 38 single
    ones and 1 of T5's 24."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        num_layers=1, num_single_layers=2, guidance_embeds=True)  # else the class's own: Flux.1
    return _random(registry, FluxPipeline, "Flux's width, 3 blocks", 1024, {
        "transformer": transformer,
        "text_encoder": text_encoder("CLIPTextModel", 768, 12, 12),
        "text_encoder_2": t5(4096, 10240, 64), "tokenizer_2": t5_tokenizer(),
    }, latent_channels=16)


def unet(**config: Any) -> UNet2DConditionModel:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**config)  # the class's own defaults are SD 1's


def text_encoder(class_name: str, width: int, layers: int, heads: int) -> CLIPTextModel:
    import transformers

    return getattr(transformers, class_name)(transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, projection_dim=width))


def t5(width: int, inner: int, heads: int) -> T5EncoderModel:
    """One block."""
    import transformers

    return transformers.T5EncoderModel(transformers.T5Config(
        d_model=width, d_ff=inner, d_kv=64, num_heads=heads, num_layers=1,
        feed_forward_proj="gated-gelu"))


def t5_tokenizer() -> T5Tokenizer:
    """One that spells."""
    import transformers

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(chr(code), -3.0) for code in range(33, 127)]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _random(
    registry: Registry, cls: type, name: str, side: int, parts: dict[str, Any],
    latent_channels: int = 4,
) -> LoadedModel:
    """A pipeline of these parts under the bundled model's words, without its weights."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

    with registry.borrow("postcards") as (small, _):
        tokenizer = copy.deepcopy(small.pipe.tokenizer)
        tokenizer.model_max_length = 77
        flow = "transformer" in parts
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0) if flow else small.pipe.scheduler
        parts = {"tokenizer": tokenizer, "scheduler": scheduler, **parts}
        if "text_encoder_2" not in parts:
            parts |= {"safety_checker": None, "feature_extractor": None,
                      "requires_safety_checker": False}
        elif "tokenizer_2" not in parts:
            parts["tokenizer_2"] = tokenizer
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
            latent_channels=latent_channels, shift_factor=0.06 if flow else None,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
        pipe = cls(vae=vae, **parts).to(small.pipe.unet.dtype)
        for part in pipe.components.values():
            if hasattr(part, "eval"):
                part.eval()
        place(pipe, registry.device, "device")
        side = CPU_SIDE if registry.device == "cpu" else side
        info = dataclasses.replace(
            small.info, model_id=name, pipeline_class=cls.__name__, height=side, width=side,
            task_classes=task_classes(cls.__name__), size_multiple=16,
            original_scheduler_config={**scheduler.config,
                                       "_class_name": type(scheduler).__name__})
        return dataclasses.replace(small, info=info, pipe=pipe, views={}, warmed=set(),
                                   networks={}, size_bytes=weight_bytes(pipe))


# Name -> what builds it, and the memory that it needs in float32, in GB.
LARGE = {"sd15": (stable_diffusion_15, 7), "sdxl": (stable_diffusion_xl, 19),
         "sd3": (stable_diffusion_3, 8), "flux": (flux, 10)}
