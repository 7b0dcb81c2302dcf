"""Builds the untrained parts of the postcards model from one config; writes the final folder."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    ModelMixin,
    SchedulerMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipelines.postcards.settings import ModelConfig
from pipelines.postcards.vocabulary import known_words

MAX_TOKENS = 32
LATENT_CHANNELS = 4
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}
# DPM++ does not take these; other schedulers made from this config need them.
SCHEDULER_EXTRAS = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
# Where a picture starts (`ModelInfo`); diffusers skips keys with an underscore.
CALL_DEFAULTS = {"num_inference_steps": 20, "guidance_scale": 5.0}


def make_tokenizer() -> CLIPTokenizer:
    """A byte-level BPE in which each known word is one token; other words fall into pieces."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    merges: list[tuple[str, str]] = []
    words = [[*word[:-1], word[-1] + "</w>"] for word in sorted(known_words())]
    while pairs := Counter(pair for word in words for pair in zip(word, word[1:], strict=False)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        tokens.append("".join(best))
        words = [_merge(word, best) for word in words]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=MAX_TOKENS,
    )


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def make_vae(config: ModelConfig) -> AutoencoderKL:
    """An autoencoder without attention; latents are normalised after training, so scaling is 1."""
    blocks = len(config.vae_channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=config.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=config.image_size,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        force_upcast=False,
    )


def make_unet(config: ModelConfig) -> UNet2DConditionModel:
    """A three-level UNet that attends to the text at half its resolution."""
    return UNet2DConditionModel(
        sample_size=config.latent_size,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=config.unet_channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=config.text_width,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_text_encoder(config: ModelConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=2 * config.text_width,
            projection_dim=config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_scheduler() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(**SCHEDULER)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids, shape (captions, MAX_TOKENS)."""
    return tokenizer(
        captions,
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def save_module(module: ModelMixin | CLIPTextModel, folder: Path) -> None:
    """Save as safetensors under a temporary name, then put it in place."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    module.save_pretrained(fresh, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)


def write_folder(
    folder: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler_class: type[SchedulerMixin],
    scheduler_config: Mapping[str, Any],
    call_defaults: Mapping[str, Any],
    pipeline_class: type[DiffusionPipeline] = StableDiffusionPipeline,
) -> None:
    """Save the pipeline as a standard folder, replacing one that is there. The scheduler's file
    holds `scheduler_config` alone.

    UNet and VAE are stored in half precision. The text encoder stays in fp32: transformers loads
    it in the dtype it was stored in, diffusers loads the UNet in fp32, and the two must agree.
    """
    pipe = pipeline_class(
        vae=vae.half(),
        unet=unet.half(),
        text_encoder=text_encoder.float(),
        tokenizer=tokenizer,
        scheduler=scheduler_class(**scheduler_config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    pipe.save_pretrained(fresh, safe_serialization=True)
    # Only what was chosen: a default of DPM++ would otherwise bind every other scheduler.
    keep_only(
        fresh / "scheduler/scheduler_config.json",
        lambda key: key.startswith("_") or key in scheduler_config,
        SCHEDULER_EXTRAS,
    )
    keep_only(fresh / "model_index.json", lambda key: True, {"_call_defaults": call_defaults})
    for config in fresh.glob("*/config.json"):
        keep_only(config, lambda key: key != "_name_or_path")
    if folder.exists():
        shutil.rmtree(folder)
    fresh.replace(folder)


def keep_only(path: Path, keep: Callable[[str], bool], extras: dict | None = None) -> None:
    """Drop the other keys from a JSON file, and add some."""
    values = {key: value for key, value in json.loads(path.read_text()).items() if keep(key)}
    path.write_text(json.dumps(values | (extras or {}), indent=2, sort_keys=True) + "\n")
